"""Vectors in clumps, as embeddings are."""

from __future__ import annotations

import numpy as np


def clumps(count: int, dim: int, number: int, seed: int) -> np.ndarray:
    """Float32 `(count, dim)`, not of unit length, around `number` centres of very different popularity."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(number, 0.7))
    centres = rng.standard_normal((number, dim))
    return (centres[rng.choice(number, count, p=share)] + 0.6 * rng.standard_normal((count, dim))).astype(np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length one."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
