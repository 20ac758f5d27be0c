"""Shares of groups, which are non-negative and have sum one: checks and the step of an exponentiated gradient."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def uniform(groups: int) -> np.ndarray:
    """The same share for each of `groups`: float64 `(m,)`."""
    return np.full(groups, 1.0 / groups)


def finite(name: str, values: ArrayLike, *shape: int) -> np.ndarray:
    """`values` as float64 of this shape.

    Raises:
        ValueError: They have another shape, or one is not finite.
    """
    array = np.asarray(values, np.float64)
    if array.shape != shape:
        raise ValueError(f"`{name}` has shape {array.shape}; it must have shape {shape}")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        place = tuple(bad[0].tolist())
        raise ValueError(f"`{name}` holds {array[place]} at {place}; every number must be finite")
    return array


def shares(name: str, values: ArrayLike) -> np.ndarray:
    """`values` as float64 `(m,)`, m >= 1, or `(n, m)`; each row non-negative with sum one, as far as rounding allows.

    Raises:
        ValueError: They are not.
    """
    array = np.asarray(values, np.float64)
    if array.ndim not in (1, 2) or not array.size:
        raise ValueError(f"`{name}` has shape {array.shape}; it must be one row of shares, or several")
    finite(name, array, *array.shape)
    if array.min() < 0 or np.abs(array.sum(axis=-1) - 1).max() > 1e-6:
        raise ValueError(f"`{name}` is {array.tolist()}; shares must be at least 0 and have sum one")
    return array


def tilted(proportions: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """p_j exp(e_j) over their sum, computed in logs so that nothing overflows; a share of 0 stays 0: float64 `(m,)`."""
    with np.errstate(divide="ignore"):
        logs = np.log(proportions) + exponents
    raised = np.exp(logs - logs.max())
    return np.asarray(raised / raised.sum())
