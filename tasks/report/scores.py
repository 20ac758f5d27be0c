"""Distributions of scores, block by block: first the range over all blocks, then exact counts in common bins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

BINS = 40
TAIL = 0.001
"""Share of a block's rows at either end that does not widen the range: one outlier must not make one bin of the rest.
What lies beyond the range is counted in the bins at its ends."""


class Span(NamedTuple):
    """What one block says of a score's range."""

    low: float
    high: float
    least: float
    most: float
    whole: bool
    """Whether all values are whole numbers."""


def span(values: Iterable[np.ndarray], tail: float = TAIL) -> Span | None:
    """The range of one block's values: arrays of floats, NaN for none; None if there is no finite one."""
    found = np.concatenate([np.empty(0), *(part[np.isfinite(part)] for part in values)])
    if not len(found):
        return None
    low, high = np.quantile(found, [tail, 1 - tail], method="inverted_cdf")
    ends = float(found.min()), float(found.max())
    return Span(float(low), float(high), *ends, bool((found == np.round(found)).all()))


def edges(spans: Sequence[Span], cuts: Sequence[float] = (), bins: int = BINS) -> np.ndarray:
    """Edges of the `bins` that fit all blocks, float64; `cuts` are inside where they are near.

    Whole numbers of a small range get a bin each.
    """
    if not spans:
        return np.empty(0)
    low, high = min(one.low for one in spans), max(one.high for one in spans)
    least, most = min(one.least for one in spans), max(one.most for one in spans)
    width = high - low
    low, high = max(least, low - width / 4), min(most, high + width / 4)
    near = [cut for cut in cuts if np.isfinite(cut) and low - width <= cut <= high + width]
    low, high = min([low, *near]), max([high, *near])
    if all(one.whole for one in spans) and high - low < bins and max(abs(low), abs(high)) < 2**31:
        return np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
    if low == high:
        low, high = low - max(1e-6, abs(low)) / 2, high + max(1e-6, abs(high)) / 2
    return np.unique(np.linspace(low, high, bins + 1))  # of neighbouring floats there are fewer than bins


def histogram(values: np.ndarray, weights: np.ndarray, bounds: np.ndarray) -> dict[str, list[int]]:
    """`before`: rows by bin; `after`: uses by bin; `outside`: rows beyond the range, one number. NaN is not counted.

    Args:
        values: float `(n,)`; those beyond the range are in the bins at its ends.
        weights: int `(n,)`: how often each row is used.
        bounds: float64 `(bins + 1,)`, ascending.
    """
    bins = len(bounds) - 1
    there = ~np.isnan(values)
    values, weights = values[there], weights[there]
    where = np.clip(np.searchsorted(bounds, values, side="right") - 1, 0, bins - 1)
    uses = np.bincount(where, weights=weights, minlength=bins)
    beyond = np.count_nonzero((values < bounds[0]) | (values > bounds[-1]))
    return {
        "before": np.bincount(where, minlength=bins).tolist(),
        "after": np.round(uses).astype(np.int64).tolist(),
        "outside": [int(beyond)],
    }


def merge(parts: Iterable[dict[str, Any]]) -> dict[str, dict[str, list[int]]]:
    """Sums by score: name -> what `histogram` returns."""
    total: dict[str, dict[str, list[int]]] = {}
    for part in parts:
        for name, counted in part.items():
            known = total.setdefault(name, {key: [0] * len(values) for key, values in counted.items()})
            for key, values in counted.items():
                known[key] = [a + b for a, b in zip(known[key], values, strict=True)]
    return total
