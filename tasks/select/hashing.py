"""Random-projection keys and the pairs of rows that share one (GAIS-style, reconstructed; also plain LSH).

bit_b(x) = 1 if r_b.(x - mu) >= 0: two vectors at angle theta about mu agree in a bit with probability 1 - theta/pi.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tasks.arguments import at_least
from tasks.select.sorting import distinct

MOST_BITS = 64
BLOCK = 1 << 16
"""Rows that are projected, or joined at random, at a time."""


def random_planes(bits: int, dim: int, seed: int) -> np.ndarray:
    """Normals of `bits` hyperplanes, float32 `(bits, dim)` ~ N(0, 1); the first k are the same for any `bits` >= k."""
    at_least(bits=(bits, 1), dim=(dim, 1))
    return np.random.default_rng([seed, dim]).standard_normal((bits, dim), np.float32)


def sign_keys(x: Any, planes: Any, center: Any) -> np.ndarray:
    """The sides of `planes` on which each row lies, as one number: uint64 `(n,)`, first plane most significant.

    Args:
        x: float `(n, d)`, NumPy or torch; a tensor is projected on its own device.
        planes: float `(k, d)`, the normals r_b, 1 <= k <= 64.
        center: float `(d,)`, the point mu that all planes pass through.

    Raises:
        ValueError: For shapes that do not fit, more than 64 planes, and NaN or infinity anywhere.
    """
    x, planes, center = (a if hasattr(a, "shape") else np.asarray(a, np.float64) for a in (x, planes, center))
    if len(planes.shape) != 2 or not 1 <= planes.shape[0] <= MOST_BITS:
        raise ValueError(
            f"`planes` is {tuple(planes.shape)}; it must be (k, d) with k from 1 to {MOST_BITS} bits a key"
        )
    if len(x.shape) != 2 or x.shape[1] != planes.shape[1] or tuple(center.shape) != (x.shape[1],):
        shapes = f"`x` is {tuple(x.shape)}, `planes` {tuple(planes.shape)}, `center` {tuple(center.shape)}"
        raise ValueError(f"{shapes}; they must be (n, d), (k, d) and (d,)")
    keys = np.zeros(x.shape[0], np.uint64)
    for at in range(0, x.shape[0], BLOCK):
        part = x[at : at + BLOCK]
        sides = _sides(part, planes, center) if isinstance(part, np.ndarray) else _sides_torch(part, planes, center)
        if (bad := np.isnan(sides).any(axis=1)).any():
            raise ValueError(f"`x` holds NaN or infinity in row {at + int(bad.argmax())}, or `planes` or `center` do")
        for side in (sides >= 0).T:
            keys[at : at + BLOCK] = (keys[at : at + BLOCK] << np.uint64(1)) | side.astype(np.uint64)
    return keys


def _sides(x: np.ndarray, planes: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Signed distances, float `(n, k)`; NaN in the rows that hold anything not finite."""
    kind = np.result_type(x, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        moved = x.astype(kind) - np.asarray(center, kind)
        sides = moved @ np.asarray(planes, kind).T
    # An infinite row has infinite sides, of which those on one hand would look like a bit.
    sides[~np.isfinite(moved).all(axis=1)] = np.nan
    return sides


def _sides_torch(x: Any, planes: Any, center: Any) -> np.ndarray:
    import torch

    kind = torch.promote_types(x.dtype, torch.float32)
    moved = x.to(kind) - torch.as_tensor(center).to(x.device, kind)
    sides = moved @ torch.as_tensor(planes).to(x.device, kind).T
    sides[~torch.isfinite(moved).all(dim=1)] = torch.nan
    return sides.cpu().numpy()


def bucket_edges(keys: ArrayLike, *, max_bucket: int = 50, seed: int = 0) -> np.ndarray:
    """Pairs i < j of rows with equal keys, int64 `(2, E)`, each once, in order.

    In a bucket of more than `max_bucket + 1` rows each row is joined to `max_bucket` others drawn at random: so the
    work is linear however many rows are equal, and rows may have more than `max_bucket` neighbours, but no fewer.

    Args:
        keys: Whole numbers `(n,)`.
    """
    at_least(max_bucket=(max_bucket, 1), seed=(seed, 0))
    keys = np.asarray(keys)
    if keys.ndim != 1 or keys.dtype.kind not in "iu":
        raise ValueError(f"`keys` is {keys.dtype} of shape {keys.shape}; it must be one row of whole numbers")
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.concatenate((np.ones(min(1, len(keys)), bool), np.diff(keys[order]) != 0)))
    sizes = np.diff(np.append(starts, len(keys)))
    pairs = [np.zeros((2, 0), np.int64)]
    small = sizes <= max_bucket + 1
    for size in distinct(sizes[small & (sizes > 1)]):  # all buckets of one size at once
        members = order[starts[sizes == size][:, None] + np.arange(size)]
        first, second = np.triu_indices(size, 1)
        pairs.append(np.stack((members[:, first].ravel(), members[:, second].ravel())))
    rng = np.random.default_rng(seed)
    for start, size in zip(starts[~small], sizes[~small], strict=True):
        pairs.append(order[start : start + size][_few(size, max_bucket, rng)])
    low, high = np.concatenate(pairs, axis=1)
    return np.stack((low, high))[:, np.lexsort((high, low))]


def _few(size: int, others: int, rng: np.random.Generator) -> np.ndarray:
    """Pairs i < j below `size`, int64 `(2, E)`, that give each row `others` random partners; each pair once."""
    found = []
    for at in range(0, size, BLOCK):
        rows = np.arange(at, min(size, at + BLOCK))
        partner = _drawn(len(rows), size - 1, others, rng)
        partner += partner >= rows[:, None]  # a number below size - 1 is one of all rows but this
        low, high = np.minimum(partner, rows[:, None]), np.maximum(partner, rows[:, None])
        found.append((low * size + high).ravel())
    return np.stack(np.divmod(distinct(*found), size))


def _drawn(rows: int, total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` different numbers below `total` for every row, int64 `(rows, count)`: Floyd's algorithm, row by row."""
    chosen = np.full((rows, count), -1, np.int64)
    for place, last in enumerate(range(total - count, total)):
        drawn = rng.integers(0, last + 1, rows)
        taken = (chosen[:, :place] == drawn[:, None]).any(axis=1)
        chosen[:, place] = np.where(taken, last, drawn)
    return chosen
