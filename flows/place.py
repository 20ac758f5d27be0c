"""A Prefect server and what goes with it on this machine: processes that are started, watched and ended together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen
from uuid import UUID

import psutil

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

CHECKOUT = Path(__file__).resolve().parents[1]
PRIVATE = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
PROMPT = {"PREFECT_CLI_PROMPT": "false", "PREFECT_WORKER_QUERY_SECONDS": "2", "PREFECT_RUNNER_POLL_FREQUENCY": "2"}
"""No question is asked, and who presses Run does not wait for the 10 s of a worker that polls a server far away."""


class ServingFailed(Exception):
    """Raised when a part does not start or ends by itself; its message is the one sentence that the user sees."""


@dataclass(frozen=True)
class Place:
    """Where the parts run: address of the API, folder of logs and database, further environment variables."""

    api: str
    home: Path
    env: Mapping[str, str]
    parts: dict[str, psutil.Popen] = field(default_factory=dict)

    def command(self, *arguments: str, module: str = "prefect", folder: Path = CHECKOUT) -> dict[str, Any]:
        """What `subprocess` takes to run `python -m MODULE ARGUMENTS` in `folder`."""
        here = {"PREFECT_API_URL": self.api, "PREFECT_HOME": str(self.home)}
        env = {**PRIVATE, **PROMPT, **os.environ, **self.env, **here}
        return {"args": [sys.executable, "-m", module, *arguments], "cwd": folder, "env": env}

    def log(self, part: str) -> Path:
        """The file that a part logs to."""
        return self.home / f"mixwright-{part}.log"

    def last_words(self, part: str) -> str:
        """The last line of the log of a part."""
        lines = [line.strip() for line in self.log(part).read_text(errors="replace").splitlines() if line.strip()]
        return f"{lines[-1][-200:] if lines else 'it said nothing'} (all of it: {self.log(part)})"

    @contextmanager
    def running(
        self, part: str, *arguments: str, module: str = "prefect", folder: Path = CHECKOUT
    ) -> Iterator[psutil.Popen]:
        """Run `python -m MODULE ARGUMENTS` as one of the parts; at the end it and what it started are gone."""
        self.home.mkdir(parents=True, exist_ok=True)
        with open(self.log(part), "wb") as log:
            # A session of its own: Ctrl-C in the terminal reaches us alone, and we stop the parts in their order.
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            command = self.command(*arguments, module=module, folder=folder)
            child = psutil.Popen(**command, **streams, start_new_session=True)
        self.parts[part] = child
        try:
            yield child
        finally:
            _end(child)

    def check(self) -> None:
        """Raise ServingFailed if a part has ended by itself."""
        for part, child in self.parts.items():
            if child.poll() is not None:
                how = f"was killed by signal {-child.returncode}" if (child.returncode or 0) < 0 else "ended by itself"
                raise ServingFailed(
                    f"the {part} {how}, so all was stopped; its last line: {self.last_words(part)}. Start again; a run "
                    "that stays Running with nobody at work is to be set to Crashed in the UI"
                )

    def wait(self) -> None:
        """Wait until a part ends by itself, which is a failure."""
        while True:
            self.check()
            time.sleep(0.5)

    @property
    def ui(self) -> str:
        """Address of the UI."""
        return self.api.removesuffix("/api")

    def run_page(self, deployment: UUID) -> str:
        """Address of the form that starts a run, in the UI that the server prefers."""
        with suppress(OSError, ValueError), urlopen(f"{self.ui}/ui-settings", timeout=5) as reply:
            base = (json.load(reply).get("v2_base_url") or "").rstrip("/")
            return f"{self.ui}{base}/deployments/deployment/{deployment}/run"
        return f"{self.ui}/deployments/deployment/{deployment}/run"


def _end(child: psutil.Popen, patience: float = 30) -> None:
    """End a part, and first what it started.

    A flow run that is asked to end reports itself as crashed. A worker that is asked first kills its runs unreported:
    they would be "Running" for ever and hold the one slot of the deployment.
    """
    runs: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        runs = [one for one in child.children() if not _is_tracker(one)]
    try:
        for group in (runs, [child]):
            for process in group:
                with suppress(psutil.NoSuchProcess):
                    process.terminate()
            psutil.wait_procs(group, timeout=patience)
    finally:  # a second Ctrl-C ends the wait
        for process in (*runs, child):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        child.wait()


def _is_tracker(process: psutil.Process) -> bool:
    """Whether it is Python's own helper beside spawned processes, which does not end before its parent."""
    with suppress(psutil.NoSuchProcess):
        return "multiprocessing.resource_tracker" in " ".join(process.cmdline())
    return False


def answers(api: str) -> bool:
    """Whether a healthy Prefect server is at the address `api`."""
    try:
        with urlopen(f"{api}/health", timeout=5) as reply:
            return bool(reply.read().strip() == b"true")
    except (OSError, HTTPException):
        return False


@contextmanager
def server(place: Place, port: int, patience: float = 120) -> Iterator[None]:
    """A healthy Prefect server on `port` of this machine, waited for `patience` seconds."""
    with place.running("server", "server", "start", "--host", "127.0.0.1", "--port", str(port)) as child:
        end = time.monotonic() + patience
        while not answers(place.api):
            if child.poll() is not None or time.monotonic() > end:
                raise ServingFailed(f"no Prefect server came up on port {port}: {place.last_words('server')}")
            time.sleep(0.2)
        yield


@contextmanager
def connected(port: int, home: Path, env: Mapping[str, str], api: str | None = None) -> Iterator[Place]:
    """A place with a server: the one that answers at `api` or on `port` is used, else one is started.

    Raises:
        ServingFailed: None answers at `api`, and one cannot be started there; or it does not come up.
    """
    local = f"http://127.0.0.1:{port}/api"
    found = next((one for one in (api, local) if one and answers(one)), None)
    if not found and api not in (None, local, local.replace("127.0.0.1", "localhost")):
        raise ServingFailed(f"no Prefect server answers at PREFECT_API_URL = {api}; start it, or unset the variable")
    place = Place(found or local, home, env)
    with ExitStack() as stack:
        if not found:
            stack.enter_context(server(place, port))
        yield place


@contextmanager
def asking(place: Place) -> Iterator[SyncPrefectClient]:
    """A client of the place's server, which is also the one that Prefect's own calls within the block go to."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: place.api}), get_client(sync_client=True) as client:
        yield client


def settle() -> None:
    """Settle this process before it imports Prefect, which else announces that it tracks.

    A closed terminal, or a service manager, then ends it as Ctrl-C does.
    """
    for name, value in PRIVATE.items():
        os.environ.setdefault(name, value)
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
