"""The nuclear norm of logits, a matrix a sample, from the Gram matrix of the short side.

A matrix's singular values are the roots of its Gram matrix's eigenvalues. The short side has hundreds of rows, the long
one up to 150,000: so nearly all the work is one product of matrices, made piece by piece along the long side, and never
is more there beside the logits than a piece and the Gram matrix.

With E the Gram matrix's rounding error and n the short side, the norm is off by at most n^(3/4) |E|_F^(1/2). In float64
that is below 1e-3 of the norm for every matrix of a short side up to 20,000. In float32, twice as fast on a CPU and up
to 64 times on a GPU, it is 1e-2 for a matrix of rank 1; so the eigenvalues tell whether float32 was good enough.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

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

_PIECE, _DEVICE_PIECE = 1 << 18, 1 << 23
"""Numbers of a piece on the CPU, whose cache it should fit, 2 MiB in float64; and on a device, which is to be busy."""
_RUN = 256
"""Products that are summed in float32, which bounds a sum's rounding error; runs are summed in float64."""
_SHARE = 4
"""Bands into which the Gram matrix's rows are cut, so that little is computed above the diagonal."""
_UNIT = 2.0**-24
"""Of float32: half of what two numbers next to 1 differ by."""
_TOLERANCE = 8e-4
"""Of the norm: what a float32 Gram matrix may be off by, provably. The rest of 1e-3 is for all other rounding."""


def nuclear_norm(logits: Kind, mask: Kind | None = None) -> Kind:
    """Returns the sum of the singular values of each sample's raw logits: `(B,)`, within 1e-3 of the exact value.

    No softmax, no centring, no division by length: as released, with all positions unless there is a mask. A sample's
    norm does not depend on the samples beside it. It is NaN where a sample has a number that is not finite, zero where
    it has no position, or zeros only.

    Args:
        logits: `(B, N, V)`, torch or numpy, of any precision and device.
        mask: bool `(B, N)`; what is False counts as a row of zeros, whatever is in it.

    Returns:
        Of the kind of `logits`, on its device; float64 if the logits are, else float32.

    Raises:
        ValueError: `logits` or `mask` is of another shape or type.
    """
    given = as_logits(logits)
    there = kept_rows(mask, given)
    with torch.no_grad(), full_precision(given):
        norms = [_norm(_Matrix(sample, kept)) for sample, kept in zip(given, there, strict=True)]
        found = torch.stack(norms) if norms else torch.zeros(0)
    return as_kind(found, logits, given)


