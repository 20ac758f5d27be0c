"""UDS, utility-diversity sampling (arXiv 2510.16882): of each micro-batch rows with rich logits, unlike those taken.

A row's total is the nuclear norm of its logits (`intra`) plus alpha times the mean distance of their sketch from those
of the rows taken last (`inter`); see `tasks.score.uds`. The score `uds` makes both columns, and runs the model for it;
here is the cheap pass over the draws, which another alpha, buffer or share repeats without a model. So logits are those
of the model as it was scored, where the paper takes them anew from the model in training at every step: the same picks
only while the model is frozen.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from configs.errors import ColumnError
from configs.methods import scored as methods
from storage.states import State
from tasks.sample.micro_batches import MicroBatched, best, numbers, rounded, vectors
from tasks.score.blockwise import worker_threads

if TYPE_CHECKING:
    import torch

    from tasks.score.uds import MemoryBuffer

BLOCK_ROWS = 256
"""Candidates whose distances are computed together, where micro-batches are smaller."""
SLOTS = 256
"""Vectors that one thread compares them with: the same on every machine."""


def select_in_order(
    buffer: MemoryBuffer, intra: np.ndarray, sketches: np.ndarray, alpha: float, share: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns what UDS picks of consecutive micro-batches, int64, and each row's `inter` and total, float32 `(n,)`.

    The rows taken of a micro-batch are in `buffer` before the next one is looked at. Totals are compared as float32,
    equal ones by index. Rows without a finite total are taken only where no others are left, and never remembered.

    Args:
        buffer: What was taken before; goes on.
        intra: float32 `(n,)`, NaN where a row has no score.
        sketches: float32 `(n, d)`, finite.
        alpha: What diversity counts for.
        share: M, candidates of a micro-batch, which n is a multiple of, and K, how many of them are taken.
    """
    step = share[0] * max(1, BLOCK_ROWS // share[0])
    picks, inter, total = [], np.empty(len(intra), np.float32), np.empty(len(intra), np.float32)
    for first in range(0, len(intra), step):
        rows = slice(first, first + step)
        select = _select_one if step == share[0] else _select_several
        found, inter[rows], total[rows] = select(buffer, intra[rows], sketches[rows], alpha, share)
        picks.append(first + found)
    return np.concatenate(picks), inter, total


def _select_one(
    buffer: MemoryBuffer, intra: np.ndarray, sketches: np.ndarray, alpha: float, share: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`select_in_order` of one micro-batch."""
    from tasks.score.uds import utility_diversity

    pieces = [sketches[first : first + BLOCK_ROWS] for first in range(0, len(sketches), BLOCK_ROWS)]
    inter = np.concatenate(list(worker_threads(os.cpu_count() or 1).map(buffer.mean_distance, pieces)))
    total = np.asarray(utility_diversity(intra, inter, alpha))
    picks = best(total, *share).ravel()
    buffer.push(sketches[picks[np.isfinite(total[picks])]])
    return picks, inter, total


def _select_several(
    buffer: MemoryBuffer, intra: np.ndarray, sketches: np.ndarray, alpha: float, share: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`select_in_order` of some micro-batches, with the distances of all of them computed beforehand.

    So the buffer is read once and not for each: what a row is from a slot is known, and what it is from the rows that
    take slots over as well.
    """
    from tasks.score.uds import utility_diversity

    state = buffer.state_dict()
    filled, pointer = len(state["vectors"]), int(state["pointer"])
    to_slots = np.empty((len(intra), buffer.capacity))
    to_slots[:, :filled] = distances(sketches, state["vectors"])
    among = distances(sketches, sketches)
    size = share[0]
    taken, pushed = [], [np.empty(0, np.int64)]
    inter, total = np.zeros(len(intra), np.float32), np.empty(len(intra), np.float32)
    for first in range(0, len(intra), size):
        rows = slice(first, first + size)
        if filled:
            inter[rows] = to_slots[rows, :filled].mean(axis=1)
        total[rows] = utility_diversity(intra[rows], inter[rows], alpha)
        picks = first + best(total[rows], *share).ravel()
        new = picks[np.isfinite(total[picks])][-buffer.capacity :]
        slots = (pointer + np.arange(len(new))) % buffer.capacity
        to_slots[first + size :, slots] = among[first + size :, new]
        pointer, filled = (pointer + len(new)) % buffer.capacity, min(buffer.capacity, filled + len(new))
        taken.append(picks)
        pushed.append(new)
    buffer.push(sketches[np.concatenate(pushed)])
    return np.concatenate(taken), inter, total


def distances(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns Euclidean distances, float64 `(n, m)`, computed as `MemoryBuffer` does.

    Args:
        rows: float32 `(n, d)`, finite.
        others: float32 `(m, d)`, finite.
    """
    import torch

    exact = torch.from_numpy(np.asarray(rows, np.float64))
    squares = exact.square().sum(1, keepdim=True)
    starts = range(0, len(others), SLOTS)
    pieces = worker_threads(os.cpu_count() or 1).map(
        lambda first: _distances(exact, squares, others[first : first + SLOTS]), starts
    )
    return np.concatenate([np.empty((len(rows), 0)), *pieces], axis=1)


def _distances(rows: torch.Tensor, squares: torch.Tensor, others: np.ndarray) -> np.ndarray:
    """Of float64 `rows` `(n, d)`, whose squared lengths are `squares` `(n, 1)`, from float32 `others` `(m, d)`."""
    import torch

    from tasks.score import uds

    with torch.inference_mode():
        kept = torch.from_numpy(np.asarray(others, np.float64))
        return uds.distances(rows, squares, kept, kept.square().sum(1)).numpy()


class Uds(MicroBatched):
    """UDS on the cached scores: every rank has a buffer of its own, as every trainer of the released code has.

    Where sketches are orthonormal, alpha is multiplied by sqrt(T V) / 2 (a rule of ours, checked by Monte Carlo), so
    that it means what it means with sketches as released. T and V, the lengths of a sequence and of the vocabulary,
    stand in the metadata of the column.
    """

    independent = False
    libraries = ("torch",)
    part_rows: int = 1 << 15
    """Sketches are wide: 4 KiB a draw."""
    values = ("intra", "inter", "total")

    def __init__(self, config: methods.Uds, *, seed: int = 0) -> None:
        """`seed` is part of every sampler's signature; nothing is random here."""
        remedy = "Give `sample.logits`, the model to score with, or list the score `uds`."
        super().__init__(config, ("intra",), ("sketch",), remedy)
        self._buffers: list[MemoryBuffer] = []

    def pick_and_value(self, superbatch: pa.Table, step: int) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """Returns the picks of each rank, and the terms of each row's total; see `tasks.sample.ValuingSampler`.

        Raises:
            ColumnError: A column holds something else, sketches of another width than before, or orthonormal ones
                whose T and V are not told.
        """
        self.checked(superbatch)
        sketches, sound = vectors(superbatch["sketch"], "sketch")
        intra = rounded({"": numbers(superbatch["intra"], "intra")})[""]
        intra = np.where(sound & np.isfinite(intra), intra, np.float32(np.nan))
        self._check_width(sketches.shape[1])
        alpha, whole = self._alpha(superbatch.schema.field("sketch")), len(intra) // self.config.world_size
        if not self._buffers:  # none of the rows so far has a sketch
            nothing = np.full(len(intra), np.nan, np.float32)
            return self.per_rank(best(nothing, *self.config.share)), dict.fromkeys(self.values, nothing)
        picks, inter, total = [], [], []
        for rank, buffer in enumerate(self._buffers):
            rows = slice(rank * whole, (rank + 1) * whole)
            found = select_in_order(buffer, intra[rows], sketches[rows], alpha, self.config.share)
            picks.append(rank * whole + found[0])
            inter.append(found[1])
            total.append(found[2])
        told = np.where(np.isnan(intra), np.float32(np.nan), np.concatenate(inter))
        return picks, {"intra": intra, "inter": told, "total": np.concatenate(total)}

    def _check_width(self, width: int) -> None:
        """Make the buffers as wide as the first sketches."""
        from tasks.score.uds import MemoryBuffer

        if width and not self._buffers:
            self._buffers = [MemoryBuffer(self.config.buffer, width) for _ in range(self.config.world_size)]
        elif width and self._buffers[0].dim != width:
            raise ColumnError(
                f"`sketch` has vectors of {width} numbers, those before it {self._buffers[0].dim}; all rows must be "
                "sketched alike: score them anew"
            )

    def _alpha(self, field: pa.Field) -> float:
        """`alpha` in the units of the sketches."""
        from tasks.score.uds import alpha_factor

        told = field.metadata or {}
        orthonormal = told.get(b"orthonormal", b"true" if self.config.orthonormal else b"false") == b"true"
        if not orthonormal:
            return self.config.alpha
        if b"max_length" not in told or b"vocab_size" not in told:
            raise ColumnError(
                "`orthonormal` is set, but the column `sketch` does not tell T and V, by which alpha is scaled; leave "
                "it out and give `alpha` times sqrt(T V) / 2"
            )
        return self.config.alpha * alpha_factor(int(told[b"max_length"]), int(told[b"vocab_size"]))

    def state_dict(self) -> State:
        """Returns every rank's buffer, by its number; nothing before a row had a sketch."""
        states = {rank: buffer.state_dict() for rank, buffer in enumerate(self._buffers)}
        return {f"{rank}_{name}": array for rank, state in states.items() for name, array in state.items()}

    def load_state_dict(self, state: State) -> None:
        """Goes on from `state`."""
        self._buffers = []
        if not state:
            return
        self._check_width(state["0_vectors"].shape[1])
        for rank, buffer in enumerate(self._buffers):
            mine = f"{rank}_"
            buffer.load_state_dict({n.removeprefix(mine): a for n, a in state.items() if n.startswith(mine)})
