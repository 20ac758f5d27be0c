"""One run: its configuration, its runner, its failures, its times. Stages hand their work to it group by group."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from prefect import Task

from configs.curate import Curate
from configs.errors import ShardsFailed
from flows.runners import Runner, failures
from flows.watching import WARNING, Unwatched, Watch
from tasks import stopping
from tasks.groups import ItemsFailed

HEAVY, LIGHT = 16, 6
"""Most tasks of a step: with every stage and three selects a run of 16 workers or fewer stays under 300 task runs."""


class Run:
    """What every stage of one run shares."""

    def __init__(self, config: Curate, runner: Runner, log: Callable[[str], None], watch: Watch | None = None) -> None:
        self.config, self.runner, self.log = config, runner, log
        self.watch: Watch = watch or Unwatched()
        self.stage = ""
        """What is being done, as `timed` of `flows.stages` says it."""
        self.failed: dict[str, str] = {}
        """Input files that a per-shard stage could not process, and why."""
        self.seconds: dict[str, float] = {}
        """Wall time by stage, for the report."""
        self.notes: list[str] = []
        """What the reader of the report should know."""
        self.tasks: Counter[str] = Counter()
        """Task runs by stage."""
        self.files = 0
        """Input files of the run."""

    @property
    def task_runs(self) -> int:
        """Task runs so far."""
        return self.tasks.total()

    def groups(self, items: Sequence[Any], most: int) -> list[list[Any]]:
        """Consecutive items in at most `most` groups, or as `runner.shards_per_task` says.

        Heavy work is one group a worker where there are more workers than that.
        """
        runner = self.config.runner
        most = max(most, runner.workers) if most > LIGHT else most
        size = runner.shards_per_task or -(-len(items) // most)
        return [list(items[i : i + size]) for i in range(0, len(items), size)]

    def each(self, task: Task[..., Any], name: str, items: Sequence[Any], most: int = LIGHT, **arguments: Any) -> None:
        """Run `task` on groups of `items`, which it takes as the argument `name`.

        Raises:
            ItemsFailed: With every item that failed; the others are done.
        """
        if not items:
            return
        stopping.check()
        groups = self.groups(items, most)
        calls, first = [], 1
        for group in groups:
            last = first + len(group) - 1
            which = f"{name} {first}-{last}" if last > first else f"{name[:-1]} {first}"
            shared = {**arguments, "storage": self.config.storage}
            calls.append({**shared, name: group, "label": f"{which} of {len(items)}"})
            first = last + 1
        failed = failures(self.runner.run(task, calls, self._progress(task.name, calls, most > LIGHT)))
        self.tasks[self.stage] += len(calls)
        if failed:
            raise ItemsFailed(failed)

    def once(self, task: Task[..., Any], **arguments: Any) -> Any:
        """Run `task` one time and return what it returns."""
        stopping.check()
        outcome = self.runner.run(task, [{**arguments, "storage": self.config.storage}], lambda _: None)[0]
        self.tasks[self.stage] += 1
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _progress(self, name: str, calls: list[dict[str, Any]], heavy: bool) -> Callable[[int], None]:
        """Tell of groups that have ended: a longer bar in the UI, a line in the log, of light work one a second."""
        started = told = time.perf_counter()
        ended = 0
        where = self.stage if self.stage.split("/")[0] == name else f"{self.stage}, {name}"
        self.watch.progress(self.stage, name, 0, len(calls))

        def done(index: int) -> None:
            nonlocal ended, told
            ended += 1
            now = time.perf_counter()
            if heavy or ended == len(calls) or now - told >= 1:
                told = now
                self.log(f"  {where}: {calls[index]['label']}, {ended} of {len(calls)} tasks, {now - started:.1f} s")
            self.watch.progress(self.stage, name, ended, len(calls))

        return done

    def warn(self, kind: str, text: str) -> None:
        """Say what its reader may want to change: in the log, in the report, and as an event for automations."""
        self.notes.append(text)
        self.watch.warn(text, self.log)
        self.watch.event(f"{WARNING}.{kind}", {"message": text, "stage": self.stage})

    def stop_if_failed(self) -> None:
        """End the run if a shard failed: what follows needs all of them.

        Raises:
            ShardsFailed: Naming the number, the first file and its error.
        """
        if self.failed:
            file, why = next(iter(sorted(self.failed.items())))
            raise ShardsFailed(
                f"{len(self.failed)} of {self.files} shards failed; rerun to retry only those. First: {file}: {why}"
            )
