"""The flow that embeds ahead of a curation, so that the hours of the GPU are spent before the night's mix."""

from __future__ import annotations

from typing import Annotated

from prefect import flow, get_run_logger
from prefect.states import Completed, State
from pydantic import Field

from configs.curate import NAME, Preset
from configs.errors import RunFailed
from flows import curate as curating
from flows.curate import NO_LOGIN, resolve
from flows.pipeline import embed as embed_plainly
from flows.runners import prefect_runner
from flows.watching import PrefectWatch, refused


def run_name() -> str:
    """What the run does, for lists of runs: `embed-openmoji`."""
    return f"embed-{curating.run_name().removeprefix('curate-')}"


@flow(name="embed", flow_run_name=run_name, validate_parameters=True)
def embed(
    preset: Preset = "demo",
    input: Annotated[str, Field(json_schema_extra={"pattern": NO_LOGIN})] = "",
    name: Annotated[str, Field(pattern=f"({NAME})|^$")] = "",
    workers: Annotated[int, Field(ge=0, le=512)] = 0,
    overrides: str = "",
) -> State:
    """Take in and embed new shards, nothing else. A curation with the same settings and store finds it done.

    Args:
        preset: Where to start, as in `curate`: `demo` makes its own input; the others expect `input`.
        input: Folder, glob or URL of the raw Parquet shards.
        name: Name of the mix that this is done for; it only names the run.
        workers: Tasks in flight.
        overrides: Any other setting, as YAML laid over the preset: those of the curation to come.
    """
    logger = get_run_logger()
    try:
        config = resolve(preset, input, name, workers=workers, overrides=overrides)
        if preset == "demo" and not input:
            curating.make_demo_input(config, logger)
        with prefect_runner(config.runner) as runner:
            return Completed(message=embed_plainly(config, runner, logger.info, PrefectWatch(config.name, logger.info)))
    except (RunFailed, ValueError, OSError) as error:
        return refused(error, logger.info)
