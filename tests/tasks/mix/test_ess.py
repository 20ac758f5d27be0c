"""Effective sample size: worked examples, and what holds for all weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.mix import ess
from tasks.mix.ess import (
    clustered,
    design_effect,
    effective_number,
    effective_sample_size,
    largest_share,
    log_effective_sample_size,
    mix_efficiency,
    top_share,
)

WEIGHT = st.one_of(st.just(0.0), st.floats(1e-6, 1e6))
WEIGHTS = st.lists(WEIGHT, min_size=1, max_size=40).filter(any)
POSITIVE = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=40)


def rho(weights):
    return effective_sample_size(weights) / len(weights)


# -------------------------------------------------------------------------------------------------------------- golden
@pytest.mark.parametrize(
    ("weights", "effective"),
    [
        ((1, 1, 1, 1), 4),
        ((1, 2, 3, 4), 10 / 3),
        ((1, 0, 0, 0), 1),
        ((10, *[1] * 9), 3.311927),
        ((4, 4, 1, 1, 1, 1), 4),
        ((8, 4), 1.8),
    ],
)
def test_worked_examples(weights, effective):
    assert effective_sample_size(weights) == pytest.approx(effective, abs=1e-6)
    assert ess.sums(weights).ess == pytest.approx(effective, abs=1e-6)
    assert design_effect(weights) == pytest.approx(len(weights) / effective, abs=1e-6)


def test_design_effect_is_one_plus_the_squared_coefficient_of_variation():
    weights = np.array([1, 2, 3, 4.0])
    assert design_effect(weights) == pytest.approx(1.2) == 1 + weights.var() / weights.mean() ** 2


def test_worked_mixture():
    p, q = (0.5, 0.3, 0.2), (0.2, 0.3, 0.5)
    assert mix_efficiency(p, q) == pytest.approx(0.613497, abs=1e-6) == pytest.approx(1 / 1.63)
    rows = np.repeat(np.array(p) / q, (200, 300, 500))
    assert rho(rows) == pytest.approx(mix_efficiency(p, q))
    assert mix_efficiency((5, 3, 2), (200, 300, 500)) == pytest.approx(mix_efficiency(p, q))
    assert effective_number(p) == pytest.approx(2.631579, abs=1e-6)


def test_worked_log_ratios():
    logs = np.array([0, 0.5, -0.5, 2])
    assert np.exp(log_effective_sample_size(logs)) == pytest.approx(1.930691, abs=1e-6)
    ratio = np.exp(log_effective_sample_size(logs)) / 4
    assert (ratio, math.sqrt(ratio)) == (pytest.approx(0.482673, abs=1e-6), pytest.approx(0.694747, abs=1e-6))
    clipped = np.minimum(np.exp(logs), 2)
    assert effective_sample_size(clipped) == pytest.approx(3.415424, abs=1e-6)
    assert rho(clipped) == pytest.approx(0.853856, abs=1e-6)
    assert rho([1, 0.5, 2, 1]) == pytest.approx(0.81)


def test_worked_clusters():
    weights, of = (4, 4, 1, 1, 1, 1), ("a", "a", "b", "b", "b", "b")
    assert clustered(weights, of).tolist() == [8, 4]
    assert effective_sample_size(clustered(weights, of)) == pytest.approx(1.8)


def test_log_normal_weights_come_near_their_limit():
    logs = 0.6 * np.random.default_rng(0).standard_normal(200_000)
    assert np.exp(log_effective_sample_size(logs)) / len(logs) == pytest.approx(math.exp(-0.36), rel=0.02)


# ---------------------------------------------------------------------------------------------------------- properties
@given(WEIGHTS, st.floats(1e-3, 1e3))
def test_scale_does_not_matter(weights, factor):
    assert effective_sample_size(np.array(weights) * factor) == pytest.approx(effective_sample_size(weights))


@given(WEIGHTS)
def test_bounds(weights):
    found, w = effective_sample_size(weights), np.array(weights)
    assert 1 - 1e-9 <= found <= np.count_nonzero(w) + 1e-9
    assert found >= 1 / largest_share(weights) - 1e-9
    shares = w[w > 0] / w.sum()
    assert np.exp(-(shares * np.log(shares)).sum()) >= found * (1 - 1e-9)  # perplexity
    assert design_effect(weights) == pytest.approx(1 + w.var() / w.mean() ** 2)


@given(WEIGHTS)
def test_n_for_equal_weights_alone(weights):
    # Nearly equal ones come as near as float64 tells.
    equal = math.isclose(max(weights), min(weights), rel_tol=1e-4)
    assert equal or effective_sample_size(weights) < len(weights)
    assert effective_sample_size([weights[0] + 1.0] * len(weights)) == pytest.approx(len(weights))


@given(st.integers(1, 30), st.integers(0, 30), st.floats(1e-300, 1e300))
def test_equal_weights_among_zeros(k, zeros, weight):
    assert effective_sample_size([weight] * k + [0.0] * zeros) == pytest.approx(k)


@given(WEIGHTS, st.randoms(use_true_random=False))
def test_order_does_not_matter(weights, random):
    other = random.sample(weights, len(weights))
    assert effective_sample_size(other) == pytest.approx(effective_sample_size(weights))


@given(WEIGHTS, st.integers(1, 5), st.integers(1, 20))
def test_zeros_lower_rho_alone_and_replication_the_number_alone(weights, times, zeros):
    found = effective_sample_size(weights)
    assert effective_sample_size(weights + [0.0] * zeros) == pytest.approx(found)
    assert rho(weights + [0.0] * zeros) < rho(weights)
    assert effective_sample_size(weights * times) == pytest.approx(times * found)
    assert rho(weights * times) == pytest.approx(rho(weights))


@given(WEIGHTS, st.floats(0.01, 1))
def test_truncation_never_lowers_rho(weights, share):
    limit = max(share * max(weights), min(w for w in weights if w))
    assert rho(np.minimum(weights, limit)) >= rho(weights) - 1e-9


@given(POSITIVE, st.floats(0, 1), st.floats(0, 1))
def test_the_cooler_the_more_even(weights, one, other):
    low, high = sorted((one, other))
    assert rho(np.power(weights, low)) >= rho(np.power(weights, high)) - 1e-9


@given(POSITIVE.filter(lambda w: len(w) > 1), st.floats(0, 0.5))
def test_giving_from_the_rich_to_the_poor_raises_it(weights, part):
    w = np.array(weights)
    rich, poor = w.argmax(), w.argmin()
    gift = part * (w[rich] - w[poor])
    given_ = w.copy()
    given_[rich], given_[poor] = given_[rich] - gift, given_[poor] + gift
    assert effective_sample_size(given_) >= effective_sample_size(w) - 1e-9


@given(WEIGHTS)
def test_logs_say_the_same(weights):
    with np.errstate(divide="ignore"):
        logs = np.log(weights)
    assert log_effective_sample_size(logs) == pytest.approx(np.log(effective_sample_size(weights)), abs=1e-9)
    assert log_effective_sample_size(logs + 700) == pytest.approx(log_effective_sample_size(logs), abs=1e-9)


@given(st.lists(WEIGHTS, min_size=1, max_size=5))
def test_sums_of_shards_add_up(parts):
    whole, found = [w for part in parts for w in part], ess.merged(map(ess.sums, parts))
    assert found.ess == pytest.approx(effective_sample_size(whole)) and found.n == len(whole)
    assert found.rho == pytest.approx(rho(whole)) and found.deff == pytest.approx(design_effect(whole))
    assert found.share == pytest.approx(largest_share(whole))


@given(st.lists(st.tuples(st.floats(1e-3, 1), st.integers(1, 50)), min_size=1, max_size=12))
def test_efficiency_is_rho_of_the_rows(groups):
    p, rows = np.array([share for share, _ in groups]), np.array([n for _, n in groups])
    found = mix_efficiency(p, rows)
    assert 0 < found <= 1 and found == pytest.approx(rho(np.repeat(p / rows, rows)))
    assert mix_efficiency(rows, rows) == pytest.approx(1)


@given(WEIGHTS, st.lists(st.integers(0, 4), min_size=40, max_size=40))
def test_clusters_are_worth_at_most_their_rows(weights, clusters):
    found = clustered(weights, clusters[: len(weights)])
    assert found.sum() == pytest.approx(sum(weights))
    assert effective_sample_size(found) <= effective_sample_size(weights) + 1e-9


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60).filter(any), st.floats(0.01, 1))
def test_the_heaviest_rows(weights, top):
    taken = sorted(weights, reverse=True)[: max(1, math.floor(top * len(weights) + 1e-9))]
    values, counts = np.unique(weights, return_counts=True)
    assert top_share(weights, top=top) == pytest.approx(sum(taken) / sum(weights))
    assert top_share(values, counts, top=top) == pytest.approx(sum(taken) / sum(weights))


# ----------------------------------------------------------------------------------------------------------- bad input
def test_nothing_and_zeros():
    for weights in ([], [0.0, 0.0]):
        assert effective_sample_size(weights) == 0 == largest_share(weights) == top_share(weights)
        assert log_effective_sample_size(np.full(len(weights), -np.inf)) == -np.inf
        assert ess.sums(weights).ess == 0 == ess.sums(weights).rho
    assert design_effect([0, 0]) == math.inf and ess.merged([]) == ess.Sums()
    with pytest.raises(ValueError, match="`weights` is empty"):
        design_effect([])


def test_extreme_scales():
    assert effective_sample_size([1e308, 1e308]) == 2 == effective_sample_size([5e-324, 5e-324])
    assert mix_efficiency([1e308, 1e308], [1, 1]) == 1
    assert 0 <= mix_efficiency([1, 1], [1e308, 5e-324]) < 1e-300


def test_shares_without_rows():
    assert mix_efficiency([0.5, 0.5], [1, 0]) == 0 == mix_efficiency([0, 0], [1, 1])
    assert mix_efficiency([1, 0], [0.5, 0.5]) == 0.5 and mix_efficiency([1, 0], [1, 0]) == 1


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
@pytest.mark.parametrize("of", [effective_sample_size, design_effect, largest_share, top_share, ess.sums])
def test_bad_weights_are_refused(of, bad):
    with pytest.raises(ValueError, match=rf"`weights` holds {bad} at 2; each must be finite and at least 0"):
        of([1, 2, bad])


def test_other_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`weights` has shape"):
        effective_sample_size([[1, 2]])
    with pytest.raises(ValueError, match=r"`proportions` has 2 groups and `natural_shares` 1"):
        mix_efficiency([1, 1], [1])
    with pytest.raises(ValueError, match=r"`natural_shares` holds -1.0 at 0"):
        mix_efficiency([1], [-1])
    with pytest.raises(ValueError, match=r"`clusters` has shape \(1,\)"):
        clustered([1, 2], [0])
    with pytest.raises(ValueError, match=r"`log_weights` holds inf at 1; each must be a number or -inf"):
        log_effective_sample_size([0, np.inf])
    with pytest.raises(ValueError, match="`top` is 0"):
        top_share([1], top=0)
    with pytest.raises(ValueError, match="`counts` has shape"):
        top_share([1], [1, 2])
