"""QQT: the error that a model has after so many samples, from data whose utility fades with every repetition.

Goyal et al., "Scaling Laws for Data Filtering: Data Curation cannot be Compute Agnostic", arXiv 2404.07177, after its
released code (locuslab/scaling_laws_data_filtering) and summaries; the paper's own text was not at hand. Of a bucket
of E samples the error falls as (a n / 1e5)^b in the first pass, and in pass k + 1 with the exponent b (1/2)^(k / tau).
Of a pool of p buckets, sampled evenly, the exponent of a pass is the mean over its buckets, and each half-life p times
as long, for a pass is p times as long.

Two forms are offered. `printed` adds the floor d, which no data removes, to the whole; `released` is the code, which
adds it before the repetitions' factors, so that they shrink it too. Neither is clamped: below a n = 1e5 the law gives
errors above one, and there the steeper exponent is the worse one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike

Variant: TypeAlias = Literal["printed", "released"]
NORMALISER = 100_000.0
"""Samples that a n is divided by, as in the code: a is not the paper's, which stands outside of the power."""
FIRST_PASSES = 1024
"""Passes that are summed one by one; those behind them by quadrature, to about 1e-14."""
NODES = 32
"""Of Gauss-Legendre quadrature over passes from x to 2 x."""


def predicted_error(
    samples_seen: float,
    scale: float,
    exponents: ArrayLike,
    half_lives: ArrayLike,
    floor: float,
    pool_size: float,
    *,
    variant: Variant = "printed",
) -> float:
    """The error of a model after `samples_seen` samples of a pool: the law of effective utility.

    With K whole passes over the pool, x the scaled samples at the end of the first, n_k the samples seen at the end of
    pass k and b_k its mean exponent: x^b_0 times the product of (n_k / n_(k-1))^b_k, plus the floor; see the module.

    Args:
        samples_seen: n, 0 or more, repeats counted; 0 gives the floor, as in the code.
        scale: a, above 0, common to the pool's buckets.
        exponents: b of each of the pool's buckets, or of the only one; 0 or less, the steeper the better.
        half_lives: tau of each, in passes over its bucket alone; above 0, may be infinite.
        floor: d, 0 or more.
        pool_size: E, samples of one bucket; the pool has as many times that as it has buckets.
        variant: See the module.

    Raises:
        ValueError: An argument is out of its bounds.
    """
    law = (scale, exponents, half_lives, floor)
    return float(predicted_errors(np.array([samples_seen]), *law, pool_size, variant=variant)[0])


def predicted_errors(
    samples_seen: ArrayLike,
    scale: float,
    exponents: ArrayLike,
    half_lives: ArrayLike,
    floor: float,
    pool_size: float,
    *,
    variant: Variant = "printed",
) -> np.ndarray:
    """`predicted_error` at several numbers of samples: float64 `(T,)`."""
    if variant not in get_args(Variant):
        raise ValueError(f"`variant` is {variant!r}; it must be one of {', '.join(get_args(Variant))}")
    samples, b, rates = _checked(samples_seen, scale, exponents, half_lives, floor, pool_size)
    size = pool_size * len(b)
    first = _power(scale * np.minimum(samples, size) / NORMALISER, b.mean())
    repeated = np.exp(log_repeated(samples, b, rates, size))
    return first * repeated + floor if variant == "printed" else (first + floor) * repeated


def log_repeated(samples: np.ndarray, b: np.ndarray, rates: np.ndarray, size: float) -> np.ndarray:
    """Logarithm of what the error is multiplied by behind the first pass: float64 `(T,)`, linear in `b`.

    Args:
        samples: float64 `(T,)`.
        b: float64 `(m,)`, exponents of the pool's buckets.
        rates: float64 `(m,)`; the utility of a bucket fades by exp(-rate) a pass over the pool.
        size: Samples of the pool.
    """

    def factor(passes: np.ndarray) -> np.ndarray:
        return _decayed(b, rates, passes) * np.log1p(1 / passes)

    whole = np.floor(samples / size)
    logs = _sums(factor, whole)
    late = whole >= 1  # what was begun of the pass behind the last whole one
    logs[late] += _decayed(b, rates, whole[late]) * np.log(samples[late] / (whole[late] * size))
    return logs


