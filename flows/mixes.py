"""Flows that look after a mix that is there: its report drawn again, its files verified."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger
from prefect.states import Completed, Failed, State
from pydantic import Field

from configs import loading
from configs.credentials import masked
from configs.curate import Report
from flows.curate import NO_LOGIN
from flows.reporting import redraw
from flows.terminal import reached_by
from flows.watching import refused
from storage import files, manifests

MixUrl = Annotated[str, Field(min_length=1, json_schema_extra={"pattern": NO_LOGIN})]
"""A mix in a form: left empty, or with a login in it, it is refused before there is a run."""


@flow(name="report", flow_run_name="report-{mix}", validate_parameters=True)
def report(mix: MixUrl, overrides: str = "", config: str = "") -> State:
    """Draw the report of a mix again from its own facts: after an update, or where it was moved.

    Args:
        mix: The mix: its version folder, or the folder with `latest.json`.
        overrides: Settings of the report as YAML, for example `top_concepts: 20`; less than was gathered, never more.
        config: Configuration file whose `storage` section tells how the mix is reached; empty for local folders.
    """
    try:
        given = loading.checked(Report, loading.parse(overrides, "`overrides`"))
        with reached_by(Path(config) if config else None):
            drawn = redraw(mix, given.model_dump(exclude_unset=True))
    except (ValueError, OSError) as error:
        return refused(error, get_run_logger().info)
    return Completed(message=files.absolute(drawn), data=files.absolute(drawn))


@flow(name="verify", flow_run_name="verify-{mix}", validate_parameters=True)
def verify(mix: MixUrl, config: str = "") -> State:
    """Hash the files of a mix again and add up its ledger. The run fails with the first discrepancy.

    Args:
        mix: The mix: its version folder, or the folder with `latest.json`.
        config: Configuration file whose `storage` section tells how the mix is reached; empty for local folders.
    """
    logger = get_run_logger()
    try:
        with reached_by(Path(config) if config else None):
            folder = manifests.resolve(mix)  # once: a newer mix may be published meanwhile
            facts = manifests.read(folder)
            size = sum(one["bytes"] for one in facts["files"].values())
            logger.info("%d files, %.1f MB to hash in %s", len(facts["files"]), size / 1e6, masked(folder))
            wrong = next(manifests.discrepancies(folder), None)
    except (ValueError, OSError) as error:
        return refused(error, get_run_logger().info)
    if wrong:
        return Failed(message=f"{folder}: {wrong}")
    return Completed(message=f"{manifests.all_well(facts)}: {folder}")
