"""Where tasks run: on threads under Prefect, or plainly in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

from prefect import Task
from prefect.futures import as_completed
from prefect.task_runners import ThreadPoolTaskRunner

Outcome = Any
"""What a task returned, or the exception that ended it."""


class Runner(Protocol):
    """Runs one task on many sets of arguments."""

    def run(self, task: Task[..., Any], calls: list[dict[str, Any]], done: Callable[[int], None]) -> list[Outcome]:
        """Outcomes in the order of `calls`; `done` is called with the index of each call as it ends."""
        ...


class PrefectRunner:
    """Task runs under the current flow run, on a pool of Prefect's."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def run(self, task: Task[..., Any], calls: list[dict[str, Any]], done: Callable[[int], None]) -> list[Outcome]:
        """See `Runner`."""
        futures = [self._pool.submit(task, parameters=call) for call in calls]
        index = {future.task_run_id: i for i, future in enumerate(futures)}
        for future in as_completed(futures):
            done(index[future.task_run_id])
        return [future.result(raise_on_failure=False) for future in futures]


class WorkLeft(Exception):
    """Raised when a run that was to find everything done has work to do."""


class IdleRunner:
    """Runs nothing: to learn whether a mix is there already, without a server."""

    def run(self, task: Task[..., Any], calls: list[dict[str, Any]], done: Callable[[int], None]) -> list[Outcome]:
        """See `Runner`.

        Raises:
            WorkLeft: Always.
        """
        raise WorkLeft(task.name)


class PlainRunner:
    """The same task bodies without Prefect: for tests, and to measure what orchestration costs."""

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def run(self, task: Task[..., Any], calls: list[dict[str, Any]], done: Callable[[int], None]) -> list[Outcome]:
        """See `Runner`."""

        def call(item: tuple[int, dict[str, Any]]) -> Outcome:
            try:
                return task.fn(**item[1])
            except Exception as error:  # returned as the outcome, as a Prefect future does
                return error
            finally:
                done(item[0])

        with ThreadPoolExecutor(self._workers) as pool:
            return list(pool.map(call, enumerate(calls)))


@contextmanager
def prefect_runner(config: Any) -> Iterator[PrefectRunner]:
    """The runner that `config` (`configs.curate.Runner`) names; only inside a flow run."""
    pool: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=config.workers)
    with pool:
        yield PrefectRunner(pool)
