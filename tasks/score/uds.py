"""UDS, utility-diversity sampling (arXiv 2510.16882): scores of rows from one forward pass of the model in training.

Utility is the nuclear norm of a row's logits, diversity the mean distance of their sketch from those of the rows that
were picked of late; of each micro-batch the K rows with the highest sum are trained on. Of the paper the abstract was
read, of its released code all that is built here, which it follows: no softmax, nothing normalised, all positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tasks.arguments import at_least
from tasks.score.nuclear import nuclear_norm
from tasks.score.sketch import LogitSketch, alpha_factor
from tasks.score.tensors import Kind, as_kind, as_tensor, exact_device, full_precision

__all__ = ["LogitSketch", "MemoryBuffer", "alpha_factor", "nuclear_norm", "top_k", "utility_diversity"]

_ROWS = 1024
"""Candidates whose distances are computed at a time."""
_NEAR = 1e-6
"""Squared distances below this share of the squared norms are computed anew from differences."""


class MemoryBuffer:
    """The sketches of the rows picked last: a ring of `capacity` vectors, first in, first out.

    They lie on the device of what is pushed, as float64, and are never refreshed when the model changes.
    """

    def __init__(self, capacity: int, dim: int) -> None:
        """Makes an empty ring.

        Args:
            capacity: M, the most vectors that it keeps.
            dim: Numbers of a vector.

        Raises:
            ValueError: One is not at least 1.
        """
        at_least(capacity=(capacity, 1), dim=(dim, 1))
        self.capacity, self.dim = int(capacity), int(dim)
        self._empty()

    def _empty(self) -> None:
        self._vectors = torch.zeros(0, self.dim, dtype=torch.float64)
        self._norms = torch.zeros(0, dtype=torch.float64)
        self._dtype = torch.float32
        self._pointer = self._count = 0

    def __len__(self) -> int:
        """Filled slots."""
        return self._count

    def mean_distance(self, z: Kind) -> Kind:
        """Returns the mean Euclidean distance of each vector to those kept: `(B,)`, zeros if there are none.

        Distances come from products in float64, and those that are small beside the vectors' lengths anew from
        differences: that of equal vectors is 0. NaN where a vector is not finite.

        Args:
            z: `(B, dim)`, torch or numpy.

        Returns:
            Of the kind of `z`, on its device; float64 if `z` is, else float32.

        Raises:
            ValueError: The vectors have another dimension.
        """
        given = self._checked(z)
        found = torch.zeros(len(given), dtype=torch.float64, device=exact_device(given))
        if self._count:
            with torch.no_grad(), full_precision(given):
                self._move(found.device)
                kept, norms = self._vectors[: self._count], self._norms[: self._count]
                for first in range(0, len(given), _ROWS):
                    part = given[first : first + _ROWS].to(found.device, torch.float64)
                    squares = part.square().sum(1, keepdim=True)
                    found[first : first + _ROWS] = distances(part, squares, kept, norms).mean(1)
        return as_kind(found, z, given)

    def push(self, z: Kind) -> None:
        """Keep the vectors of `z`, `(B, dim)`, in order, each in the place of the oldest; of more than M the last M.

        Vectors that are not finite are not kept: every distance would be NaN until they are overwritten.

        Raises:
            ValueError: The vectors have another dimension.
        """
        given = self._checked(z)
        device = exact_device(given)
        exact = given.detach().to(device, torch.float64)
        exact = exact[exact.isfinite().all(1)][-self.capacity :]
        if given.dtype == torch.float64:
            self._dtype = torch.float64
        self._move(device)
        if not len(self._vectors):
            self._vectors = torch.zeros(self.capacity, self.dim, dtype=torch.float64, device=device)
            self._norms = torch.zeros(self.capacity, dtype=torch.float64, device=device)
        slots = (self._pointer + torch.arange(len(exact), device=device)) % self.capacity
        self._vectors[slots] = exact
        self._norms[slots] = exact.square().sum(1)
        self._pointer = (self._pointer + len(exact)) % self.capacity
        self._count = min(self.capacity, self._count + len(exact))

    def state_dict(self) -> dict[str, np.ndarray]:
        """Returns what a later run goes on from: arrays `vectors`, the filled slots `(count, dim)`, and `pointer`."""
        vectors = self._vectors[: self._count].to(self._dtype).cpu().numpy()
        return {"vectors": vectors.copy(), "pointer": np.array(self._pointer), "capacity": np.array(self.capacity)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`, of `state_dict`, with arrays of numpy or torch.

        Raises:
            ValueError: It is of a buffer of another capacity or dimension.
        """
        vectors = as_tensor("vectors", state["vectors"], 2)
        capacity, pointer = int(state["capacity"]), int(state["pointer"])
        if capacity != self.capacity or vectors.shape[1] != self.dim:
            raise ValueError(
                f"the state is of a buffer of {capacity} vectors of {vectors.shape[1]} numbers; "
                f"this one has {self.capacity} of {self.dim}"
            )
        count = len(vectors)
        if count > capacity or not 0 <= pointer < capacity or (count < capacity and pointer != count):
            raise ValueError(
                f"the state has {count} of {capacity} vectors and its pointer at {pointer}; none can be so"
            )
        self._empty()
        self.push(vectors)
        self._pointer = pointer

    def _checked(self, z: Kind) -> torch.Tensor:
        given = as_tensor("z", z, 2)
        if given.shape[1] != self.dim:
            raise ValueError(f"`z` has vectors of {given.shape[1]} numbers; the buffer keeps those of {self.dim}")
        return given

    def _move(self, device: torch.device) -> None:
        self._vectors, self._norms = self._vectors.to(device), self._norms.to(device)


