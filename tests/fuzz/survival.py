"""Cases run in processes of their own: a crash or a hang is the result of one case, not the end of the tests."""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
import traceback
from collections import deque
from multiprocessing import connection
from pathlib import Path
from typing import NamedTuple

PATIENCE = 10.0
"""Seconds that a case may take."""
ADDRESS_SPACE = 16 << 30
"""So that a case which slips through does not take the machine down."""


class Result(NamedTuple):
    """What became of one case."""

    seed: int
    outcome: str
    """What the job returned; `crashed ...`, `hung` or `error: ...` if it did not return."""
    seconds: float = 0.0
    memory: float = 0.0
    """Megabytes at the peak, beyond what the process had before; 0 where /proc does not tell."""
    printed: int = 0
    """Bytes that C libraries wrote to standard error."""

    @property
    def failed(self) -> bool:
        return self.outcome.startswith(("crashed", "hung", "error"))


def survive(job, arguments, seeds, *, workers=2):
    """Results of `job(*arguments, seed) -> str` for each seed, in their order.

    The job must be a function of a module that a fresh process can import.
    """
    waiting, results = deque(seeds), {}
    staff = [_Worker(job, arguments) for _ in range(workers)]
    try:
        while waiting or any(worker.seed is not None for worker in staff):
            for worker in staff:
                if worker.seed is None and waiting:
                    worker.start(waiting.popleft())
            connection.wait([worker.pipe for worker in staff if worker.seed is not None], timeout=0.2)
            for number, worker in enumerate(staff):
                if (result := worker.result()) is not None:
                    results[result.seed] = result
                    if not worker.alive:
                        staff[number] = _Worker(job, arguments)
    finally:
        for worker in staff:
            worker.stop()
    return [results[seed] for seed in sorted(results)]


class _Worker:
    def __init__(self, job, arguments):
        context = multiprocessing.get_context("forkserver")
        self.pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, job, arguments), daemon=True)
        self._process.start()
        other.close()
        self.seed, self.alive, self._ready, self._since = None, True, False, 0.0

    def start(self, seed):
        self.seed, self._since = seed, time.monotonic()
        self.pipe.send(seed)

    def result(self):
        """The result of the case at hand, None while there is none."""
        if self.seed is None:
            return None
        seed, outcome = self.seed, None
        try:
            if self.pipe.poll():
                answer = self.pipe.recv()
                if answer is None:  # the process has started: the clock of its first case runs from here
                    self._ready, self._since = True, time.monotonic()
                    return None
                self.seed = None
                return Result(seed, *answer)
        except EOFError:
            self._process.join(10)
            outcome = f"crashed with exit code {self._process.exitcode}"
        if outcome is None and time.monotonic() - self._since > (PATIENCE if self._ready else 120):
            outcome = "hung"
        if outcome is None:
            return None
        self.stop()
        self.seed, self.alive = None, False
        return Result(seed, outcome, time.monotonic() - self._since)

    def stop(self):
        self._process.kill()
        self._process.join(10)
        self.pipe.close()


def _serve(pipe, job, arguments):
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        pipe.send(None)
        while True:
            seed = pipe.recv()
            before, printed, start = _forget_peak(), os.fstat(2).st_size, time.perf_counter()
            try:
                outcome = job(*arguments, seed)
            except Exception:  # the outcome of the case, which every test takes for a failure
                outcome = f"error: {traceback.format_exc(limit=-4)}"
            seconds = time.perf_counter() - start
            pipe.send((outcome, seconds, max(_memory("VmHWM") - before, 0.0), os.fstat(2).st_size - printed))


def _forget_peak():
    """Megabytes in use; from here on, the peak counts anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return float("inf")
    return _memory("VmRSS")


def _memory(name):
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))
