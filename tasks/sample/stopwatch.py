"""Seconds of stretches of work, told apart by name, on the device that does it."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up seconds by name.

    On CUDA a stretch lies between two events of the stream, so that work is timed and not its launch, and nothing waits
    for the device before `seconds` is asked for. Elsewhere it is `clock`'s.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._pending: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextmanager
    def on(self, name: str, device: torch.device) -> Iterator[None]:
        """Time what is done inside; not if it raises."""
        if device.type != "cuda":
            begun = self._clock()
            yield
            self._seconds[name] += self._clock() - begun
            return
        stream = torch.cuda.current_stream(device)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record(stream)
        yield
        end.record(stream)
        self._pending.append((name, start, end))
        while self._pending[0][2].query():
            self._add(*self._pending.popleft())
            if not self._pending:
                break

    def seconds(self) -> dict[str, float]:
        """Seconds by name so far; waits until the device is done with them."""
        while self._pending:
            self._pending[0][2].synchronize()
            self._add(*self._pending.popleft())
        return dict(self._seconds)

    def _add(self, name: str, start: torch.cuda.Event, end: torch.cuda.Event) -> None:
        self._seconds[name] += start.elapsed_time(end) / 1e3  # milliseconds
