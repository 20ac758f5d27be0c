"""`mixwright serve`: one configuration as a deployment, its runs started from this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import yaml

from configs.curate import Curate
from configs.errors import ConfigError
from flows.place import Place, answers, asking, connected
from storage import files

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

SLUG = "serve"
"""Of the schedule that `--cron` gives; others, made in the UI, are left alone."""


@dataclass(frozen=True)
class Service:
    """What is served: a configuration, and when it runs by itself."""

    config: Curate
    cron: str = ""
    timezone: str = "UTC"
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the deployment: beside `curate` of prefect.yaml, whatever the mix is called."""
        return f"{self.config.name}-served"

    @property
    def parameters(self) -> dict[str, Any]:
        """The configuration as the form of `curate` takes it: name and seed can be changed in their fields.

        Everything else stands in `overrides`, which win over fields. Local paths are absolute; a path of Hugging Face
        where nothing stands is the name of a data set.
        """
        values = self.config.model_dump(mode="json")
        values["store"], values["emit"]["out"] = files.absolute(values["store"]), files.absolute(values["emit"]["out"])
        inputs = values["input"]
        for one in inputs if isinstance(inputs, list) else [inputs]:
            if one["kind"] != "huggingface" or os.path.exists(one["path"]):
                one["path"] = files.absolute(one["path"])
        fields = {"name": values.pop("name"), "seed": values.pop("seed")}
        return {"preset": "plain", **fields, "overrides": yaml.safe_dump(values, sort_keys=False)}

    def next_run(self) -> datetime | None:
        """When the schedule comes next; None without one.

        Raises:
            ConfigError: `--cron` or `--timezone` is not what it should be.
        """
        if not self.cron:
            return None
        from prefect.server.schemas.schedules import CronSchedule

        try:
            found = asyncio.run(CronSchedule(cron=self.cron, timezone=self.timezone).get_dates(1))
        except ValueError as error:
            if "imezone" in str(error):
                told = f"`--timezone {self.timezone}` is no time zone; write for example Europe/Berlin or UTC"
            else:
                told = f"`--cron {self.cron!r}` never comes; write for example '0 2 * * *' for every night at two"
            raise ConfigError(told) from None
        return found[0]


@contextmanager
def serving(service: Service, port: int, home: Path, api: str | None = None) -> Iterator[tuple[Place, UUID]]:
    """Server, deployment, and the process that starts its runs; the deployment is paused when the block ends.

    Raises:
        ServingFailed: A part did not start.
    """
    with connected(port, home, service.env, api) as place:
        deployment = register(place, service)
        try:
            # Runs are in this folder, as those of `mixwright curate` are: what else is relative means the same.
            with (
                _noted(place.home, {"name": service.name, "parameters": service.parameters}) as told,
                place.running("serve", told, module="flows.serve", folder=Path.cwd()),
            ):
                yield place, deployment
        finally:
            if answers(place.api):
                with asking(place) as client:
                    client.pause_deployment(deployment)


@contextmanager
def _noted(home: Path, facts: dict[str, Any]) -> Iterator[str]:
    """Name of a file in `home` that holds `facts` until the block ends: a long configuration is too long to be an
    argument of a process, which everybody on the machine could read besides.
    """
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=home, prefix="mixwright-serve-", suffix=".json") as file:  # mode 0600
        json.dump(facts, file)
        file.flush()
        yield file.name


def register(place: Place, service: Service) -> UUID:
    """Make the deployment, or bring an older one up to date; returns its id."""
    with asking(place) as client:
        deployment = deployed(service.name, service.parameters).apply()
        _schedule(client, deployment, service)
    return UUID(str(deployment))


def deployed(name: str, parameters: dict[str, Any]) -> Any:
    """The deployment of `curate` under that name, with these defaults in its form; one run at a time, others wait."""
    from prefect.flows import EntrypointType

    from flows.curate import curate

    deployment: Any = curate.to_deployment(
        name,
        parameters=parameters,
        paused=False,
        concurrency_limit=1,
        description="Served by `mixwright serve`. Press Run; what `overrides` say wins over the fields above them.",
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    deployment.model_fields_set.discard("schedules")  # sent, the empty list deletes those that people made in the UI
    return deployment


def _schedule(client: SyncPrefectClient, deployment: UUID, service: Service) -> None:
    """Give the deployment the schedule of `--cron`, or take it away where there is none any more."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    for one in client.read_deployment(deployment).schedules:
        if one.slug == SLUG:
            client.delete_deployment_schedule(deployment, one.id)
    if service.cron:
        cron = CronSchedule(cron=service.cron, timezone=service.timezone)
        given = DeploymentScheduleCreate(schedule=cron, active=True, slug=SLUG)
        client.create_deployment_schedules(deployment, [given])


def serve_until_stopped(service: Service, port: int, run_now: bool, tell: Callable[[str], None]) -> None:
    """Serve until Ctrl-C, and tell where it is pressed and when it runs next.

    Raises:
        ServingFailed: A part did not start, or ended by itself.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME

    try:
        with serving(service, port, PREFECT_HOME.value(), PREFECT_API_URL.value()) as (place, deployment):
            if run_now:
                press(place, deployment)
            comes = service.next_run()
            tell(f"The UI is at {place.ui}; press Run at {place.run_page(deployment)}")
            tell(f"or type: PREFECT_API_URL={place.api} prefect deployment run 'curate/{service.name}'")
            tell(
                f"It runs by itself, next on {comes:%A, %Y-%m-%d at %H:%M} ({service.timezone})."
                if comes
                else "It runs when it is pressed; with --cron '0 2 * * *' it runs every night at two as well."
            )
            tell(f"Runs are logged in the UI and in {place.log('serve')}; Ctrl-C stops it all.")
            place.wait()
    except KeyboardInterrupt:
        tell("Stopped; the deployment is paused until it is served again.")


def press(place: Place, deployment: UUID) -> None:
    """Start a run now."""
    with asking(place) as client:
        client.create_flow_run_from_deployment(deployment)


def main(told: Path) -> None:
    """Start the runs of the deployment that the file `told` tells of, as they fall due, until SIGTERM."""
    from prefect.runner import Runner

    facts = json.loads(told.read_text())
    # Who started us pauses the deployment: a runner that has just lost a run ends before it is through with that.
    runner = Runner(name=facts["name"], pause_on_shutdown=False)
    runner.add_deployment(deployed(**facts))
    asyncio.run(runner.start())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
