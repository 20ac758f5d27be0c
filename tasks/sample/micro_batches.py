"""Micro-batches, what samplers by score share: candidates are compared in groups, and the best of each are taken.

A superbatch is divided among the ranks, a rank's share into micro-batches of M draws in their order, and of each K are
taken, the best first, equal ones in the order of draws. Rows without a score (null, NaN, infinite) are taken only where
no others are left.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.errors import ColumnError
from configs.methods.scored import Scored
from storage.packed import unpack


def best(scores: np.ndarray, size: int, count: int) -> np.ndarray:
    """Returns the indices of the highest scores of each micro-batch: int64 `(n / size, count)`, highest first.

    Equal ones, and those that are not finite, which come last, by index.

    Args:
        scores: float `(n,)`, n a multiple of `size`.
        size: M, scores of a micro-batch.
        count: K, at most M.

    Raises:
        ValueError: `scores` do not fill micro-batches, or `count` is none of 1 to `size`.
    """
    if size < 1 or len(scores) % size:
        raise ValueError(f"`size` is {size}; it must divide the number of scores, {len(scores)}")
    if not 1 <= count <= size:
        raise ValueError(f"`count` is {count}; it must be in [1, {size}], the size of a micro-batch")
    keys = np.where(np.isfinite(scores), -scores, np.inf).reshape(-1, size)
    starts = np.arange(0, len(scores), size)[:, None]
    return (starts + np.argsort(keys, axis=1, kind="stable")[:, :count]).astype(np.int64)


class Vectors(NamedTuple):
    """A column of vectors."""

    rows: np.ndarray
    """float32 `(n, w)`, zeros where a row has none."""
    sound: np.ndarray
    """bool `(n,)`: which rows have one, all finite."""


def numbers(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """Returns a column of numbers as float64 `(n,)`, NaN where one is null or not finite.

    Raises:
        ColumnError: It holds no numbers.
    """
    if not _is_number(column.type):
        raise ColumnError(f"`{name}` is a column of {column.type}; a score must be a number: name another column")
    found = pc.cast(column, pa.float64()).to_numpy()  # a null becomes NaN
    return np.where(np.isfinite(found), found, np.nan)


def vectors(column: pa.ChunkedArray, name: str) -> Vectors:
    """Returns a column of vectors: packed float32, as scores make them, or lists of numbers, as an input may hold them.

    A list that is not as long as most are is no vector.

    Raises:
        ColumnError: It holds no vectors.
    """
    kind = column.type
    if pa.types.is_fixed_size_binary(kind):
        if kind.byte_width % 4:
            raise ColumnError(f"`{name}` has {kind.byte_width} bytes a row, which are no float32 numbers")
        rows, there = unpack(column, np.float32), column.is_valid().to_numpy()
    elif _is_list(kind) and _is_number(kind.value_type):
        rows, there = _from_lists(column)
    else:
        raise ColumnError(
            f"`{name}` is a column of {kind}; sketches are fixed_size_binary of float32, or lists of numbers"
        )
    sound = there & np.isfinite(rows).all(axis=1)
    return Vectors(rows if sound.all() else np.where(sound[:, None], rows, np.float32(0)), sound)


def _from_lists(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of the commonest width, float32 `(n, w)`, zeros elsewhere; and which rows have one, bool `(n,)`."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    widths, counts = np.unique(lengths[lengths > 0], return_counts=True)
    width = int(widths[np.argmax(counts)]) if len(widths) else 0
    fits = (lengths == width) & (width > 0)
    rows = np.zeros((len(column), width), np.float32)
    if width:
        flat = pc.list_flatten(column.filter(pa.array(fits))).cast(pa.float64()).to_numpy()  # a null becomes NaN
        with np.errstate(over="ignore"):  # beyond float32 is infinite: no sound row
            rows[fits] = flat.reshape(-1, width)
    return rows, fits


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


class MicroBatched:
    """A sampler by columns of numbers and of vectors; derived classes have `values` and `pick_and_value`."""

    independent: bool = True
    values: tuple[str, ...] = ()

    def __init__(
        self, config: Scored, scores: tuple[str, ...], sketches: tuple[str, ...] = (), remedy: str = ""
    ) -> None:
        """Note what is read.

        Args:
            config: The sampler's section.
            scores: Columns of numbers.
            sketches: Columns of vectors.
            remedy: What makes these columns, for who has none.
        """
        self.config, self._scores, self._sketches = config, scores, sketches
        self.needs: tuple[str, ...] = tuple(dict.fromkeys(scores + sketches))
        self.input_columns: tuple[str, ...] = self.needs if config.from_input else ()
        self.remedy = f"{remedy} If the input has {_listed(self.needs)}, set `sample.from_input: true`."

    def check_columns(self, schema: pa.Schema) -> None:
        """Raise ColumnError if columns of these types hold no numbers, or no vectors."""
        for names, read in ((self._scores, numbers), (self._sketches, vectors)):
            for name in names:
                if name in schema.names:
                    read(schema.empty_table()[name], name)

    def pick(self, superbatch: pa.Table, step: int) -> list[np.ndarray]:
        """Returns one int64 array of row indices per rank; see `tasks.sample.Sampler`."""
        return self.pick_and_value(superbatch, step)[0]

    def pick_and_value(self, superbatch: pa.Table, step: int) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """Returns the picks of each rank, and what they went by; see `tasks.sample.ValuingSampler`."""
        raise NotImplementedError

    def checked(self, superbatch: pa.Table) -> pa.Table:
        """Returns the superbatch, which has as many rows as the configuration says, or raises ValueError."""
        if superbatch.num_rows != self.config.superbatch:
            raise ValueError(f"`superbatch` has {superbatch.num_rows} rows; it must have {self.config.superbatch}")
        return superbatch

    def per_rank(self, picks: np.ndarray) -> list[np.ndarray]:
        """Returns the picks of each rank: those of a superbatch's micro-batches, in order, divided evenly."""
        return [ours.astype(np.int64) for ours in np.split(picks.ravel(), self.config.world_size)]


def rounded(values: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns values as float32, in which they are told; what is beyond it is infinite."""
    with np.errstate(over="ignore"):
        return {name: np.asarray(one, np.float64).astype(np.float32) for name, one in values.items()}


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join(f"`{name}`" for name in names)
