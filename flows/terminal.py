"""What the commands share: the terminal, common options, refusals told without a traceback."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer
from rich.console import Console

from tasks import stopping

out = Console(width=None if sys.stdout.isatty() else 200)  # what is piped is searched: names stay whole
err = Console(stderr=True)

INTERRUPTED = 130
"""Exit code of a run that Ctrl-C has ended, as shells have it."""

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # 20 are too few for a busy machine
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",  # a temporary server's words on its own end help nobody
}
"""Settings of Prefect for runs from the command line, unless the user has others."""

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one setting: `--set sample.batch_size=64`. Repeat it for more."),
]

MixFolder = Annotated[str, typer.Argument(help="A mix: its version folder, or the folder with latest.json.")]

Reach = Annotated[
    Path | None, typer.Option("--config", help="Configuration whose `storage` section tells how MIX is reached.")
]


@contextmanager
def reached_by(config: Path | None) -> Iterator[None]:
    """Within the block, object stores are reached as the configuration at `config` says."""
    if config is None:
        yield
        return
    from configs import loading
    from storage import objects

    with objects.using(loading.validate(loading.read(config)).storage.options()):
        yield


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn refusals into a red line, with the way out below, and exit code 2: no traceback for what a user can mend."""
    try:
        yield
    except (ValueError, OSError) as error:
        err.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        if remedy := getattr(error, "remedy", ""):
            err.print(f"{type(error).__name__}: {remedy}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


@contextmanager
def states_untold() -> Iterator[None]:
    """Keep Prefect from telling the state of each task: the flow tells the progress, and at last what failed.

    What tasks themselves say (a retry, a wait for the GPU) is shown.
    """
    logger = logging.getLogger("prefect.task_runs")

    def ours(record: logging.LogRecord) -> bool:
        return record.module != "task_engine"

    logger.addFilter(ours)
    try:
        yield
    finally:
        logger.removeFilter(ours)


def quieten() -> None:
    """Settle Prefect for a run from the command line, before it is imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block the first Ctrl-C lets what is at work come to a halt, and the run say how it ended.

    The second ends at once. A server that is started within the block does not hear of it: else the run could tell
    nobody how it ended.
    """
    from prefect.server.api import server

    def halt(number: int, frame: Any) -> None:
        err.print("stopping: what is finished stays; once more ends at once", highlight=False)
        stopping.stop()
        signal.signal(signal.SIGINT, before)

    stopping.go_on()
    popen = partial(subprocess.Popen, start_new_session=True)
    own: Any = SimpleNamespace(**{**vars(subprocess), "Popen": popen})
    whole, server.subprocess = server.subprocess, own
    before = signal.signal(signal.SIGINT, halt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        server.subprocess = whole


def exit_unless_completed(state: Any) -> None:
    """Show why a flow run has not completed, and end with exit code 1, or 130 if it was interrupted."""
    if not state.is_completed():
        code = INTERRUPTED if stopping.is_told() else 1
        err.print(state.message or str(state.name), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(code)
