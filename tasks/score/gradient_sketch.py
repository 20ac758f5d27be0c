"""Sketches of gradients of the last layer, whose inner products tell theirs.

A gradient is a sum of outer products, delta_t of the vocabulary by h_t of the last layer's inputs; the tensor sketch of
Pham and Pagh (KDD 2013) makes it `dim` numbers without making the matrix: both factors are count-sketched (numbers with
random signs, added up in random buckets) and the two are convolved. The inner product of two sketches is unbiased; its
standard deviation is at most about sqrt(8 / dim) of the product of the two norms, and less where gradients are no
single outer product.
"""

from __future__ import annotations

import numpy as np
import torch

from tasks.arguments import at_least


class CountSketch:
    """Projects `(..., size)` to `(..., dim)`: every number, with a random sign, is added to one bucket.

    Every `dim` of them have buckets of their own: in their order, from a random one on, round and round; or, `mixed`,
    in random order. Any two share a bucket with a probability of at most 1 / dim. In order takes a sixteenth of the
    time; neither scatters sums, which are not the same in every run on CUDA.
    """

    def __init__(self, size: int, dim: int, rng: np.random.Generator, mixed: bool = False) -> None:
        self._dim = dim
        self._orders = [torch.from_numpy(rng.permutation(dim)) for _ in range(-(-size // dim))] if mixed else []
        self._starts: list[int] = rng.integers(0, dim, -(-size // dim)).tolist()
        self._signs = torch.from_numpy(2 * rng.integers(0, 2, size).astype(np.float32) - 1)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """The sketch of float32 `values`, on their device."""
        dim, found = self._dim, values.new_zeros((*values.shape[:-1], self._dim))
        pieces = zip(self._starts, values.split(dim, -1), self._signs.to(values.device).split(dim), strict=True)
        for at, (start, piece, signs) in enumerate(pieces):
            if self._orders:
                whole = torch.nn.functional.pad(piece * signs, (0, dim - len(signs)))
                found += whole.index_select(-1, self._orders[at].to(values.device))
                continue
            room = dim - start
            found[..., start : start + len(signs)].addcmul_(piece[..., :room], signs[:room])
            found[..., : max(0, len(signs) - room)].addcmul_(piece[..., room:], signs[room:])
        return found


class GradientSketch:
    """Sketches sum_t delta_t h_t^T; buckets and signs are drawn once, by numpy: the same on every device."""

    def __init__(self, vocab_size: int, width: int, dim: int, seed: int) -> None:
        """Draws buckets and signs.

        Args:
            vocab_size: V, numbers of a delta.
            width: H, numbers of a hidden state.
            dim: Numbers of a sketch.
            seed: Of the draws.
        """
        at_least(vocab_size=(vocab_size, 1), width=(width, 1), dim=(dim, 1), seed=(seed, 0))
        rng = np.random.default_rng(seed)
        self._dim = dim
        # In order on both sides, sums of buckets would be few: a token would meet the next one's last hidden number.
        self._vocabulary, self._width = CountSketch(vocab_size, dim, rng), CountSketch(width, dim, rng, mixed=True)

    def project(self, delta: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Sketches of rows: float32 `(b, dim)`.

        Args:
            delta: float32 `(b, n, V)`.
            hidden: float32 `(b, n, H)`.
        """
        left, right = torch.fft.rfft(self._vocabulary(delta)), torch.fft.rfft(self._width(hidden))
        return torch.fft.irfft((left * right).sum(1), n=self._dim)
