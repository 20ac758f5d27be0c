"""Passports in the store: `passports/<name>-<digest of the configuration>.json`."""

from __future__ import annotations

from typing import Any

from configs.curate import Curate
from flows.run import Run
from storage import files
from storage.fingerprints import fingerprint
from tasks.report import estimates

FOLDER = "passports"
PLACES = ("store", "storage", "max_quarantine_fraction")
"""Settings that change neither what a run does nor what it takes."""

Passport = dict[str, Any]


def url_of(config: Curate) -> str:
    """Where the passport of a configuration is."""
    values = config.model_dump(mode="json", exclude=set(PLACES))
    return files.join(config.store, FOLDER, f"{config.name}-{fingerprint({'config': values})[:16]}.json")


def read(config: Curate) -> Passport | None:
    """The passport of exactly this configuration, if `mixwright check` has made one."""
    try:
        return dict(files.read_json(url_of(config)))
    except (OSError, ValueError):  # one that is not there or not whole costs a comparison, never a run
        return None


def compared(run: Run) -> dict[str, Any] | None:
    """The passport beside what the stages of the run took so far; None if there is none."""
    found = read(run.config)
    return found and estimates.compared(found, run.seconds, {stage for stage, tasks in run.tasks.items() if tasks})


def tell(run: Run) -> None:
    """Log one line on the passport and the run, which is over; nothing if there is none, or nothing was to do."""
    told = compared(run) if run.task_runs else None
    if told:
        run.log(estimates.sentence(told))
