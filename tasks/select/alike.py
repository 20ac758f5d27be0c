"""Rows of one cell compared by their embeddings: every pair that is alike, without most of the multiplications.

For a projection P onto few directions, Q = 1 - P and unit rows, x·y = Px·Py + Qx·Qy <= Px·Py + |Qx| |Qy|. So products
of short vectors (with |Q| as one number more) bound the cosines from above, and only pairs whose bound reaches the
floor are worked out in full: nothing is lost. P takes the leading directions of the cell's own rows, as many as make a
trial on a sample of pairs cheapest; where that is no cheaper than the full product, the full product is taken.

With image and text both, the similarity is the smaller of the two cosines, the text's shifted by the difference of the
thresholds, so that one cut decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from tasks.embed.device import resolve_device

BLOCK = 2048
"""Rows that meet at once."""
SAMPLE_ROWS = 1024
"""Rows that choose the directions, and as many that try them."""
TRIAL_ROWS = 128
DIRECTIONS = (32, 64, 128, 192)
FULL_COST = 16384
"""What a pair worked out on its own costs, in multiplications of a product of blocks."""
SLACK = 1e-5
"""More than float32 rounding of bounds and products."""
HALF_SLACK = 2e-3
"""More than the rounding of products of float16 rows."""


class Edges(NamedTuple):
    """Pairs of rows, ascending by `i`, then by place in the second block."""

    i: np.ndarray
    """int64 `(e,)`"""
    j: np.ndarray
    """int64 `(e,)`"""
    similarity: np.ndarray
    """float32 `(e,)`"""


class Cell:
    """Rows that may be compared with one another, best first.

    Args:
        parts: The embeddings compared, one or two: float16 or float32 `(m, D)` each, no row without a direction.
        shifts: What is taken off each part's cosine.
        floor: Least similarity that is looked for; None: every pair's is wanted.
        cut: Similarity that decides: pairs about it are worked out the same way on every device.
    """

    def __init__(
        self,
        parts: Sequence[np.ndarray],
        shifts: Sequence[float] = (0.0,),
        floor: float | None = None,
        cut: float = np.inf,
    ) -> None:
        self.parts = [_unit(part) for part in parts]
        self.shifts = shifts
        self.floor = -np.inf if floor is None else float(np.float32(floor))
        self._cut = cut
        self._joint_floor = self.floor + sum(shifts) / len(self.parts)  # of the parts' mean cosine
        self._short: np.ndarray | None = None
        self._gpu = _Gpu(self.parts) if resolve_device("auto") == "cuda" else None
        if self._gpu is None and floor is not None and len(self) >= 2 * SAMPLE_ROWS:
            self._short = shortened(self._joint(np.arange(len(self))), self._joint_floor)

    def __len__(self) -> int:
        return len(self.parts[0])

    def blocks(self) -> Iterator[np.ndarray]:
        """The rows in consecutive blocks."""
        every = np.arange(len(self))
        return (every[at : at + BLOCK] for at in range(0, len(every), BLOCK))

    def pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Every two blocks, the earlier one first, and every block with itself."""
        return ((a, b) for b in self.blocks() for a in self.blocks() if a[0] <= b[0])

    def similarities(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Similarity of every row of `a` with every row of `b`: float32 `(|a|, |b|)`."""
        result: np.ndarray | None = None
        for part, (unit, shift) in enumerate(zip(self.parts, self.shifts, strict=True)):
            found = self._gpu.product(part, a, b) if self._gpu else unit[a] @ unit[b].T
            np.minimum(found, 1, out=found)
            if shift:
                found -= np.float32(shift)
            result = found if result is None else np.minimum(result, found, out=result)
        assert result is not None
        return result

    def edges(self, a: np.ndarray, b: np.ndarray) -> Edges:
        """Pairs of a row of `a` and a row of `b` that reach the floor; of rows in both, `i < j` alone."""
        edges = self.few_edges(a, b, len(a) * len(b))
        assert edges is not None
        return edges

    def few_edges(self, a: np.ndarray, b: np.ndarray, most: int) -> Edges | None:
        """See `edges`; None if more than `most` pairs may reach the floor, of which none is worked out in full then."""
        found = None
        if self._gpu is not None:
            at = self._gpu.above(a, b, [self.floor + shift - HALF_SLACK for shift in self.shifts])
        elif self._short is not None:
            at = np.flatnonzero((self._short[a] @ self._short[b].T).ravel() >= np.float32(self._joint_floor - SLACK))
        else:
            found = self.similarities(a, b).ravel()
            at = np.flatnonzero(found >= self.floor)
        if len(at) > most:
            return None
        i, j = a[at // len(b)], b[at % len(b)]
        if a[-1] >= b[0]:
            ahead = i < j
            i, j, at = i[ahead], j[ahead], at[ahead]
        if found is not None:
            similarity = found[at]
            close = np.abs(similarity - np.float32(self._cut)) < SLACK
            similarity[close] = self.each(i[close], j[close])
            return Edges(i, j, similarity)
        similarity = self.each(i, j)
        near = similarity >= self.floor
        return Edges(i[near], j[near], similarity[near])

    def each(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Similarity of row i with row j, pair by pair: float32 `(e,)`, summed in float64, the same on every device."""
        result = np.full(len(i), 1, np.float32)
        for unit, shift in zip(self.parts, self.shifts, strict=True):
            _least_cosines(unit, i, j, shift, result)
        return result

    def _joint(self, rows: np.ndarray) -> np.ndarray:
        """The parts side by side, of length one: their dot product is the mean of the cosines."""
        if len(self.parts) == 1:
            return self.parts[0]
        return np.hstack([unit[rows] for unit in self.parts]) * np.float32(len(self.parts) ** -0.5)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Float32 rows of length one, in one block of memory."""
    unit = vectors.astype(np.float32)
    unit /= np.sqrt(np.einsum("nd,nd->n", unit, unit))[:, None]
    return unit


def shortened(unit: np.ndarray, floor: float) -> np.ndarray | None:
    """Short vectors whose products bound those of `unit` from above, float32 `(m, d + 1)`; None: not worth it.

    Args:
        unit: float32 `(m, D)`, rows of length one.
        floor: Pairs with less need not be told apart.
    """
    choices = [d for d in DIRECTIONS if 2 * d <= unit.shape[1]]
    if not choices:
        return None
    spread = np.linspace(0, len(unit) - 1, 2 * SAMPLE_ROWS).astype(np.int64)
    basis = leading(unit[spread[::2]], choices[-1])
    seen = unit[spread[1::2]] @ basis  # other rows: those that chose the directions are favoured by them
    costs = [float(unit.shape[1])]
    for d in choices:
        short = _with_rest(seen[:, :d])
        passing = np.count_nonzero(short[:TRIAL_ROWS] @ short[TRIAL_ROWS:].T >= np.float32(floor - SLACK))
        costs.append(d + FULL_COST * passing / (TRIAL_ROWS * (len(short) - TRIAL_ROWS)))
    best = int(np.argmin(costs))
    return _with_rest(unit @ np.ascontiguousarray(basis[:, : choices[best - 1]])) if best else None


def leading(sample: np.ndarray, count: int) -> np.ndarray:
    """About the leading directions of `sample` (from its origin), float32 `(D, count)`, the strongest first.

    Subspace iteration from a fixed start; two rounds are near enough. The bound holds for any directions that make no
    vector longer, so the least of a ridge keeps Cholesky's factor regular where the sample has fewer directions.
    """
    basis = np.random.default_rng(0).standard_normal((sample.shape[1], count), np.float32)
    for _ in range(2):
        reached = (sample.T @ (sample @ basis)).astype(np.float64)
        gram = reached.T @ reached
        gram.flat[:: count + 1] += max(1e-9 * np.trace(gram) / count, 1e-30)
        _make_orthonormal(gram, reached)
        basis = reached.astype(np.float32)
    return basis


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _make_orthonormal(gram: np.ndarray, rows: np.ndarray) -> None:
    """Rows times the inverse transpose of Cholesky's factor of `gram`, in place.

    Not numpy's: what OpenBLAS has of LAPACK took a hundred times as long on threads beside the main one.
    """
    size = len(gram)
    for i in range(size):
        for j in range(i + 1):
            total = gram[i, j]
            for k in range(j):
                total -= gram[i, k] * gram[j, k]
            gram[i, j] = np.sqrt(total) if i == j else total / gram[j, j]
    for row in range(len(rows)):
        for i in range(size):
            total = rows[row, i]
            for k in range(i):
                total -= gram[i, k] * rows[row, k]
            rows[row, i] = total / gram[i, i]


def _with_rest(short: np.ndarray) -> np.ndarray:
    """Projections of unit rows with the length of what they leave out, as one column more."""
    rest = np.sqrt(np.maximum(0, 1 - np.einsum("nd,nd->n", short, short)))
    return np.hstack([short, rest[:, None]])


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _least_cosines(unit: np.ndarray, i: np.ndarray, j: np.ndarray, shift: float, least: np.ndarray) -> None:
    for k in range(len(i)):
        total = 0.0
        for d in range(unit.shape[1]):
            total += np.float64(unit[i[k], d]) * np.float64(unit[j[k], d])
        least[k] = min(least[k], np.float32(min(total, 1.0) - shift))


class _Gpu:
    """Products of blocks on a CUDA device: candidates from float16 rows, values from float32 rows."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        import torch

        self._torch: Any = torch
        self._parts = [torch.from_numpy(part).cuda() for part in parts]
        self._halves = [part.half() for part in self._parts]

    def _rows(self, rows: np.ndarray) -> Any:
        return self._torch.from_numpy(rows).cuda()

    def product(self, part: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Cosines in true float32, `(|a|, |b|)`."""
        before = self._torch.backends.cuda.matmul.allow_tf32
        self._torch.backends.cuda.matmul.allow_tf32 = False
        try:
            unit = self._parts[part]
            return (unit[self._rows(a)] @ unit[self._rows(b)].T).cpu().numpy()
        finally:
            self._torch.backends.cuda.matmul.allow_tf32 = before

    def above(self, a: np.ndarray, b: np.ndarray, floors: Sequence[float]) -> np.ndarray:
        """Flat indices of the pairs all of whose rounded cosines reach the floors, ascending."""
        at_a, at_b = self._rows(a), self._rows(b)
        near: Any = None
        for half, floor in zip(self._halves, floors, strict=True):
            found = half[at_a] @ half[at_b].T >= floor
            near = found if near is None else near & found
        return near.flatten().nonzero().flatten().cpu().numpy()