class _Matrix:
    """A sample, or the rows of it that a mask leaves, its short side first: `(n, m)`, n <= m, read in pieces."""

    def __init__(self, sample: torch.Tensor, kept: torch.Tensor | None) -> None:
        count, tokens = len(sample) if kept is None else len(kept), sample.shape[1]
        self.rows, self.columns = min(count, tokens), max(count, tokens)
        self.dtype, self.device = sample.dtype, exact_device(sample)
        self._sample, self._kept, self._tall = sample, kept, count > tokens

    def pieces(self, multiple: int = 1) -> Iterator[torch.Tensor]:
        """All columns in order, some at a time, a multiple of so many but for the last piece."""
        size = _PIECE if self.device.type == "cpu" else _DEVICE_PIECE
        width = multiple * max(1, size // (multiple * max(1, self.rows)))
        for first in range(0, self.columns, width):
            if self._tall:
                positions = slice(first, first + width)
                piece = self._sample[positions] if self._kept is None else self._sample[self._kept[positions]]
                yield piece.T.to(self.device)
            else:
                piece = self._sample[:, first : first + width]
                yield (piece if self._kept is None else piece.index_select(0, self._kept)).to(self.device)


def _norm(matrix: _Matrix) -> torch.Tensor:
    """The nuclear norm of a matrix: float64 scalar."""
    if not matrix.rows:
        return torch.zeros((), dtype=torch.float64, device=matrix.device)
    if matrix.dtype != torch.float64 and has_float32():
        norm, error = _norm_by_float32(matrix)
        if error <= _TOLERANCE * norm:
            return norm
    scale = _scale(matrix)
    return scale * _eigenvalues(_gram(matrix, scale)).sqrt().sum()


def _eigenvalues(gram: torch.Tensor) -> torch.Tensor:
    """Ascending eigenvalues, those below zero as zero, of a matrix's lower triangle; NaN if it is not finite."""
    sound = gram.diagonal().isfinite().all()
    values = torch.linalg.eigvalsh(torch.where(sound, gram, 0.0)).clamp(min=0)
    return torch.where(sound, values, torch.nan)


def _scale(matrix: _Matrix) -> torch.Tensor:
    """The power of two by which float64 numbers are divided so that their squares are in range; 1 for all others."""
    one = torch.ones((), dtype=torch.float64, device=matrix.device)
    if matrix.dtype != torch.float64:
        return one
    largest = torch.stack([torch.maximum(piece.max(), -piece.min()) for piece in matrix.pieces()]).max()
    return torch.where(largest.isfinite() & (largest > 0), torch.ldexp(one, torch.frexp(largest).exponent - 1), one)


def _gram(matrix: _Matrix, scale: torch.Tensor) -> torch.Tensor:
    """Products of the rows of `(n, m)` divided by `scale`: float64 `(n, n)`, right in its lower triangle."""
    gram = scale.new_zeros(matrix.rows, matrix.rows)
    for piece in matrix.pieces():
        exact = piece.double()
        if matrix.dtype == torch.float64:
            exact = exact / scale
        for first, last in _bands(matrix.rows):
            gram[first:last, :last].addmm_(exact[first:last], exact[:last].T)
    return gram


def _norm_by_float32(matrix: _Matrix) -> tuple[torch.Tensor, torch.Tensor]:
    """The nuclear norm by float32 products, and what it is off by at most: inf or NaN where they are out of range.

    Logits have much in common at all positions, which would drown the rest in rounding errors. So with m the mean row
    and A = B + 1 m^T, the Gram matrix is B B^T + w 1^T + 1 w^T + |m|^2 1 1^T, w = B m, and errors are relative to B.

    The bound: sums of `_RUN` products are off by g = `_RUN` units of their factors' norms. In B B^T that is at most
    g |B|_F^2. An error d in w is one of B + d m^T / |m|^2, but for 2 g |B|_F |w| / |m| in B B^T: it moves singular
    values by g |B|_F in sum. Rounding A - 1 m^T moves them by n^(1/2) units of |B|_F.
    """
    rows = matrix.rows
    gram = torch.zeros(rows, rows, dtype=torch.float64, device=matrix.device)
    along, square = gram.new_zeros(rows), gram.new_zeros(())
    for piece in matrix.pieces(_RUN):
        piece = piece.float()
        mean = piece.mean(0)
        square += mean.double().square().sum()
        left = whole_spans(piece - mean, _RUN).view(rows, -1, _RUN).transpose(0, 1)
        # As a product of matrices with vectors this would take as long as a third of the Gram matrix.
        along += (left * whole_spans(mean, _RUN).view(-1, 1, _RUN)).sum(2).sum(0, dtype=torch.float64)
        for first, last in _bands(rows):
            gram[first:last, :last] += (left[:, first:last] @ left[:, :last].mT).sum(0, dtype=torch.float64)
    size = gram.trace().sqrt()
    across = (along.norm() / square.sqrt()).nan_to_num(0.0)
    values = _eigenvalues(gram + along + along[:, None] + square)
    grain = 1.01 * _RUN * _UNIT
    tiny = 2.0**-126 * matrix.columns * rows  # products below float32's range may be lost
    double = 1e-15 * (rows + matrix.columns / _RUN) * values.sum()  # sums and eigenvalues in float64
    error = grain * size * ((1 + grain) * size + 2 * across) + tiny + double
    return values.sqrt().sum(), _most_moved(values, error) + (grain + rows**0.5 * _UNIT) * size


def _most_moved(values: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
    """What the roots of `values`, ascending, are off by in sum, at most, if theirs are off by e, |e| <= `error`.

    The sum of |e_i| / (root + root') is, by Cauchy and Schwarz, at most |e| (sum of 1 / value)^(1/2), and for values
    above 4 |e| at most 0.54 times that; and each root is off by |e_i|^(1/2) at most, j of them by j^(3/4) |e|^(1/2).
    The best cut between the two is taken.
    """
    inverse = torch.where(values > 4 * error, 0.29, 1.0) / values
    above = inverse.flip(0).cumsum(0).flip(0).sqrt() * error
    count = torch.arange(len(values) + 1, dtype=torch.float64, device=values.device)
    return (count**0.75 * error.sqrt() + torch.nn.functional.pad(above, (0, 1))).min()


def _bands(rows: int) -> list[tuple[int, int]]:
    """First and last row of each of the bands of a Gram matrix."""
    height = max(64, -(-rows // _SHARE))
    return [(first, min(rows, first + height)) for first in range(0, rows, height)]
