"""GREATS: of each micro-batch the rows that together lower the loss on validation rows most, picked greedily.

To first order a step eta along the gradients of the rows S lowers the validation loss by eta times the sum of
<g_s, g_val>; what a further row z adds is eta <g_z, g_val> - eta^2 sum over s in S of <g_z, g_s>, the Hessian taken for
the identity. This is a reconstruction of the usual definition: the method's own code was not read, and the public code
of UDS, whose paper compares with it, has none. Gradients are those of the last layer, inner products of two rows those
of their sketches, and all are of the model as it stands when rows are scored.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from configs.methods import scored as methods
from tasks.sample.micro_batches import MicroBatched, numbers, rounded, vectors

GRAM_ROWS = 4096
"""Micro-batches of at most so many rows have all inner products computed at once, 128 MB; larger ones row by row."""


def select_greedily(
    gains: np.ndarray, sketches: np.ndarray, count: int, *, step_size: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows that GREATS picks, in order, int64 `(count,)`, and each row's gain, float64 `(n,)`.

    The gain of a picked row is that with which it was picked, of another what it would add to the picked ones. Equal
    gains: the lower index.

    Args:
        gains: `(n,)`, <g_z, g_val>.
        sketches: `(n, d)`, whose inner products are those of gradients.
        count: Rows wanted, at most n.
        step_size: eta.

    Raises:
        ValueError: An argument is out of its bounds, or a number is not finite.
    """
    value, rows = np.asarray(gains, np.float64) * step_size, np.asarray(sketches, np.float64)
    if value.ndim != 1 or rows.ndim != 2 or len(rows) != len(value):
        raise ValueError(f"`sketches` is {rows.shape}; it must have a row for each of the `gains`, {value.shape}")
    if not 0 <= count <= len(value):
        raise ValueError(f"`count` is {count}; it must be in [0, {len(value)}], the rows there are")
    if not (np.isfinite(value).all() and np.isfinite(rows).all()):
        raise ValueError("`gains` or `sketches` hold NaN or infinity; leave such rows out")
    gram = rows @ rows.T if len(rows) <= GRAM_ROWS else None
    left, picks = np.ones(len(value), bool), np.empty(count, np.int64)
    for place in range(count):
        picks[place] = new = int(np.argmax(np.where(left, value, -np.inf)))
        left[new] = False
        products = gram[new] if gram is not None else rows @ rows[new]
        value[left] -= step_size**2 * products[left]
    return picks, value


class Greats(MicroBatched):
    """GREATS on each micro-batch; rows without a gradient are picked last, in order, and count for no other row."""

    libraries = ()
    part_rows: int = 1 << 15
    """Sketches are wide: 4 KiB a draw."""
    values = ("gradient_gain", "gain")

    def __init__(self, config: methods.Greats, *, seed: int = 0) -> None:
        """`seed` is part of every sampler's signature; nothing is random here."""
        remedy = "Give `sample.logits` and `sample.validation`, or list the score `gradients`."
        super().__init__(config, ("gradient_gain",), ("gradient_sketch",), remedy)

    def pick_and_value(self, superbatch: pa.Table, step: int) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """Returns the picks of each rank, and the rows' gains; see `tasks.sample.ValuingSampler`."""
        self.checked(superbatch)
        size, count = self.config.share
        alone = numbers(superbatch["gradient_gain"], "gradient_gain")
        sketches, sound = vectors(superbatch["gradient_sketch"], "gradient_sketch")
        sound = sound & np.isfinite(alone)
        gain, picks = np.full(len(alone), np.nan), []
        for first in range(0, len(alone), size):
            rows = first + np.flatnonzero(sound[first : first + size])
            rest = first + np.flatnonzero(~sound[first : first + size])
            taken, gain[rows] = select_greedily(
                alone[rows], sketches[rows], min(count, len(rows)), step_size=self.config.step_size
            )
            picks.append(np.concatenate([rows[taken], rest])[:count])
        return self.per_rank(np.concatenate(picks)), rounded({"gradient_gain": alone, "gain": gain})
