"""What every stage's task.py shares: the Prefect task with our options, and work shard by shard within a group."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from configs.storage import Storage
from storage import objects
from storage.shards import Shard
from storage.steps import Step
from storage.view import IMAGE, View
from tasks import Result


def stage_task(*, name: str, task_run_name: str) -> Callable[[Callable[..., Any]], Task[..., Any]]:
    """A Prefect task with our options; it takes one argument more, `storage`: the configuration's section.

    The store is the cache: Prefect's would hash inputs and cannot see whether outputs still exist.
    """

    def declare(body: Callable[..., Any]) -> Task[..., Any]:
        options: Any = {"cache_policy": NO_CACHE, "persist_result": False}
        return task(name=name, task_run_name=task_run_name, **options)(_reaching(body))

    return declare


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

    Raises:
        ItemsFailed: With every failed item and its error.
    """
    started, count, failed = time.perf_counter(), 0, []
    for item in items:
        try:
            work(item)
            count += 1
        except Exception as error:  # named in the ItemsFailed below: nothing is hidden
            told = objects.redacted(f"{type(error).__name__}: {error}")
            failed.append((_called(item), told))
    if failed:
        raise ItemsFailed(failed)
    return {"items": count, "seconds": time.perf_counter() - started}


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
