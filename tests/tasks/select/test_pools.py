"""The law of pools: worked examples, its properties, against the released code's loops, over any number of passes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.select import pools
from tasks.select.pool_law import predicted_errors
from tasks.select.pools import best_pool, effective_data, predicted_error

E = 12.8e6
B, TAU = (-0.20, -0.17, -0.14, -0.12), (1.5, 2.5, 4.0, 6.0)
ONE = (0.02, -0.15, 3.0, 0.1, E)


# ---------------------------------------------------------------------------------------------------- worked examples
@pytest.mark.parametrize(
    ("samples", "released", "printed"),
    [
        (6.4e6, 1.0636481779, 1.0636481779),
        (12.8e6, 0.9684883661, 0.9684883661),
        (25.6e6, 0.8917749283, 0.8996958740),
        (32e6, 0.8731680495, 0.8830102242),
        (128e6, 0.8099019760, 0.8262766063),
    ],
)
def test_golden_errors(samples, released, printed):
    assert predicted_error(samples, *ONE, variant="released") == pytest.approx(released, abs=1e-10)
    assert predicted_error(samples, *ONE) == pytest.approx(printed, abs=1e-10)


def test_golden_effective_data_and_no_decay():
    assert effective_data(32e6, *ONE) == pytest.approx(0.8765374031, abs=1e-10)
    n_eff = (0.8765374031 - 0.1) ** (1 / -0.15)
    assert n_eff == pytest.approx(5.3982228, abs=1e-6)
    assert predicted_error(128e6, 0.02, -0.15, math.inf, 0.1, E) == pytest.approx(0.7148426775, abs=1e-10)


@pytest.mark.parametrize(
    ("samples", "released", "printed", "best"),
    [
        (32e6, (0.836018, 0.811004, 0.829373, 0.846495), (0.845990, 0.814368, 0.829373, 0.846495), 2),
        (64e6, (0.806551, 0.733449, 0.746487, 0.767657), (0.819696, 0.746055, 0.753998, 0.770881), 2),
        (128e6, (0.800517, 0.681477, 0.677631, 0.694871), (0.814311, 0.700275, 0.693674, 0.707271), 3),
        (640e6, (0.800159, 0.646487, 0.592848, 0.582637), (0.813992, 0.669455, 0.619395, 0.609185), 4),
    ],
)
def test_golden_pools(samples, released, printed, best):
    for variant, expected in (("released", released), ("printed", printed)):
        errors, found = best_pool(samples, 0.02, B, TAU, 0.1, E, variant=variant)
        assert errors == pytest.approx(expected, abs=6e-7) and found == best


def test_two_identical_buckets_are_one_of_twice_the_size():
    pooled = predicted_error(128e6, 0.02, (-0.15, -0.15), (3, 3), 0.1, E, variant="released")
    assert pooled == pytest.approx(0.7281550607, abs=1e-10)
    assert pooled == pytest.approx(predicted_error(128e6, 0.02, -0.15, 6, 0.1, 2 * E, variant="released"), abs=1e-12)


def test_the_curve_ends_above_the_floor():
    errors = predicted_errors(E * np.array([10, 50, 200, 1000]), *ONE)
    assert errors == pytest.approx([0.826277, 0.822383, 0.822383, 0.822383], abs=6e-7)


# --------------------------------------------------------------------------------------------------- the code's loops
def looped(samples, scale, b, tau, floor, size, variant):
    """The released code, pass by pass, `printed` with the floor added last."""
    whole = int(samples // (size * len(b)))
    exponents = [np.mean([x * 0.5 ** (e / (c * len(b))) for x, c in zip(b, tau)]) for e in range(whole + 1)]
    seen = [min(size * len(b) * (e + 1), samples) for e in range(whole + 1)]
    loss = (scale * seen[0] / 1e5) ** exponents[0] + (floor if variant == "released" else 0)
    for e in range(1, whole + 1):
        loss *= (seen[e] / (size * len(b) * e)) ** exponents[e]
    return loss + (floor if variant == "printed" else 0)


def looped_data(samples, scale, b, tau, floor, size):
    """The released code's other objective for pools."""
    whole, effective, loss = int(samples // (size * len(b))), 0.0, 0.0
    for e in range(whole + 1):
        left = np.array([0.5 ** (e / (c * len(b))) for c in tau])
        here = scale * (min(size * len(b) * (e + 1), samples) - size * len(b) * e) / 1e5
        before, effective = effective, effective + (here / len(b) * left).sum()
        exponent = (np.array(b) * left).sum() / left.sum()
        loss = effective**exponent if e == 0 else loss * (effective / before) ** exponent
    return loss + floor


buckets = st.lists(st.tuples(st.floats(-0.5, -0.005), st.floats(0.5, 40)), min_size=1, max_size=5)
passes = st.floats(0.3, 60)


@given(buckets, passes, st.floats(0.005, 0.05), st.floats(0, 0.3), st.sampled_from(["printed", "released"]))
def test_is_the_codes_loop(some, times, scale, floor, variant):
    b, tau = zip(*sorted(some))
    law = (scale, b, tau, floor, E)
    assert predicted_error(times * E, *law, variant=variant) == pytest.approx(
        looped(times * E, *law, variant), rel=1e-12
    )
    assert effective_data(times * E, *law) == pytest.approx(looped_data(times * E, *law), rel=1e-12)


@pytest.mark.parametrize("tau", [(30.0, 200.0), (300.0, 5e3), (1e5, 1e6), (2.0, 1e6)])
@pytest.mark.parametrize("samples", [2049.0, 4097.5, 300_001.25])
def test_many_passes_are_summed_to_twelve_digits(tau, samples):
    """Two buckets of one sample each: 150,000 passes, those behind the first thousand by quadrature."""
    law = (2e5, (-0.2, -0.1), tau, 0.1, 1)
    e = np.arange(1, int(samples // 2) + 1.0)
    exponent = (np.exp2(-e[:, None] / (2 * np.array(tau))) * [-0.2, -0.1]).mean(axis=1)
    steps = exponent * np.log(np.minimum(2 * e + 2, samples) / (2 * e))
    expected = 4.0**-0.15 * math.exp(math.fsum(steps)) + 0.1
    assert predicted_error(samples, *law) == pytest.approx(expected, rel=1e-12)
    left = np.exp2(-np.arange(0, len(e) + 1.0)[:, None] / (2 * np.array(tau)))
    seen = np.diff(np.minimum(2 * np.arange(len(e) + 2.0), samples)) * left.mean(axis=1)
    total, weighed = np.cumsum(seen), (left * [-0.2, -0.1]).sum(axis=1) / left.sum(axis=1)
    data = 4.0**-0.15 * math.exp(math.fsum(weighed[1:] * np.log(total[1:] / total[:-1]))) + 0.1
    assert effective_data(samples, *law) == pytest.approx(data, rel=1e-11)


def test_a_million_million_samples_of_buckets_of_one():
    tau = np.full(10, 1e6)
    assert predicted_error(1e12, 0.02, np.linspace(-0.2, -0.1, 10), tau, 0.1, 1) == pytest.approx(0.75852386, abs=1e-7)
    assert predicted_error(1e12, 0.02, -0.15, math.inf, 0.1, 1) == pytest.approx(
        (0.02e12 / 1e5) ** -0.15 + 0.1, rel=1e-12
    )


# --------------------------------------------------------------------------------------------------------- properties
variants = st.sampled_from(["printed", "released"])


@given(st.floats(-0.5, -0.005), st.floats(0, 0.3), st.floats(0.5, 1e4), variants)
def test_without_decay_repetition_is_nothing(b, floor, times, variant):
    found = predicted_error(times * E, 0.02, b, math.inf, 0.0, E, variant=variant)
    assert found == pytest.approx((0.02 * times * E / 1e5) ** b, rel=1e-12)
    printed = predicted_error(times * E, 0.02, b, math.inf, floor, E)
    assert printed == pytest.approx((0.02 * times * E / 1e5) ** b + floor, rel=1e-12)


@given(st.floats(-0.5, -0.005), st.floats(0.5, 10), st.floats(0.01, 1), variants)
def test_one_pass_does_not_decay(b, tau, share, variant):
    found = predicted_error(share * E, 0.02, b, tau, 0.1, E, variant=variant)
    assert found == pytest.approx((0.02 * share * E / 1e5) ** b + 0.1, rel=1e-12)


@given(buckets, st.integers(1, 30), variants)
def test_the_end_of_a_pass_is_one_place(some, times, variant):
    """At a multiple of E the last factor is 1; just before and behind it the error is the same."""
    b, tau = zip(*some)
    size = E * len(b) * times
    around = predicted_errors(size * np.array([1 - 1e-13, 1, 1 + 1e-13]), 0.02, b, tau, 0.1, E, variant=variant)
    assert np.ptp(around) < 1e-12


@given(buckets, st.floats(0.4, 50), st.floats(1, 3), variants)
def test_more_samples_are_never_worse(some, times, more, variant):
    b, tau = zip(*some)
    errors = predicted_errors(E * np.array([times, times * more]), 0.02, b, tau, 0.1, E, variant=variant)
    assert errors[1] <= errors[0] + 1e-14


@given(st.floats(-0.4, -0.01), st.floats(0.5, 10), st.floats(1, 40), st.floats(1.001, 3), variants)
def test_steeper_exponents_and_longer_half_lives_are_better(b, tau, times, factor, variant):
    here, steeper, longer = (
        predicted_error(times * E, 0.02, *law, 0.1, E, variant=variant)
        for law in ((b, tau), (b * factor, tau), (b, tau * factor))
    )
    assert steeper < here and longer <= here  # a n > 1e5 behind half a pass


@given(st.floats(-0.4, -0.01), st.floats(0.5, 10), st.integers(2, 6), passes, variants)
def test_identical_buckets_pooled_are_one(b, tau, count, times, variant):
    n = times * E
    pooled = predicted_error(n, 0.02, [b] * count, [tau] * count, 0.1, E, variant=variant)
    assert pooled == pytest.approx(predicted_error(n, 0.02, b, count * tau, 0.1, count * E, variant=variant), abs=1e-12)


@given(buckets.filter(lambda some: len(some) > 1), st.floats(0.01, 1), variants)
def test_unlimited_data_is_for_the_best_bucket(some, share, variant):
    b, tau = zip(*some)
    n = max(share * E, 6e6)  # a n above 1e5, or the steepest is the worst
    assert best_pool(n, 0.02, b, tau, 0.1, E, variant=variant)[1] == 1


@given(buckets, passes, st.randoms(use_true_random=False), variants)
def test_the_order_of_buckets_is_nothing(some, times, rng, variant):
    shuffled = rng.sample(some, len(some))
    one, other = (best_pool(times * E, 0.02, *zip(*each), 0.1, E, variant=variant) for each in (some, shuffled))
    assert one[0][-1] == pytest.approx(other[0][-1], rel=1e-13)
    if len({b for b, _ in some}) == len(some):
        assert np.array_equal(one[0], other[0]) and one[1] == other[1]


@given(st.floats(-0.5, -0.01), st.floats(0.5, 10), st.integers(1, 6), st.floats(0.5, 60), st.floats(0, 0.3))
def test_another_identical_bucket_never_harms_where_the_floor_is_outside(b, tau, count, times, floor):
    found = [predicted_error(times * E, 0.02, [b] * m, [tau] * m, floor, E) for m in (count, count + 1)]
    assert found[1] <= found[0] + 1e-13


def test_longer_training_speaks_for_larger_pools():
    found = [best_pool(n, 0.02, B, TAU, 0.1, E)[1] for n in np.geomspace(6e6, 1e10, 60)]
    assert found == sorted(found) and set(found) == {1, 2, 3, 4}


def test_is_not_clamped():
    assert predicted_error(2e6, *ONE) == pytest.approx(0.4**-0.15 + 0.1, rel=1e-12) and predicted_error(2e6, *ONE) > 1
    assert predicted_error(0, *ONE) == 0.1


def test_arguments_out_of_bounds_are_named():
    for name, change in {
        "scale": {"scale": 0},
        "pool_size": {"pool_size": math.inf},
        "floor": {"floor": -1},
        "samples_seen": {"samples_seen": -1},
        "exponents": {"exponents": [-0.1, 0.1], "half_lives": [1, 1]},
        "half_lives": {"half_lives": 0},
        "variant": {"variant": "paper"},
    }.items():
        given_ = dict(samples_seen=1e6, scale=0.02, exponents=-0.1, half_lives=1, floor=0.1, pool_size=E)
        with pytest.raises(ValueError, match=f"`{name}`"):
            predicted_error(**(given_ | change))
    with pytest.raises(ValueError, match=r"\(2,\) and `half_lives` \(1,\)"):
        best_pool(1e6, 0.02, (-0.1, -0.2), (1,), 0.1, E)


# ---------------------------------------------------------------------------------------------------------------- fits
SEEN = E * np.array([2, 4, 6, 8, 10])


@settings(max_examples=25)
@given(st.floats(-0.49, -0.02), st.floats(1.05, 9.5), variants)
def test_a_fit_finds_the_law_again(b, tau, variant):
    errors = predicted_errors(SEEN, 0.02, b, tau, 0.1, E, variant=variant)
    found = pools.fit(SEEN, errors, E, 0.02, 0.1, variant=variant)
    assert (found.exponent, found.half_life) == pytest.approx((b, tau), rel=2e-3)
    assert predicted_errors(SEEN, 0.02, *found[:2], 0.1, E, variant=variant) == pytest.approx(errors, abs=1e-6)


def test_the_grid_is_the_codes_and_every_point_is_tried():
    b, tau = np.linspace(-0.005, -0.5, 100), np.linspace(1, 10, 100)
    errors = np.array([0.9, 0.84, 0.81, 0.80, 0.798])
    losses = {
        (x, c): sum((looped(n, 0.022, (x,), (c,), 0.1, E, "released") - y) ** 2 for n, y in zip(SEEN, errors))
        for x in b[20:40]
        for c in tau[::9]
    }
    found = pools.fit(SEEN, errors, E, 0.022, 0.1, variant="released", refine=False)
    assert np.isclose(b, found.exponent).any() and np.isclose(tau, found.half_life).any()
    assert found.loss <= min(losses.values()) + 1e-15
    again = looped_loss = sum(
        (looped(n, 0.022, (found.exponent,), (found.half_life,), 0.1, E, "released") - y) ** 2
        for n, y in zip(SEEN, errors)
    )
    assert (
        found.loss == pytest.approx(looped_loss, rel=1e-9)
        and again >= pools.fit(SEEN, errors, E, 0.022, 0.1, variant="released").loss
    )


def test_scale_and_floor_are_fitted_over_buckets():
    b, tau = np.linspace(-0.005, -0.5, 100)[[40, 30, 20]], np.linspace(1, 10, 100)[[10, 30, 70]]
    floor = float(np.linspace(0.02, 0.15, 10)[4])
    errors = [predicted_errors(SEEN, 0.022, x, c, floor, E) for x, c in zip(b, tau)]
    found = pools.fit_together(SEEN, errors, E)
    assert (found.scale, found.floor) == pytest.approx((0.022, floor))
    assert [one.exponent for one in found.buckets] == pytest.approx(b, rel=1e-6)
    assert [one.half_life for one in found.buckets] == pytest.approx(tau, rel=1e-6)


def test_points_that_cannot_be_fitted_are_refused():
    for samples, errors in (([1e7], [0.5]), ([1e7, 2e7], [0.5, math.nan]), ([0, 1e7], [0.5, 0.4]), ([1e7, 2e7], [0.5])):
        with pytest.raises(ValueError, match="`samples`"):
            pools.fit(samples, errors, E, 0.02, 0.1)
    with pytest.raises(ValueError, match="`errors`"):
        pools.fit_together(SEEN, np.zeros(5), E)
