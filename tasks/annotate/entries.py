"""A vocabulary as text, an entry a line, and as one array of a state that is kept without pickle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def parse_vocabulary(text: str) -> list[str]:
    """The entries of a vocabulary file, one a line: stripped, without blank lines and repeats, in their order."""
    return list(dict.fromkeys(line.strip() for line in text.removeprefix("\ufeff").splitlines() if line.strip()))


def encode_vocabulary(vocabulary: Sequence[str]) -> np.ndarray:
    """A vocabulary as one array, for a state that is kept without pickle: uint8, UTF-8, an entry a line."""
    return np.frombuffer("\n".join(vocabulary).encode(), np.uint8).copy()


def decode_vocabulary(encoded: np.ndarray) -> list[str]:
    """The vocabulary that `encode_vocabulary` encoded."""
    return encoded.tobytes().decode().split("\n") if len(encoded) else []
