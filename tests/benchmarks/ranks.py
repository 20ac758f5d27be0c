"""How several methods compare over several data sets: mean ranks, Friedman's test, Nemenyi's difference, intervals.

After Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Ranking(NamedTuple):
    """Mean ranks `(k,)`, 1 the best; Friedman's p; two mean ranks further apart than `critical` differ at 5 %."""

    means: np.ndarray
    p: float
    critical: float


def ranking(values: np.ndarray) -> Ranking:
    """Ranks of k methods over N data sets; NaN for the test where fewer than three methods or two sets are there.

    Args:
        values: float `(N, k)`, the higher the better; ties share their mean rank.
    """
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    sets, methods = values.shape
    means = rankdata(-values, axis=1).mean(axis=0)
    if methods < 3 or sets < 2:
        return Ranking(means, float("nan"), float("nan"))
    critical = studentized_range.ppf(0.95, methods, np.inf) / np.sqrt(2) * np.sqrt(methods * (methods + 1) / (6 * sets))
    return Ranking(means, float(friedmanchisquare(*values.T).pvalue), float(critical))


def interval(differences: np.ndarray, seed: int = 0, draws: int = 10_000) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean of `differences` `(N,)`, one a data set."""
    rows = np.random.default_rng(seed).integers(0, len(differences), (draws, len(differences)))
    low, high = np.quantile(differences[rows].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)
