"""GREATS: a worked case, the definition by brute force, properties, rows without a gradient."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.methods import scored as methods
from storage.packed import pack
from tasks import load
from tasks.sample import METHODS, greats
from tasks.sample.greats import select_greedily


def lowering(picked, gains, sketches, eta):
    """How much the rows together lower the validation loss, up to a constant: the sum that greedy picks raise."""
    total = eta * sum(gains[i] for i in picked)
    return total - eta**2 * sum(float(sketches[i] @ sketches[j]) for n, i in enumerate(picked) for j in picked[:n])


def brute_force(gains, sketches, count, eta):
    chosen: list[int] = []
    for _ in range(count):
        left = [i for i in range(len(gains)) if i not in chosen]
        before = lowering(chosen, gains, sketches, eta)
        chosen.append(max(left, key=lambda i: (lowering([*chosen, i], gains, sketches, eta) - before, -i)))
    return chosen


def problem(count, seed, dim=6):
    rng = np.random.default_rng(seed)
    sketches = rng.integers(-4, 5, (count, dim)).astype(np.float64)  # whole numbers: ties are ties
    return rng.integers(-6, 7, count).astype(np.float64), sketches


def sampler(**over):
    sizes = {"superbatch_size": 16, "filter_ratio": 0.5, "micro_batch": 4, "world_size": 2, "step_size": 0.25}
    return load(METHODS, methods.Greats(**sizes | over), seed=0)


def superbatch(gains, sketches, valid=None):
    return pa.table({"gradient_gain": np.float32(gains), "gradient_sketch": pack(np.float32(sketches), valid)})


def test_worked_case():
    # Two rows with the same gradient and one at right angles to them: having one of the twins makes the other worth less.
    gains, sketches = [3.0, 3.0, 2.5], [[2.0, 0.0], [2.0, 0.0], [0.0, 1.0]]
    picks, value = select_greedily(gains, sketches, 2, step_size=0.5)
    assert picks.tolist() == [0, 2]
    assert value.tolist() == [1.5, 1.5 - 0.25 * 4, 1.25]
    assert select_greedily(gains, sketches, 2, step_size=0.1)[0].tolist() == [0, 1]  # a small step: gains alone


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 12), st.data())
def test_picks_are_the_brute_force(seed, count, data):
    wanted, eta = data.draw(st.integers(0, count)), data.draw(st.sampled_from([0.125, 0.5, 2.0]))
    gains, sketches = problem(count, seed)
    picks, value = select_greedily(gains, sketches, wanted, step_size=eta)
    assert picks.dtype == np.int64 and picks.tolist() == brute_force(gains, sketches, wanted, eta)
    assert value[picks].sum() == pytest.approx(lowering(picks.tolist(), gains, sketches, eta))


def test_large_micro_batches_are_picked_as_small_ones(monkeypatch):
    gains, sketches = problem(200, 1)
    whole = select_greedily(gains, sketches, 50, step_size=0.125)
    monkeypatch.setattr(greats, "GRAM_ROWS", 100)
    by_row = select_greedily(gains, sketches, 50, step_size=0.125)
    assert whole[0].tolist() == by_row[0].tolist() and whole[1].tolist() == by_row[1].tolist()


def test_without_sketches_the_gains_alone_decide():
    gains, sketches = problem(30, 2)
    picks = select_greedily(gains, 0 * sketches, 10, step_size=1.0)[0]
    assert picks.tolist() == np.argsort(-gains, kind="stable")[:10].tolist()


def test_each_micro_batch_is_picked_by_itself():
    gains, sketches = problem(16, 3)
    picks, told = sampler().pick_and_value(superbatch(gains, sketches), 0)
    groups = [range(first, first + 4) for first in range(0, 16, 4)]
    expected = [[g[i] for i in brute_force(gains[g], sketches[g], 2, 0.25)] for g in map(list, groups)]
    assert [p.tolist() for p in picks] == [expected[0] + expected[1], expected[2] + expected[3]]
    assert told["gradient_gain"].tolist() == gains.tolist() and np.isfinite(told["gain"]).all()


def test_rows_without_a_gradient_come_last_in_order_and_count_for_none():
    gains, sketches = problem(16, 4)
    gains[1], sketches[2] = np.nan, np.inf
    valid = ~np.isin(np.arange(16), [0, 9])
    picks, told = sampler(filter_ratio=0.25).pick_and_value(superbatch(gains, sketches, valid), 0)
    assert picks[0].tolist()[:3] == [3, 0, 1]
    assert picks[1].tolist()[:3] == [
        [8, 10, 11][i] for i in brute_force(gains[[8, 10, 11]], sketches[[8, 10, 11]], 3, 0.25)
    ]
    assert np.flatnonzero(np.isnan(told["gain"])).tolist() == [0, 1, 2, 9]
    assert np.flatnonzero(np.isnan(told["gradient_gain"])).tolist() == [1]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (([1.0], [[1.0], [2.0]], 1), r"`sketches` is \(2, 1\); it must have a row for each of the `gains`, \(1,\)"),
        (([1.0], [[1.0]], 2), r"`count` is 2; it must be in \[0, 1\]"),
        (([np.nan], [[1.0]], 1), "`gains` or `sketches` hold NaN or infinity"),
    ],
)
def test_bad_arguments_are_named(arguments, match):
    with pytest.raises(ValueError, match=match):
        select_greedily(*arguments, step_size=1.0)


def test_it_is_registered_with_all_that_the_flow_reads():
    method = sampler()
    assert method.needs == ("gradient_gain", "gradient_sketch") and method.independent
    assert method.values == ("gradient_gain", "gain") and method.part_rows * 4096 <= 1 << 27
    assert "sample.validation" in method.remedy
