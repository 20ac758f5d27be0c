"""Effective sample size: how many rows of equal weight say as much as the weighted ones do.

Kish's (Survey Sampling, 1965): ESS = (sum w)^2 / sum w^2. rho = ESS / n is in [1/n, 1]; the design effect n / ESS is
1 + CV^2(w), by how much the variance of a weighted mean is inflated. That is all it measures: nothing of bias, nothing
of quality, and under one variance for all rows. Thresholds on it are rules of thumb.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Sums(NamedTuple):
    """What is to be known of some weights, in four numbers: those of two shards add up to those of both."""

    n: int = 0
    """Weights, those that are 0 included."""
    total: float = 0.0
    """Sum of w."""
    squares: float = 0.0
    """Sum of w^2, exact for whole numbers as long as it is below 2^53."""
    largest: float = 0.0

    @property
    def ess(self) -> float:
        """Effective sample size; 0 where all weights are 0."""
        return self.total * self.total / self.squares if self.squares > 0 else 0.0

    @property
    def rho(self) -> float:
        """ESS / n; 0 of nothing."""
        return self.ess / self.n if self.n else 0.0

    @property
    def deff(self) -> float:
        """Design effect, n / ESS; infinite where all weights are 0."""
        return self.n / self.ess if self.ess else float("inf")

    @property
    def share(self) -> float:
        """The largest weight's share of all; 0 of nothing."""
        return self.largest / self.total if self.total else 0.0


def sums(weights: ArrayLike) -> Sums:
    """Returns the sums of one shard's weights; arguments and errors as in `effective_sample_size`."""
    w = _weights("weights", weights)
    return Sums(len(w), float(w.sum()), float((w * w).sum()), float(w.max(initial=0.0)))


def merged(parts: Iterable[Sums]) -> Sums:
    """Returns the sums of the weights of all `parts` together."""
    found = Sums()
    for one in parts:
        largest = max(found.largest, one.largest)
        found = Sums(found.n + one.n, found.total + one.total, found.squares + one.squares, largest)
    return found


def effective_sample_size(weights: ArrayLike) -> float:
    """Returns (sum w)^2 / sum w^2, between 1 and n; 0 where there are no weights, or all are 0.

    Args:
        weights: `(n,)`, of any scale: they are divided by the largest before they are squared.

    Raises:
        ValueError: A weight is negative or not finite.
    """
    w = _scaled(_weights("weights", weights))
    return sums(w).ess


def log_effective_sample_size(log_weights: ArrayLike) -> float:
    """Returns log ESS = 2 logsumexp(log w) - logsumexp(2 log w); -inf where there are none, or all weights are 0.

    Args:
        log_weights: `(n,)`: log-ratios, say; any constant may be added to them. -inf is a weight of 0.

    Raises:
        ValueError: One is NaN or +inf.
    """
    logs = np.asarray(log_weights, np.float64)
    _one_row("log_weights", logs)
    _refuse("log_weights", logs, np.isnan(logs) | (logs == np.inf), "a number or -inf")
    highest = logs.max(initial=-np.inf)
    if highest == -np.inf:
        return -np.inf
    return float(np.log(effective_sample_size(np.exp(logs - highest))))


def design_effect(weights: ArrayLike) -> float:
    """Returns n / ESS = 1 + CV^2(w), 1 or more; infinite where all weights are 0. See `effective_sample_size`.

    Raises:
        ValueError: There are no weights; or as in `effective_sample_size`.
    """
    w = _weights("weights", weights)
    if not len(w):
        raise ValueError("`weights` is empty; a design effect needs one weight or more")
    return sums(_scaled(w)).deff


