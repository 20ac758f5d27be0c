"""What every stage's task.py shares: the Prefect task with our options, and work shard by shard within a group."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from prefect import Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import MissingContextError

from configs.errors import MixwrightError, ModelError, RunFailed
from configs.storage import Storage
from storage import faults, objects
from storage.shards import Shard
from storage.steps import Step
from storage.view import IMAGE, View
from tasks import Result, stopping


def stage_task(*, name: str, task_run_name: str) -> Callable[[Callable[..., Any]], Task[..., Any]]:
    """A Prefect task with our options; it takes one argument more, `storage`: the configuration's section.

    The store is the cache: Prefect's would hash inputs and cannot see whether outputs still exist. What fails outside
    of `each` by an error of I/O that may pass is run again, the task as a whole.
    """

    def declare(body: Callable[..., Any]) -> Task[..., Any]:
        waits = [*faults.LOCAL_WAITS]
        options: Any = {"cache_policy": NO_CACHE, "persist_result": False}
        options |= {"retries": len(waits), "retry_delay_seconds": waits, "retry_condition_fn": _may_pass}
        return task(name=name, task_run_name=task_run_name, **options)(_reaching(body))

    return declare


def _may_pass(task: Task[..., Any], task_run: Any, state: Any) -> bool:
    """Whether a task run that failed is to be run again, as Prefect asks."""
    error = state.result(raise_on_failure=False)
    if task_run.run_count <= len(faults.waits(error)):
        return True
    if not isinstance(error, ItemsFailed | MixwrightError):  # the run ends with these, in a sentence
        # Of a task with retries Prefect logs no traceback when the condition says no.
        get_run_logger().error("Task run failed with exception: %r", error, exc_info=error)
    return False


def say(message: str) -> None:
    """Log a warning to the task run's log, or to Python's where there is none."""
    _logger().warning(message)


def tell(message: str) -> None:
    """Log how far long work is, to the task run's log, or to Python's where there is none."""
    _logger().info(message)


def _logger() -> Any:
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(__name__)


def _reaching(body: Callable[..., Any]) -> Callable[..., Any]:
    """`body`, which reaches object stores as `storage` says: secrets are read here, where the work is, and stay."""

    @wraps(body)
    def reached(*args: Any, storage: Storage | None = None, **kwargs: Any) -> Any:
        if storage is None:
            return body(*args, **kwargs)
        with objects.using(storage.options()):
            return body(*args, **kwargs)

    signature = inspect.signature(body)
    added = inspect.Parameter("storage", inspect.Parameter.KEYWORD_ONLY, default=None)
    reached.__signature__ = signature.replace(parameters=[*signature.parameters.values(), added])  # type: ignore[attr-defined]
    return reached


class ItemsFailed(Exception):
    """Raised when some items (shards, parts) of a group failed; the others are done and stay done."""

    def __init__(self, failed: list[tuple[str, str]]) -> None:
        super().__init__(failed)
        self.failed = failed

    def __str__(self) -> str:
        first, why = self.failed[0]
        return f"{len(self.failed)} failed, first {first}: {why}"


def each(items: Iterable[Any], work: Callable[[Any], Any]) -> dict[str, Any]:
    """Call `work` on every item; one that fails does not stop the others, and is told at the end.

    Items that fail by an error of I/O that may pass are tried again after the others, after `faults.waits` of it.

    Returns:
        Number of items, of further tries, and seconds.

    Raises:
        ItemsFailed: With every failed item and its error.
        RunFailed: As `work` raised it, at once: what stops one item (a full disk) stops all. So does a ModelError, and
            who tells the run to end.
    """
    started, count, retries, tries = time.perf_counter(), 0, 0, 1
    failed: list[tuple[str, str]] = []
    left = list(items)
    while left:
        again, wait = [], 0.0
        for item in left:
            stopping.check()
            try:
                work(item)
                count += 1
            except (RunFailed, ModelError):
                raise
            except Exception as error:  # named in the ItemsFailed below: nothing is hidden
                told, waits = _told(error), faults.waits(error)
                if tries > len(waits):
                    failed.append((_called(item), f"{told} (tried {tries} times)" if tries > 1 else told))
                    continue
                again.append(item)
                wait = max(wait, waits[tries - 1])
                say(f"{_called(item)}: {told}; it is tried again in {waits[tries - 1]:g} s (try {tries + 1})")
        left, tries, retries = again, tries + 1, retries + len(again)
        time.sleep(wait)
    if failed:
        raise ItemsFailed(failed)
    return {"items": count, "retries": retries, "seconds": time.perf_counter() - started}


def _told(error: Exception) -> str:
    return objects.redacted(f"{type(error).__name__}: {error}")


def _called(item: Any) -> str:
    """What people know an item by: a shard by its file, a block of shards or a part by its number or name."""
    pieces = item if isinstance(item, tuple) else (item,)
    return next((piece.file for piece in pieces if hasattr(piece, "file")), str(pieces[0]))


def annotate_shard(step: Step, view: View, method: Any, shard: Shard) -> None:
    """Run a per-shard method (embed, annotate, score) on one shard and publish its sidecar."""
    started = time.perf_counter()
    streamed = IMAGE in method.needs
    result: Result = method.run(view.stream(shard, method.needs) if streamed else view.table(shard, method.needs))
    if result.table.num_rows != shard.rows:
        raise RuntimeError(
            f"{step.stage} {step.kind} returned {result.table.num_rows} rows for {shard.file}, which has {shard.rows}"
        )
    step.publish(shard.digest, result.table, list(result.failures), time.perf_counter() - started)
