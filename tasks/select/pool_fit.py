"""QQT: utilities and half-lives of buckets from measured errors, by the released code's grid search.

The code shuffles its grid and stops after 100,000 points, which with a free scale is a tenth of them, drawn anew every
time. Here every point is tried, so a fit has one result. The refinement between grid points, by least squares from the
best of them, is ours: the authors found optimisers unstable, and one that begins at the grid's best can only gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tasks.select.pool_law import NORMALISER, Variant, log_repeated, predicted_errors

EXPONENTS = (-0.5, -0.005)
HALF_LIVES = (1.0, 10.0)
POINTS = 100
"""The code's grid: 100 exponents by 100 half-lives, evenly spaced, both ends in it."""
SCALES = (0.01, 0.015, 0.018, 0.02, 0.022, 0.025, 0.03)
FLOORS = tuple(np.linspace(0.02, 0.15, 10).tolist())
"""What the code tries where scale and floor are fitted, too."""
_ENDS = ("ftol", "xtol", "gtol")


class Fit(NamedTuple):
    """What is known of a bucket."""

    exponent: float
    half_life: float
    loss: float
    """Sum of squared differences between the law and the measured errors."""


class Fits(NamedTuple):
    """What is known of several buckets."""

    scale: float
    floor: float
    buckets: list[Fit]


def fit(
    samples: ArrayLike,
    errors: ArrayLike,
    pool_size: float,
    scale: float,
    floor: float,
    *,
    variant: Variant = "printed",
    refine: bool = True,
) -> Fit:
    """Exponent and half-life of a bucket whose errors were measured: of equally good ones the flattest, then shortest.

    Half-lives end at 10 passes, as in the code: of ten passes no longer one can be told.

    Args:
        samples: `(T,)`, samples seen when an error was measured; above 0.
        errors: `(T,)`, finite.
        pool_size: E, samples of the bucket.
        scale: a.
        floor: d.
        variant: Of the law, see `tasks.select.pool_law`.
        refine: Look between the grid's points; False: the code's grid alone.

    Raises:
        ValueError: An argument is out of its bounds.
    """
    n, y = _checked(samples, errors, pool_size, scale)
    found = _on_grid(
        n,
        y,
        (np.linspace(*EXPONENTS[::-1], POINTS), np.linspace(*HALF_LIVES, POINTS)),
        pool_size,
        (scale, floor),
        variant,
    )
    return _refined(found, (n, y), pool_size, (scale, floor), variant) if refine else found


def fit_together(
    samples: ArrayLike,
    errors: ArrayLike,
    pool_size: float,
    *,
    scales: Sequence[float] = SCALES,
    floors: Sequence[float] = FLOORS,
    variant: Variant = "printed",
) -> Fits:
    """The scale and floor, common to all buckets, with which their curves are fitted best, and these fits.

    Every pair is tried on the code's grid; that with the smallest mean loss over buckets stays, the first of equal
    ones, and its buckets are refined.

    Args:
        samples: `(T,)`, the same for all buckets.
        errors: `(M, T)`.
        pool_size: E, samples of a bucket.
        scales: a to try.
        floors: d to try.
        variant: Of the law.
    """
    curves = np.asarray(errors, np.float64)
    if curves.ndim != 2 or not len(curves) or not len(scales) or not len(floors):
        raise ValueError(f"`errors` has the shape {curves.shape}; it must be (M, T), M >= 1; scales, floors need one")
    best, least = (scales[0], floors[0]), np.inf
    for scale in scales:
        for floor in floors:
            rough = [fit(samples, curve, pool_size, scale, floor, variant=variant, refine=False) for curve in curves]
            loss = float(np.mean([one.loss for one in rough]))
            if loss < least:
                best, least = (scale, floor), loss
    return Fits(*best, [fit(samples, curve, pool_size, *best, variant=variant) for curve in curves])


def _refined(
    start: Fit, points: tuple[np.ndarray, np.ndarray], size: float, common: tuple[float, float], variant: Variant
) -> Fit:
    """A fit from the grid moved between its points, within the grid's ends, by least squares; if that is better."""
    from scipy.optimize import least_squares

    n, y = points
    low, high = np.array([EXPONENTS, HALF_LIVES]).T
    given = np.clip([start.exponent, start.half_life], low, high)

    def off(at: np.ndarray) -> np.ndarray:
        return predicted_errors(n, common[0], at[0], at[1], common[1], size, variant=variant) - y

    # Within the bounds, in the units of the grid's spacing: what moves a prediction as much counts as much.
    solved = least_squares(off, given, bounds=(low, high), x_scale=(high - low) / POINTS, **dict.fromkeys(_ENDS, 1e-14))
    loss = float((off(solved.x) ** 2).sum())
    return Fit(float(solved.x[0]), float(solved.x[1]), loss) if loss < start.loss else start


def _checked(samples: ArrayLike, errors: ArrayLike, pool_size: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    n, y = np.asarray(samples, np.float64), np.asarray(errors, np.float64)
    if n.ndim != 1 or n.shape != y.shape or len(n) < 2:
        raise ValueError(f"`samples` has the shape {n.shape} and `errors` {y.shape}; both must be (T,), T >= 2")
    if not (np.isfinite(n) & (n > 0) & np.isfinite(y)).all():
        raise ValueError("`samples` and `errors` hold NaN, infinity or samples of 0; leave such points out")
    for name, value in (("pool_size", pool_size), ("scale", scale)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"`{name}` is {value}; it must be a number above 0")
    return n, y


def _on_grid(
    n: np.ndarray,
    y: np.ndarray,
    grid: tuple[np.ndarray, np.ndarray],
    size: float,
    common: tuple[float, float],
    variant: Variant,
) -> Fit:
    """The best of exponents `(P,)` by half-lives `(Q,)`, the first of equal ones."""
    (b, tau), (scale, floor) = grid, common
    # Both logarithms are linear in the exponent: they are worked out once a half-life.
    repeated = np.array([log_repeated(n, np.ones(1), np.array([np.log(2) / one]), size) for one in tau])
    first = np.log(scale * np.minimum(n, size) / NORMALISER)
    with np.errstate(over="ignore", invalid="ignore"):
        if variant == "printed":
            predicted = np.exp(b[:, None, None] * (first + repeated)) + floor
        else:
            predicted = (np.exp(b[:, None, None] * first) + floor) * np.exp(b[:, None, None] * repeated)
        loss = ((predicted - y) ** 2).sum(axis=2)
    at = np.unravel_index(int(np.argmin(np.where(np.isnan(loss), np.inf, loss))), loss.shape)
    return Fit(float(b[at[0]]), float(tau[at[1]]), float(loss[at]))
