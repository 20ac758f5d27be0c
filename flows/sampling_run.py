"""Runs of the plain pipeline over samples, in a process of its own: what each stage takes, and what it leaves behind.

`python -m flows.sampling_run` reads a configuration a line, runs it, answers with a line of JSON. A process of its own
so that the first run meets libraries and models unloaded, as the real one will, and `check` gets its memory back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import IO, Any

from configs.errors import RunFailed
from flows.runners import Outcome, PlainRunner

LISTED = ("shards", "files", "units", "blocks", "buckets", "parts", "sources")
"""Arguments of tasks that are lists of what is worked on."""
Ran = dict[str, Any]
"""What a run took: {stages: {stage: {seconds, cpu, bytes, calls: [[task, items, calls, seconds]]}}, funnel, groups,
rows}."""


class NotingRunner(PlainRunner):
    """A plain runner that notes what each step took, and is told when a stage is over."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.stages: dict[str, list[list[Any]]] = {}
        self.cpu: dict[str, float] = {}
        """CPU seconds of this process by stage: what is between stages is counted to the one behind."""
        self._open: list[list[Any]] = []
        self._told = process_time()

    def run(self, task: Any, calls: list[dict[str, Any]], done: Callable[[int], None]) -> list[Outcome]:
        """See `Runner`."""
        started = perf_counter()
        outcomes = super().run(task, calls, done)
        items = sum(len(call[name]) for call in calls for name in LISTED if isinstance(call.get(name), list))
        once = "label" not in calls[0]
        self._open.append([task.name, 0 if once else items, len(calls), perf_counter() - started])
        return outcomes

    def progress(self, stage: str, step: str, done: int, total: int) -> None:
        """See `Watch`."""
        if not total:
            self.stages.setdefault(stage, []).extend(self._open)
            self._open = []
            now = process_time()
            self.cpu[stage] = self.cpu.get(stage, 0.0) + now - self._told
            self._told = now

    def event(self, name: str, payload: dict[str, Any]) -> None:
        """See `Watch`."""

    def warn(self, text: str, log: Callable[[str], None]) -> None:
        """See `Watch`."""


def ran(values: dict[str, Any]) -> Ran:
    """Run a configuration with the plain runner; what each stage took."""
    from configs import loading
    from flows.pipeline import curate
    from storage import files
    from tasks.report import pages
    from tasks.report.costs import sizes

    config = loading.validate(values)
    runner = NotingRunner(config.runner.workers)
    mix = curate(config, runner, lambda line: None, runner)
    told = pages.facts(mix.url)
    written = {one["stage"]: one["written"] or 0 for one in told.get("stages", [])}
    written["report"] = sum(sizes(files.join(mix.url, "report")).values())
    stages = {
        stage: {
            "seconds": seconds,
            "cpu": runner.cpu.get(stage, 0.0),
            "bytes": written.get(stage, 0),
            "calls": runner.stages.get(stage, []),
        }
        for stage, seconds in mix.seconds.items()
    }
    counts = mix.manifest["counts"]
    survivors = {one["group"]: one["rows"] for one in told.get("groups", [])}
    return {"stages": stages, "funnel": told.get("funnel", []), "groups": survivors, "rows": counts["rows_in"]}


class Child:
    """The process that runs samples."""

    def __init__(self, errors: IO[str]) -> None:
        line = [sys.executable, "-m", "flows.sampling_run"]
        self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)

    def run(self, values: dict[str, Any]) -> Ran:
        """What a run of these values took.

        Raises:
            RunFailed: It failed, or the process was lost.
        """
        assert self._process.stdin and self._process.stdout
        try:
            print(json.dumps(values), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RunFailed(f"the process that ran the sample ended with exit code {self._process.wait()}")
        found: Ran = json.loads(answer)
        if "error" in found:
            raise RunFailed(found["error"])
        return found

    def close(self) -> None:
        """End the process."""
        if self._process.stdin:
            self._process.stdin.close()
        if self._process.stdout:
            self._process.stdout.close()
        self._process.kill()
        self._process.wait()


@contextmanager
def child(folder: str) -> Iterator[Child]:
    """A fresh process that runs samples; what it says meanwhile lands in a file in `folder`."""
    with Path(folder, "said.txt").open("a") as errors:
        one = Child(errors)
        try:
            yield one
        finally:
            one.close()


def main() -> None:
    """Answer every line with a line, whatever libraries print."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from flows.terminal import quieten

    quieten()
    for line in sys.stdin:
        try:
            found = ran(json.loads(line))
        except (RunFailed, ValueError, OSError) as error:
            found = {"error": f"{error}"}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
