"""The main flow: what the Prefect UI, schedules and the command line run."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, State
from pydantic import Field

from configs import loading
from configs.curate import NAME, Curate, Preset
from configs.errors import RunFailed
from flows.pipeline import Mix
from flows.pipeline import curate as curate_plainly
from flows.reaching import reaching
from flows.runners import prefect_runner
from flows.watching import PrefectWatch, refused, shown
from tasks.report.markdown import funnel
from tasks.report.pages import facts, plots

NO_LOGIN = r"^(([^:@/]+::)*[^:@/]+://[^/@]*|[^:@/]*)(/.*)?$"
"""No user and password in a URL: what the form's schema refuses makes no run that would keep it.

In the schema alone: where pydantic refuses a parameter, Prefect logs it.
"""


def run_name() -> str:
    """What the run does, for lists of runs: `curate-openmoji`."""
    parameters = flow_run.parameters
    overrides = loading.parse(parameters.get("overrides") or "", "`overrides`")
    preset = parameters.get("preset", "demo")
    return f"curate-{overrides.get('name') or parameters.get('name') or loading.preset(preset).get('name') or preset}"


def resolve(
    preset: str,
    input: str = "",
    name: str = "",
    budget: int = 0,
    batch_size: int = 0,
    seed: int = 0,
    workers: int = 0,
    overrides: str = "",
) -> Curate:
    """The configuration that a filled-in form means: preset, then fields, then overrides."""
    fields: dict[str, Any] = {
        "name": name or None,
        "seed": seed or None,
        "input": {"path": input} if input else None,
        "mix": {"budget": budget} if budget else None,
        "sample": {"batch_size": batch_size} if batch_size else None,
        "runner": {"workers": workers} if workers else None,
    }
    given = {key: value for key, value in fields.items() if value is not None}
    return loading.validate(
        loading.merged(loading.merged(loading.preset(preset), given), loading.parse(overrides, "`overrides`"))
    )


@flow(name="curate", flow_run_name=run_name, validate_parameters=True)
def curate(
    preset: Preset = "demo",
    input: Annotated[str, Field(json_schema_extra={"pattern": NO_LOGIN})] = "",
    name: Annotated[str, Field(pattern=f"({NAME})|^$")] = "",
    budget: Annotated[int, Field(ge=0)] = 0,
    batch_size: Annotated[int, Field(ge=0)] = 0,
    seed: Annotated[int, Field(ge=0)] = 0,
    workers: Annotated[int, Field(ge=0, le=512)] = 0,
    overrides: str = "",
) -> State:
    """Curate raw Parquet shards into a training mix. Fields that are empty or 0 keep the preset's values.

    Args:
        preset: Where to start: `demo` makes and curates 4,050 emoji; the others expect `input`.
        input: Folder, glob or URL of the raw Parquet shards.
        name: Name of the mix; its versions stand side by side in one folder of that name.
        budget: Rows to emit. 0, if the preset says nothing else: every surviving row is drawn once.
        batch_size: Rows of one training batch.
        seed: Seed of every random choice.
        workers: Tasks in flight.
        overrides: Any other setting, as YAML laid over the preset, for example `select: []`.
    """
    logger = get_run_logger()
    try:
        config = resolve(preset, input, name, budget, batch_size, seed, workers, overrides)
        if preset == "demo" and not input:
            make_demo_input(config, logger)
        watch = PrefectWatch(config.name, logger.info)
        with prefect_runner(config.runner) as runner:
            mix = curate_plainly(config, runner, logger.info, watch)
    except (RunFailed, ValueError, OSError) as error:
        return refused(error, logger.info)
    if mix.card:
        with shown(f"the card of {config.name}", logger.info):
            _make_artifacts(config, mix)
    return Completed(message=mix.message, data=mix.url) if mix.emitted else Failed(message=mix.message)


@reaching
def _make_artifacts(config: Curate, mix: Mix) -> None:
    card = f"{mix.card}\n{plots(mix.url)}"
    create_markdown_artifact(key="mix-card", markdown=card, description=f"{config.name}: what the run did")
    lines = funnel(facts(mix.url))
    create_table_artifact(key="mix-funnel", table=lines, description=f"{config.name}: rows stage by stage")


@reaching
def make_demo_input(config: Curate, logger: logging.Logger | logging.LoggerAdapter[Any]) -> None:
    from flows.openmoji import write_openmoji

    folder = config.inputs[0].path
    written = write_openmoji(folder)
    logger.info("demo input: %d shards of OpenMoji pictures in %s", len(written), folder)
