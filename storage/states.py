"""States at rest: a dict of arrays in one npz file, no pickle. For fitted selects, frozen vocabularies, samplers."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from storage import files

_parsing = threading.Lock()
"""numpy reads headers with Python's parser, which up to 3.11 may fail when two threads are in it at once."""

State = dict[str, Any]
"""Names and what they hold: arrays or numpy scalars, no Python objects."""


def dump(state: State) -> bytes:
    """`state` as npz bytes; the same state gives the same bytes."""
    for name, array in state.items():
        if np.asarray(array).dtype.hasobject:
            raise ValueError(f"state `{name}` holds Python objects; only numbers, bools and bytes can be stored")
    sink = io.BytesIO()
    np.savez(sink, **{name: np.asarray(state[name]) for name in sorted(state)})  # type: ignore[arg-type]
    return sink.getvalue()


def save(url: str, state: State) -> None:
    """Publish `state` at `url`."""
    files.write_bytes(url, dump(state))


def load(url: str) -> State:
    """The state at `url`."""
    data = io.BytesIO(files.read_bytes(url))
    with _parsing, np.load(data, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def is_empty(state: State) -> bool:
    """Whether a fit has found nothing: every array is empty."""
    return all(np.size(array) == 0 for array in state.values())


@dataclass(frozen=True)
class Checkpoint:
    """Where a long fit keeps what it has learned so far, so that a crash costs only the last part."""

    url: str
    tell: Callable[[str], None] = lambda line: None
    """Hears how far the fit is, now and then: a line for the log."""

    def load(self) -> State | None:
        """The newest saved state, or None."""
        return load(self.url) if files.exists(self.url) else None

    def save(self, state: State) -> None:
        """Replace the saved state."""
        save(self.url, state)