def distances(rows: torch.Tensor, squares: torch.Tensor, others: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
    """Returns Euclidean distances, float64 `(n, m)`, from products; the small ones anew from differences.

    Args:
        rows: float64 `(n, d)`.
        squares: Their squared lengths, `(n, 1)`.
        others: float64 `(m, d)`.
        norms: Their squared lengths, `(m,)`.
    """
    lengths = squares + norms
    found = torch.addmm(lengths, rows, others.T, alpha=-2)
    one, other = torch.nonzero(found <= _NEAR * lengths, as_tuple=True)
    step = max(1, (_ROWS << 10) // rows.shape[1])
    for i, j in zip(one.split(step), other.split(step), strict=True):
        found[i, j] = (rows[i] - others[j]).square().sum(1)
    return found.sqrt_()


def utility_diversity(intra: Kind, inter: Kind, alpha: float) -> Kind:
    """Returns the totals `intra + alpha * inter`, `(B,)`, neither term normalised; with alpha 0 `inter` counts nothing.

    Raises:
        ValueError: The two are of different shapes.
    """
    utility, diversity = as_tensor("intra", intra, 1), as_tensor("inter", inter, 1)
    if utility.shape != diversity.shape:
        raise ValueError(f"`inter` has {len(diversity)} scores; it must have as many as `intra`, {len(utility)}")
    wide = torch.promote_types(utility.dtype, diversity.dtype)
    like = torch.zeros(0, dtype=wide, device=utility.device)
    if alpha == 0:
        return as_kind(utility.clone(), intra, like)
    exact = [term.to(exact_device(term), torch.float64) for term in (utility, diversity)]
    return as_kind(exact[0] + alpha * exact[1], intra, like)


def top_k(scores: Kind, k: int) -> Kind:
    """Returns the indices of the `k` highest scores, highest first: int64 `(min(k, B),)`.

    Equal scores are taken by lower index; those that are not finite after all others, also by index.

    Raises:
        ValueError: `scores` is not one row of numbers, or `k` not at least 1.
    """
    at_least(k=(k, 1))
    given = as_tensor("scores", scores, 1)
    lowest = given.new_full((), -torch.inf)
    order = torch.argsort(torch.where(given.isfinite(), given, lowest), descending=True, stable=True)[:k]
    return order.numpy() if isinstance(scores, np.ndarray) else order
