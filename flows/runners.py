"""Where tasks run: under Prefect on threads or on a cluster, or plainly in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import islice
from queue import SimpleQueue
from typing import Any, Protocol

from prefect import Task
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import opaque

from configs.errors import RunFailed
from configs.runner import Runner as Settings
from tasks import stopping
from tasks.groups import ItemsFailed

Outcome = Any
"""What a task returned, or the exception that ended it."""


def failures(outcomes: Iterable[Outcome]) -> list[tuple[str, str]]:
    """The items that failed in some groups, each with why; any other error of a group is raised."""
    failed: list[tuple[str, str]] = []
    for outcome in outcomes:
        if isinstance(outcome, ItemsFailed):
            failed += outcome.failed
        elif isinstance(outcome, BaseException):
            raise outcome
    return failed


class Runner(Protocol):
    """Runs one task on many sets of arguments."""

    def run(self, task: Task[..., Any], calls: list[dict[str, Any]], done: Callable[[int], None]) -> list[Outcome]:
        """Outcomes in the order of `calls`; `done` is called with the index of each call as it ends."""
        ...


@contextmanager
def ending() -> Iterator[None]:
    """A signal that ends the block (Ctrl-C, a cancellation) is told to the tasks at work: the pool waits for them."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception):
            stopping.stop()
        raise


class PrefectRunner:
    """Task runs under the current flow run, on a pool of Prefect's, at most `most` of them at once."""

    def __init__(self, pool: Any, most: int) -> None:
        self._pool, self._most = pool, most

    def run(self, task: Task[..., Any], calls: list[dict[str, Any]], done: Callable[[int], None]) -> list[Outcome]:
        """See `Runner`.

        Not more is submitted than may run: what waits for its turn would run on in a cluster whose flow has ended.
        """
        outcomes: list[Outcome] = [None] * len(calls)
        ended: SimpleQueue[Any] = SimpleQueue()
        index: dict[Any, int] = {}
        waiting = iter(enumerate(calls))

        def submit(count: int) -> None:
            for number, call in islice(waiting, count):
                future = self._submit(task, call)
                index[future.task_run_id] = number
                future.add_done_callback(ended.put)

        with ending():
            submit(self._most)
            for _ in calls:
                future = ended.get()
                number = index[future.task_run_id]
                outcomes[number] = self._outcome(future)
                submit(1)
                done(number)
        return outcomes

    def _submit(self, task: Task[..., Any], call: dict[str, Any]) -> Any:
        # Prefect would look for futures in every field of every shard: 40 s a task for 100,000 of them.
        hidden = {name: opaque(value) if isinstance(value, list) else value for name, value in call.items()}
        return self._pool.submit(task, parameters=hidden)

    def _outcome(self, future: Any) -> Outcome:
        return future.result(raise_on_failure=False)


class ClusterRunner(PrefectRunner):
    """The same on the workers of a Ray or Dask cluster, which `start` makes ready when there is something to do."""

    def __init__(self, start: Callable[[], Any], config: Settings) -> None:
        super().__init__(None, config.workers)
        self._start, self._config = start, config

    def _submit(self, task: Task[..., Any], call: dict[str, Any]) -> Any:
        from flows import clusters

        self._pool = self._pool or self._start()
        pinned = {name: clusters.pinned(value) for name, value in call.items()}
        with clusters.asking(self._config, pinned):
            # Not hidden: on its way to another process Prefect's `opaque` turns a list into a list of that list.
            return self._pool.submit(task, parameters=pinned)

    def _outcome(self, future: Any) -> Outcome:
        """The outcome; a worker that is gone for good is an error in one sentence, not one of Ray's or Dask's."""
        from flows import clusters

        gone = clusters.lost(self._config)
        try:
            outcome = super()._outcome(future)
        except gone as error:
            outcome = error
        if not isinstance(outcome, gone):
            return outcome
        why = f"{type(outcome).__name__}: {str(outcome).strip().splitlines()[0]}"
        return RunFailed(
            f"a worker of the {self._config.kind} cluster was lost at its work ({why}); rerun, what is done stays done"
        )


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
def prefect_runner(config: Settings) -> Iterator[PrefectRunner]:
    """The runner that `config` names; only inside a flow run."""
    stopping.go_on()  # of a run that was interrupted in this process before
    if config.kind == "threads":
        pool: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=config.workers)
        with pool:
            yield PrefectRunner(pool, config.workers)
        return
    from flows import clusters

    with ExitStack() as stack:
        yield ClusterRunner(lambda: stack.enter_context(clusters.cluster(config)), config)
