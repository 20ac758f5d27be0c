"""`make ui`: a Prefect server, the deployment of prefect.yaml and a worker on this machine, until Ctrl-C."""

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
from typing import Annotated, Any
from urllib.request import urlopen
from uuid import UUID

import psutil
import typer
from rich.console import Console

CHECKOUT = Path(__file__).resolve().parents[1]
MANIFEST = CHECKOUT / "prefect.yaml"
POOL = "mixwright"
PRIVATE = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


class ServingFailed(Exception):
    """Raised when a part does not start or ends by itself; its message is the one sentence that the user sees."""


@dataclass(frozen=True)
class Place:
    """Where the parts run: address of the API, folder of logs and database, further environment variables."""

    api: str
    home: Path
    env: Mapping[str, str]
    parts: dict[str, psutil.Popen] = field(default_factory=dict)

    def command(self, *arguments: str) -> dict[str, Any]:
        """What `subprocess` takes to run `prefect ARGUMENTS` here."""
        env = {**PRIVATE, **os.environ, **self.env, "PREFECT_API_URL": self.api, "PREFECT_HOME": str(self.home)}
        return {"args": [sys.executable, "-m", "prefect", "--no-prompt", *arguments], "cwd": CHECKOUT, "env": env}

    def log(self, part: str) -> Path:
        """The file that a part logs to."""
        return self.home / f"mixwright-{part}.log"

    def last_words(self, part: str) -> str:
        """How the log of a part ends, in one line."""
        return f"{' '.join(self.log(part).read_text(errors='replace').split())[-120:]} (all of it: {self.log(part)})"

    @contextmanager
    def running(self, part: str, *arguments: str) -> Iterator[psutil.Popen]:
        """Run `prefect ARGUMENTS` as one of the parts; at the end it and what it started are gone."""
        self.home.mkdir(parents=True, exist_ok=True)
        with open(self.log(part), "wb") as log:
            # A session of its own: Ctrl-C in the terminal reaches us alone, and we stop the parts in their order.
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            child = psutil.Popen(**self.command(*arguments), **streams, start_new_session=True)
        self.parts[part] = child
        try:
            yield child
        finally:
            _end(child)

    def wait(self) -> None:
        """Wait until a part ends by itself, which is a failure."""
        while True:
            for part, child in self.parts.items():
                if child.poll() is not None:
                    raise ServingFailed(f"the {part} ended by itself: {self.last_words(part)}")
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
        runs = child.children()
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


def deploy(place: Place, manifest: Path = MANIFEST) -> UUID:
    """Deploy `manifest`; return the id of its `curate`, which keeps the schedules that people gave it in the UI.

    `prefect deploy` deletes those, and switches off what someone switched on there: at night nothing would run.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: place.api}), get_client(sync_client=True) as client:
        try:
            before = client.read_deployment_by_name("curate/curate").schedules
        except ObjectNotFound:
            before = []
        if not any(pool.name == POOL for pool in client.read_work_pools()):
            _prefect(place, "work-pool", "create", POOL, "--type", "process")
        _prefect(place, "deploy", "--all", "--prefect-file", str(manifest))
        found = client.read_deployment_by_name("curate/curate")
        for old in before:
            new = next((one for one in found.schedules if one.slug == old.slug), None)
            if new is None:
                values = old.model_dump(include=set(DeploymentScheduleCreate.model_fields))
                client.create_deployment_schedules(found.id, [DeploymentScheduleCreate(**values)])
            elif old.active and not new.active:
                client.update_deployment_schedule(found.id, new.id, active=True)
    return found.id


def _prefect(place: Place, *arguments: str) -> None:
    done = subprocess.run(**place.command(*arguments), capture_output=True, text=True)
    if done.returncode:
        raise ServingFailed(f"`prefect {' '.join(arguments)}` failed: {(done.stdout + done.stderr).strip()}")


@contextmanager
def serving(
    port: int, home: Path, env: Mapping[str, str], api: str | None = None, manifest: Path = MANIFEST
) -> Iterator[tuple[Place, UUID]]:
    """Server, deployment and worker: a server that answers at `api` or on `port` is used, else one is started."""
    local = f"http://127.0.0.1:{port}/api"
    found = next((one for one in (api, local) if one and answers(one)), None)
    if not found and api not in (None, local, local.replace("127.0.0.1", "localhost")):
        raise ServingFailed(f"no Prefect server answers at PREFECT_API_URL = {api}; start it, or unset the variable")
    place = Place(found or local, home, env)
    with ExitStack() as stack:
        if not found:
            stack.enter_context(server(place, port))
        deployment = deploy(place, manifest)
        stack.enter_context(place.running("worker", "worker", "start", "--pool", POOL, "--type", "process"))
        yield place, deployment


def main(port: Annotated[int, typer.Option(help="Port of a server started here.")] = 4200) -> None:
    """Serve the UI until Ctrl-C."""
    for name, value in PRIVATE.items():  # before Prefect is imported, which announces that it tracks
        os.environ.setdefault(name, value)
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME

    out = Console(soft_wrap=True, highlight=False, markup=False)
    for ending in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal ends us as Ctrl-C does
        signal.signal(ending, signal.default_int_handler)
    try:
        with serving(port, PREFECT_HOME.value(), {}, PREFECT_API_URL.value()) as (place, deployment):
            out.print(f"The UI is at {place.ui}; start a run at {place.run_page(deployment)}; Ctrl-C stops it all.")
            place.wait()
    except ServingFailed as error:
        out.print(str(error), style="red")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        out.print("Stopped.")


if __name__ == "__main__":
    typer.run(main)
