"""What people see of a run while it goes on: one progress artifact a stage, and events that automations listen to."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast
from uuid import UUID

from prefect.states import Failed, State

PUBLISHED = "mixwright.mix.published"
WARNING = "mixwright.warning"
"""Event of a warning is this, a dot, and its kind: `mixwright.warning.repeats`."""
EVERY_SECONDS = 2.0
"""Between two updates of one artifact: each is a call of the API, 14 ms."""


class Watch(Protocol):
    """Who looks on."""

    def progress(self, stage: str, step: str, done: int, total: int) -> None:
        """So many of the tasks of one step of a stage have ended; `total` 0: the stage is over."""
        ...

    def event(self, name: str, payload: dict[str, Any]) -> None:
        """Something happened that others may act upon."""
        ...

    def warn(self, text: str, log: Callable[[str], None]) -> None:
        """Log a warning; `log` is where the run's other lines go."""
        ...


class Unwatched:
    """Nobody looks on: plain runs, tests."""

    def progress(self, stage: str, step: str, done: int, total: int) -> None:
        """See `Watch`."""

    def event(self, name: str, payload: dict[str, Any]) -> None:
        """See `Watch`."""

    def warn(self, text: str, log: Callable[[str], None]) -> None:
        """See `Watch`."""
        log(text)


class PrefectWatch:
    """Progress artifacts and events of the current flow run, under the name of a mix."""

    def __init__(self, name: str, log: Callable[[str], None]) -> None:
        self._name, self._log = name, log
        self._artifacts: dict[str, UUID] = {}
        self._told: dict[str, float] = {}

    def progress(self, stage: str, step: str, done: int, total: int) -> None:
        """See `Watch`. The bar is that of the stage's current step; at the end of the stage it is full."""
        now = time.monotonic()
        if total and stage in self._artifacts and done < total and now - self._told[stage] < EVERY_SECONDS:
            return
        self._told[stage] = now
        percent = 100.0 * done / total if total else 100.0
        words = f"{self._name}, {stage}: " + (f"{step}, {done} of {total} tasks" if total else "done")
        with shown(words, self._log):
            self._draw(stage, percent, words, bool(total))

    def _draw(self, stage: str, percent: float, words: str, going: bool) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        if stage in self._artifacts:
            update_progress_artifact(self._artifacts[stage], percent, words)
        elif going:  # a stage that finds everything done shows no bar
            made = create_progress_artifact(percent, f"progress-{slug(stage)}", words)
            self._artifacts[stage] = cast(UUID, made)  # a coroutine in async flows alone

    def event(self, name: str, payload: dict[str, Any]) -> None:
        """See `Watch`. The resource is the mix: `mixwright.mix.<name>`."""
        from prefect.events import emit_event

        resource = {"prefect.resource.id": f"mixwright.mix.{self._name}", "prefect.resource.name": self._name}
        emit_event(name, resource, payload=payload)

    def warn(self, text: str, log: Callable[[str], None]) -> None:
        """See `Watch`. In the log of the flow run it stands out."""
        from prefect import get_run_logger

        get_run_logger().warning(text)


@contextmanager
def shown(what: str, log: Callable[[str], None]) -> Iterator[None]:
    """Show something in the UI; a server that cannot take it is told in the log, and is no reason for a run to fail."""
    from httpx import HTTPError
    from prefect.exceptions import PrefectException

    try:
        yield
    except (HTTPError, PrefectException) as error:
        log(f"the Prefect server could not show {what!r}: {type(error).__name__}: {error}")


def refused(error: Exception, log: Callable[[str], None]) -> State:
    """How a flow ends that was refused or failed in a way that people can mend; the way out stands in the log."""
    if remedy := getattr(error, "remedy", ""):
        log(f"{type(error).__name__}: {remedy}")
    return Failed(message=str(error))


def slug(name: str) -> str:
    """A name as keys of artifacts may be: `select/near_duplicates` is `select-near-duplicates`."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
