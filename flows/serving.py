"""`make ui`: a Prefect server, the deployments of prefect.yaml and a worker on this machine, until Ctrl-C."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
import yaml
from rich.console import Console

from flows.place import CHECKOUT, Place, ServingFailed, asking, connected, settle

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import DeploymentSchedule

MANIFEST = CHECKOUT / "prefect.yaml"
POOL = "mixwright"


def deploy(place: Place, manifest: Path = MANIFEST) -> UUID:
    """Deploy `manifest`, whose deployments are called as their flows; return the id of its `curate`.

    Each keeps the schedules that people gave it in the UI: `prefect deploy` deletes those, and switches off what
    someone switched on there, and at night nothing would run.
    """
    names = [one["name"] for one in yaml.safe_load(manifest.read_text(encoding="utf-8"))["deployments"]]
    with asking(place) as client:
        before = {name: _schedules(client, name) for name in names}
        if not any(pool.name == POOL for pool in client.read_work_pools()):
            _prefect(place, "work-pool", "create", POOL, "--type", "process")
        _prefect(place, "deploy", "--all", "--prefect-file", str(manifest))
        for name, schedules in before.items():
            _restore(client, name, schedules)
        return client.read_deployment_by_name("curate/curate").id


def _schedules(client: SyncPrefectClient, name: str) -> list[DeploymentSchedule]:
    """The schedules of a deployment as they stand; none where it is new."""
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_deployment_by_name(f"{name}/{name}").schedules
    except ObjectNotFound:
        return []


def _restore(client: SyncPrefectClient, name: str, before: list[DeploymentSchedule]) -> None:
    """Give a deployment back the schedules that it had `before` it was deployed again."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate

    found = client.read_deployment_by_name(f"{name}/{name}")
    for old in before:
        new = next((one for one in found.schedules if one.slug == old.slug), None)
        if new is None:
            values = old.model_dump(include=set(DeploymentScheduleCreate.model_fields))
            client.create_deployment_schedules(found.id, [DeploymentScheduleCreate(**values)])
        elif old.active and not new.active:
            client.update_deployment_schedule(found.id, new.id, active=True)


def _prefect(place: Place, *arguments: str) -> None:
    done = subprocess.run(**place.command(*arguments), capture_output=True, text=True)
    if done.returncode:
        raise ServingFailed(f"`prefect {' '.join(arguments)}` failed: {(done.stdout + done.stderr).strip()}")


@contextmanager
def serving(
    port: int, home: Path, env: Mapping[str, str], api: str | None = None, manifest: Path = MANIFEST
) -> Iterator[tuple[Place, UUID]]:
    """Server, deployments and worker: a server that answers at `api` or on `port` is used, else one is started."""
    with connected(port, home, env, api) as place:
        deployment = deploy(place, manifest)
        with place.running("worker", "worker", "start", "--pool", POOL, "--type", "process"):
            yield place, deployment


def main(port: Annotated[int, typer.Option(help="Port of a server started here.")] = 4200) -> None:
    """Serve the UI until Ctrl-C."""
    settle()
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME

    out = Console(soft_wrap=True, highlight=False, markup=False)
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
