"""The sketch of UDS: a few outputs of a cosine transform of a sample's logits, along positions and along vocabulary."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike

from tasks.arguments import at_least
from tasks.score.tensors import (
    Kind,
    as_kind,
    as_logits,
    exact_device,
    full_precision,
    has_float32,
    kept_rows,
    whole_spans,
)

_SPAN = 1024
"""Tokens of the vocabulary that share a table of cosines."""
_PIECE = 1 << 20
"""Numbers of a piece of logits."""


def alpha_factor(max_length: int, vocab_size: int) -> float:
    """Returns sqrt(T V) / 2: as-released sketches are so many times as far apart as orthonormal ones.

    With `orthonormal` sketches, alpha times this gives the totals that alpha gives with those as released.
    """
    return math.sqrt(max_length * vocab_size) / 2


class LogitSketch:
    """Projects logits `(N, V)`, N at most T, to `length_dim * vocab_dim` numbers whose distances tell theirs.

    UDS's released code pads logits X with zero rows to `(T, V)`, flips signs at random and keeps some real parts of
    Fourier transforms, un-normalised:
    Z = sqrt(T/r1) sqrt(V/r2) C_T[length_index] D_T X D_V C_V[vocab_index]^T, C_n[k, j] = cos(2 pi k j / n).
    Indices are drawn with replacement. Signs and indices are drawn once, by numpy: the same on every device.

    E |Z|^2 is T V / 4 |X|_F^2 but for 1/n: as released, distances are `alpha_factor` times those of the logits.
    `orthonormal` divides by it, so that distances are in the units of the logits.

    Only the outputs that are kept are computed: first the r1 rows, of whose V columns then the r2 cosines.
    """

    def __init__(
        self,
        max_length: int,
        vocab_size: int,
        *,
        length_dim: int = 8,
        vocab_dim: int = 128,
        seed: int = 0,
        orthonormal: bool = False,
    ) -> None:
        """Draws signs and indices.

        Args:
            max_length: T, the most positions that logits may have.
            vocab_size: V, the columns that they have.
            length_dim: r1.
            vocab_dim: r2.
            seed: Of the draws.
            orthonormal: See the class.

        Raises:
            ValueError: A number is out of its bounds.
        """
        at_least(max_length=(max_length, 1), vocab_size=(vocab_size, 1))
        at_least(length_dim=(length_dim, 1), vocab_dim=(vocab_dim, 1), seed=(seed, 0))
        rng = np.random.default_rng(seed)
        signs = [2 * rng.integers(0, 2, size) - 1 for size in (max_length, vocab_size)]
        self._set(*signs, rng.integers(0, max_length, length_dim), rng.integers(0, vocab_size, vocab_dim), orthonormal)

    @classmethod
    def from_parts(
        cls,
        length_signs: ArrayLike,
        vocab_signs: ArrayLike,
        length_index: ArrayLike,
        vocab_index: ArrayLike,
        *,
        orthonormal: bool = False,
    ) -> LogitSketch:
        """Returns the sketch of these signs, `(T,)` and `(V,)`, and indices, `(r1,)` and `(r2,)`.

        Raises:
            ValueError: A sign is not 1 or -1, or an index out of range.
        """
        made = cls.__new__(cls)
        made._set(*(np.asarray(p) for p in (length_signs, vocab_signs, length_index, vocab_index)), orthonormal)
        return made

    def _set(self, *parts: np.ndarray | bool) -> None:
        length_signs, vocab_signs, length_index, vocab_index = (np.asarray(part, np.int64) for part in parts[:4])
        for side, signs, index in (("length", length_signs, length_index), ("vocab", vocab_signs, vocab_index)):
            if signs.ndim != 1 or not len(signs) or not np.isin(signs, (1, -1)).all():
                raise ValueError(f"`{side}_signs` must be one row of 1 and -1, at least one")
            if index.ndim != 1 or not len(index) or index.min() < 0 or index.max() >= len(signs):
                raise ValueError(f"`{side}_index` must be one row of integers in [0, {len(signs)}), at least one")
        self.length_signs, self.vocab_signs = length_signs, vocab_signs
        self.length_index, self.vocab_index = length_index, vocab_index
        self.orthonormal = bool(parts[4])
        self._tables: dict[tuple[torch.device, torch.dtype], tuple[torch.Tensor, ...]] = {}

    @property
    def max_length(self) -> int:
        """T."""
        return len(self.length_signs)

    @property
    def vocab_size(self) -> int:
        """V."""
        return len(self.vocab_signs)

    @property
    def dim(self) -> int:
        """Numbers of a sketch."""
        return len(self.length_index) * len(self.vocab_index)

    def project(self, logits: Kind, mask: Kind | None = None) -> Kind:
        """Returns the sketches: `(B, r1 * r2)`, sequence index major.

        A sample's sketch does not depend on the samples beside it. Where one has a number that is not finite, so has
        its sketch, which is then of no use.

        Args:
            logits: `(B, N, V)`, torch or numpy, of any precision and device; N at most T.
            mask: bool `(B, N)`; what is False counts as a row of zeros, whatever is in it.

        Returns:
            Of the kind of `logits`, on its device; float64 if the logits are, else float32.

        Raises:
            ValueError: There are more than T positions or not V columns; or another shape is wrong.
        """
        given = as_logits(logits)
        there = kept_rows(mask, given)
        positions, tokens = given.shape[1:]
        if positions > self.max_length:
            raise ValueError(f"`logits` has {positions} positions; the sketch was made for at most {self.max_length}")
        if tokens != self.vocab_size:
            raise ValueError(f"`logits` has a vocabulary of {tokens}; the sketch was made for {self.vocab_size}")
        with torch.no_grad(), full_precision(given):
            found = [self._project(sample, kept) for sample, kept in zip(given, there, strict=True)]
            sketches = torch.stack(found) if found else torch.zeros(0, self.dim)
        return as_kind(sketches, logits, given)

    def _project(self, sample: torch.Tensor, index: torch.Tensor | None) -> torch.Tensor:
        """The sketch of the rows `index` of `(N, V)`, or of all: float64 `(r1 * r2,)`.

        First the r1 rows, `(r1, V)`, then of these the r2 waves. Of token j = span * c + t the cosine is
        cos(a_c) cos(b_t) - sin(a_c) sin(b_t), a_c the angle of span * c and b_t that of t: a small table serves all.
        """
        device = exact_device(sample)
        single = sample.dtype != torch.float64 and has_float32()
        rows, signs, near, far = self._table(device, torch.float32 if single else torch.float64)
        rows = rows[:, : len(sample)]
        rows = rows if index is None else rows.index_select(1, index.to(device))
        found = torch.zeros(len(rows), far.shape[1], dtype=torch.float64, device=device)
        span, most = len(near), max(len(near) * max(len(sample), len(rows)), far.shape[1] * len(rows))
        spans = max(1, _PIECE // most)
        for first in range(0, len(far), spans):
            columns = slice(first * span, (first + spans) * span)
            piece = sample[:, columns] if index is None else sample[:, columns].index_select(0, index)
            part = whole_spans((rows @ piece.to(device, rows.dtype)) * signs[columns], span)
            waves = (part.view(-1, span) @ near).view(len(rows), -1, far.shape[1])
            found += (waves * far[first : first + spans]).sum(1, dtype=torch.float64)
        return found.view(len(rows), 2, -1).sum(1).flatten()

    def _table(self, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        """Scaled cosines `(r1, T)`; signs `(V,)`; waves within a span `(span, 2 r2)`, and of spans `(c, 2 r2)`.

        All are made in float64 on the CPU: the same for every device but for the rounding to `dtype`.
        """
        key = device, dtype
        if key not in self._tables:
            length, vocab = self.max_length, self.vocab_size
            factor = math.sqrt(length * vocab / self.dim)
            if self.orthonormal:
                factor /= alpha_factor(length, vocab)
            rows = factor * np.cos(_angles(self.length_index[:, None], np.arange(length), length)) * self.length_signs
            span = min(_SPAN, vocab)
            near = _angles(np.arange(span)[:, None], self.vocab_index, vocab)
            far = _angles(np.arange(0, vocab, span)[:, None], self.vocab_index, vocab)
            waves = (np.hstack([np.cos(near), np.sin(near)]), np.hstack([np.cos(far), -np.sin(far)]))
            made = (torch.as_tensor(one, dtype=dtype, device=device) for one in (rows, self.vocab_signs, *waves))
            self._tables[key] = tuple(made)
        return self._tables[key]


def _angles(k: np.ndarray, j: np.ndarray, n: int) -> np.ndarray:
    """2 pi k j / n with the product taken modulo n in integers, so that large products cost no digits."""
    return 2 * np.pi / n * (k * j % n)