def effective_data(
    samples_seen: float,
    scale: float,
    exponents: ArrayLike,
    half_lives: ArrayLike,
    floor: float,
    pool_size: float,
) -> float:
    """The error by the code's other law, in which repeated samples count as fewer, and utilities stay.

    A pass over a bucket counts as its samples times (1/2)^(k / tau). One bucket: (effective samples)^b + d. A pool: a
    pass has the mean exponent of its buckets by what each still counts, and the effective samples' ratio to the power
    of it, pass by pass. The floor is outside, in the code as well. Arguments as of `predicted_error`.
    """
    samples, b, rates = _checked([samples_seen], scale, exponents, half_lives, floor, pool_size)
    size, seen = pool_size * len(b), float(samples[0])
    whole = np.floor(samples / size)

    def counted(passes: np.ndarray) -> np.ndarray:
        """Effective passes in so many whole ones."""
        with np.errstate(divide="ignore", invalid="ignore"):
            each = np.expm1(-np.outer(passes, rates)) / np.expm1(-rates)
        return np.where(rates == 0, passes[:, None], each).mean(axis=1)

    def factor(passes: np.ndarray) -> np.ndarray:
        return _weighed(b, rates, passes) * np.log1p(_left(rates, passes) / counted(passes))

    logs = float(_sums(factor, whole)[0])
    if whole[0] >= 1:
        rest = (seen - whole[0] * size) / size * _left(rates, whole)
        logs += float((_weighed(b, rates, whole) * np.log1p(rest / counted(whole)))[0])
    return float(_power(scale * np.minimum(samples, size) / NORMALISER, b.mean())[0] * math.exp(logs) + floor)


def best_pool(
    samples_seen: float,
    scale: float,
    exponents: ArrayLike,
    half_lives: ArrayLike,
    floor: float,
    pool_size: float,
    *,
    variant: Variant = "printed",
) -> tuple[np.ndarray, int]:
    """Errors of the pools of the 1, 2, ..., M best buckets, float64 `(M,)`, and how many buckets the best pool has.

    Buckets are in the order of their exponents, steepest first, equal ones as given; of equal errors the smaller pool.
    Arguments as of `predicted_error`, with one exponent and one half-life for each of the M buckets.
    """
    b, tau = in_order(exponents, half_lives)
    law = [(b[:m], tau[:m]) for m in range(1, len(b) + 1)]
    errors = np.array([predicted_error(samples_seen, scale, *one, floor, pool_size, variant=variant) for one in law])
    return errors, int(np.argmin(errors)) + 1


