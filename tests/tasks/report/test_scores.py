"""Score histograms: exact, the same for any division into blocks, whatever the values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.report import scores


def drawn(values, weights, blocks, cuts=()):
    parts = list(zip(np.array_split(values, blocks), np.array_split(weights, blocks)))
    spans = [one for one in (scores.span([part]) for part, _ in parts) if one]
    bounds = scores.edges(spans, cuts)
    return bounds, scores.merge({"s": scores.histogram(v, w, bounds)} for v, w in parts)["s"]


@pytest.mark.parametrize("blocks", [1, 2, 7])
def test_counts_every_row_and_every_use(blocks):
    rng = np.random.default_rng(blocks)
    values, weights = rng.normal(0.3, 0.05, 5000), rng.integers(0, 4, 5000)
    values[::10] = np.nan
    bounds, found = drawn(values, weights, blocks)
    there = ~np.isnan(values)
    assert sum(found["before"]) == there.sum() and sum(found["after"]) == weights[there].sum()
    inside = np.histogram(values[there], bounds)[0]  # numpy leaves out what is beyond the range
    assert inside[1:-1].tolist() == found["before"][1:-1]
    assert found["outside"][0] == there.sum() - inside.sum() <= 0.003 * len(values)


def test_an_outlier_does_not_make_one_bin_of_the_rest():
    values = np.append(np.linspace(0, 1, 5000), [1e9, -1e9, np.inf])
    bounds, found = drawn(values, np.ones(len(values), int), 1)
    assert bounds[0] == pytest.approx(0, abs=0.3) and bounds[-1] == pytest.approx(1, abs=0.3)
    assert sum(found["before"]) == len(values) and found["outside"] == [3]


def test_cuts_near_the_range_widen_it_and_far_ones_do_not():
    span = scores.span([np.linspace(0, 1, 1000)])
    assert scores.edges([span], [1.5])[-1] == 1.5
    assert scores.edges([span], [-0.5])[0] == -0.5
    assert scores.edges([span], [50.0, float("-inf"), float("nan")])[-1] == pytest.approx(1)


def test_whole_numbers_of_a_small_range_get_a_bin_each():
    bounds, found = drawn(np.repeat([1.0, 2.0, 5.0], [30, 20, 10]), np.ones(60, int), 3)
    assert bounds.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert found["before"] == [30, 20, 0, 0, 10]


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0, 1e12])
def test_one_value(value):
    bounds, found = drawn(np.full(9, value), np.ones(9, int), 2)
    assert np.all(np.diff(bounds) > 0) and sum(found["before"]) == 9 and found["outside"] == [0]


def test_no_values():
    assert scores.span([np.full(5, np.nan)]) is None and scores.span([]) is None
    assert len(scores.edges([])) == 0


@given(st.lists(st.floats(width=32, allow_subnormal=False), min_size=1, max_size=60), st.integers(1, 5))
def test_any_floats_are_counted_once(values, blocks):
    values = np.array(values, np.float64)
    if not np.isfinite(values).any():
        return
    bounds, found = drawn(values, np.ones(len(values), int), blocks)
    assert np.all(np.diff(bounds) > 0) and np.isfinite(bounds).all()
    assert sum(found["before"]) == (~np.isnan(values)).sum()
