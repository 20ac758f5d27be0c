"""Checks of arguments that functions of several methods make."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def at_least(**bounds: tuple[int, int]) -> None:
    """Raises ValueError for the first `name=(value, bound)` that is no integer or below its bound."""
    for name, (value, bound) in bounds.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < bound:
            raise ValueError(f"`{name}` is {value!r}; it must be an integer of at least {bound}")


def whole_numbers(name: str, values: ArrayLike) -> np.ndarray:
    """Returns `values` as int64 `(V,)`."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise ValueError(f"`{name}` is {array.dtype} of shape {array.shape}; it must be one row of whole numbers")
    bad = ~(np.isfinite(array) & (array >= 0) & (array == np.rint(array)))
    if bad.any():
        raise ValueError(f"`{name}` holds {array[bad][0]}; each must be a whole number of at least 0")
    return array.astype(np.int64)