def mix_efficiency(proportions: ArrayLike, natural_shares: ArrayLike) -> float:
    """Returns rho = 1 / sum p^2 / q = 1 / (1 + chi^2(p || q)), in [0, 1]; 1 for a mix of the natural shares.

    A mix of these proportions is worth rho times as many rows drawn from the pool as they occur; the length of training
    does not matter. A group with p > 0 and q = 0 makes it 0: there is nothing of it to be drawn.

    Args:
        proportions: `(groups,)`, p: shares among the draws; divided by their sum.
        natural_shares: `(groups,)`, q: shares among the rows there are, or their numbers; divided by their sum.

    Raises:
        ValueError: A share is negative or not finite, or there are not as many p as q.
    """
    p, q = _weights("proportions", proportions), _weights("natural_shares", natural_shares)
    if p.shape != q.shape:
        raise ValueError(f"`proportions` has {len(p)} groups and `natural_shares` {len(q)}; there must be as many")
    drawn = p > 0
    if not drawn.any() or not q[drawn].all():
        return 0.0
    p, q = _scaled(p), _scaled(q)
    p, q = p[drawn] / p.sum(), q[drawn] / q.sum()
    if not q.all():  # so small beside the largest that it is lost
        return 0.0
    with np.errstate(over="ignore"):
        return min(1.0, float(1 / (p * (p / q)).sum()))


def effective_number(proportions: ArrayLike) -> float:
    """Returns 1 / sum p^2: as many groups of equal share are as diverse. See `effective_sample_size`."""
    w = _scaled(_weights("proportions", proportions))
    return sums(w).ess


def clustered(weights: ArrayLike, clusters: ArrayLike) -> np.ndarray:
    """Returns the weights' sums by cluster, float64 `(C,)`, by ascending cluster: what copies weigh together.

    The ESS of these beside that of `weights` tells how much a mix leans on few clusters.

    Args:
        weights: `(n,)`.
        clusters: `(n,)`, whole numbers of any kind, or strings: equal ones are one cluster.

    Raises:
        ValueError: As in `effective_sample_size`, or there are not as many clusters as weights.
    """
    w, known = _weights("weights", weights), np.asarray(clusters)
    if known.shape != w.shape:
        raise ValueError(f"`clusters` has shape {known.shape} and `weights` {w.shape}; every weight needs its cluster")
    names, at = np.unique(known, return_inverse=True)
    return np.bincount(at, w, len(names))


def largest_share(weights: ArrayLike) -> float:
    """Returns the largest normalised weight, max w / sum w; 0 where all are 0. 1 / ESS is never above it."""
    return sums(_scaled(_weights("weights", weights))).share


def top_share(weights: ArrayLike, counts: ArrayLike | None = None, *, top: float = 0.01) -> float:
    """Returns the share of all weight that the heaviest `top` of the rows hold: whole rows, one at the least.

    Args:
        weights: `(n,)`; or, with `counts`, distinct weights.
        counts: `(n,)`, whole numbers: rows of each weight. Weights that are few numbers, such as times used, can so be
            summed over shards in little memory.
        top: Share of the rows, in (0, 1].

    Raises:
        ValueError: As in `effective_sample_size`, or `top` or `counts` is not as said.
    """
    if not 0 < top <= 1:
        raise ValueError(f"`top` is {top}; it must be in (0, 1]")
    w = _scaled(_weights("weights", weights))
    rows = np.ones(len(w)) if counts is None else _weights("counts", counts)
    if rows.shape != w.shape:
        raise ValueError(f"`counts` has shape {rows.shape} and `weights` {w.shape}; every weight needs its rows")
    order = np.argsort(-w, kind="stable")
    w, rows = w[order], rows[order]
    whole = float(w @ rows)
    if not whole:
        return 0.0
    before = np.cumsum(rows) - rows
    taken = np.clip(max(1.0, np.floor(top * rows.sum() + 1e-9)) - before, 0, rows)
    return float(w @ taken) / whole


def _weights(name: str, values: ArrayLike) -> np.ndarray:
    """Float64 `(n,)`, each finite and 0 or more."""
    array = np.asarray(values, np.float64)
    _one_row(name, array)
    _refuse(name, array, ~(np.isfinite(array) & (array >= 0)), "finite and at least 0")
    return array


def _one_row(name: str, array: np.ndarray) -> None:
    if array.ndim != 1:
        raise ValueError(f"`{name}` has shape {array.shape}; it must be one row of numbers")


def _refuse(name: str, array: np.ndarray, bad: np.ndarray, rule: str) -> None:
    if bad.any():
        at = int(bad.argmax())
        raise ValueError(f"`{name}` holds {array[at]} at {at}; each must be {rule}")


def _scaled(w: np.ndarray) -> np.ndarray:
    """The weights over the largest: squares of these neither overflow nor all vanish."""
    highest = w.max(initial=0.0)
    return w / highest if highest > 0 else w