def in_order(exponents: ArrayLike, half_lives: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Exponents and half-lives in the order in which pools take buckets: float64 `(M,)` each."""
    b, tau = np.atleast_1d(np.asarray(exponents, np.float64)), np.atleast_1d(np.asarray(half_lives, np.float64))
    if b.shape != tau.shape or b.ndim != 1 or not len(b):
        raise ValueError(f"`exponents` has the shape {b.shape} and `half_lives` {tau.shape}; both must be (M,), M >= 1")
    order = np.argsort(b, kind="stable")
    return b[order], tau[order]


# ------------------------------------------------------------------------------------------------------------ the parts
def _checked(
    samples_seen: ArrayLike,
    scale: float,
    exponents: ArrayLike,
    half_lives: ArrayLike,
    floor: float,
    pool_size: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples `(T,)`, exponents `(m,)`, and what the pool's utilities fade by: rates `(m,)` of exp(-rate k)."""
    for name, value in (("scale", scale), ("pool_size", pool_size)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"`{name}` is {value}; it must be a number above 0")
    if not (math.isfinite(floor) and floor >= 0):
        raise ValueError(f"`floor` is {floor}; it must be a number, 0 or more")
    samples = np.atleast_1d(np.asarray(samples_seen, np.float64))
    if not (np.isfinite(samples) & (samples >= 0)).all():
        raise ValueError(f"`samples_seen` is {samples[~(samples >= 0)][:1]}; it must be a number, 0 or more")
    b, tau = in_order(exponents, half_lives)
    if not (np.isfinite(b) & (b <= 0)).all():
        raise ValueError(f"`exponents` holds {b[~(np.isfinite(b) & (b <= 0))][0]}; each must be a number, 0 or less")
    if not (tau > 0).all():
        raise ValueError(f"`half_lives` holds {tau[~(tau > 0)][0]}; each must be above 0")
    return samples, b, math.log(2) / (tau * len(b))


def _decayed(b: np.ndarray, rates: np.ndarray, passes: np.ndarray) -> np.ndarray:
    """The mean exponent of each pass: float64 `(n,)`."""
    return np.exp(-np.outer(passes, rates)) @ b / len(b)


def _left(rates: np.ndarray, passes: np.ndarray) -> np.ndarray:
    """What a sample of each pass still counts, mean over buckets: float64 `(n,)`."""
    return np.exp(-np.outer(passes, rates)).mean(axis=1)


def _weighed(b: np.ndarray, rates: np.ndarray, passes: np.ndarray) -> np.ndarray:
    """The mean exponent of each pass, buckets weighed by what each still counts: float64 `(n,)`."""
    slow = rates.min()  # taken out of both sums, or late passes would be 0 / 0
    weights = np.exp(-np.outer(passes, rates - slow))
    return weights @ b / weights.sum(axis=1)


def _power(x: np.ndarray, b: float) -> np.ndarray:
    """x^b, and 0 of no samples, as in the code."""
    with np.errstate(over="ignore"):
        return np.where(x > 0, np.maximum(x, np.finfo(float).tiny) ** b, 0.0)


def _sums(factor: Callable[[np.ndarray], np.ndarray], ends: np.ndarray) -> np.ndarray:
    """Sums of `factor` over the passes 1, 2, ..., end - 1, for each end: float64 `(T,)`; smooth functions alone.

    Behind `FIRST_PASSES` the midpoint form of Euler and Maclaurin: the integral from N - 1/2 to K - 1/2, less 1/24 of
    what the derivative changes by. The integral goes octave by octave, so any number of passes is some 40 octaves.
    """
    most = int(min(max(ends.max(initial=0), 1), FIRST_PASSES))
    firsts = np.concatenate([[0.0], np.cumsum(factor(np.arange(1.0, most)))]) if most > 1 else np.zeros(1)
    found = firsts[np.clip(ends - 1, 0, most - 1).astype(np.int64)]
    for i in np.flatnonzero(ends > FIRST_PASSES):
        found[i] = firsts[-1] + _behind(factor, float(ends[i]))
    return found


def _behind(factor: Callable[[np.ndarray], np.ndarray], end: float) -> float:
    """The sum of `factor` over FIRST_PASSES, ..., end - 1."""
    start, stop = FIRST_PASSES - 0.5, end - 0.5
    octaves = math.ceil(math.log2(stop / start))
    edges = np.append(start * 2.0 ** np.arange(octaves), stop)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    half, middle = np.diff(edges) / 2, (edges[1:] + edges[:-1]) / 2
    values = factor((middle[:, None] + half[:, None] * nodes).ravel()).reshape(-1, NODES)
    slopes = factor(np.array([stop - 0.5, stop + 0.5, start - 0.5, start + 0.5]))
    return float((values @ weights) @ half - (slopes[1] - slopes[0] - slopes[3] + slopes[2]) / 24)
