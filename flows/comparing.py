"""What has changed from one mix to the next of its name: found out when the newer one is published."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from flows.nights import newest
from flows.reporting import groups
from flows.run import Run
from flows.stages import timed
from storage import files
from storage.parentage import changed_files
from storage.steps import parquet_bytes
from tasks.groups import ItemsFailed
from tasks.report import changes, pages
from tasks.report.subject import Subject
from tasks.report.task import compare_parts

if TYPE_CHECKING:
    from flows.emitting import Plan

MOST_NAMED = 20
"""Files of each kind of change that the manifest names."""


def parent_of(run: Run, plan: Plan) -> dict[str, Any] | None:
    """The manifest of the newest mix of the name, if it is another version than this and can be read."""
    before = newest(run.config)
    return before if before and before["version"] != plan.version else None


def changes_since(run: Run, plan: Plan, subject: Subject, before: dict[str, Any], now: dict[str, Any]) -> Any:
    """What `now` has that `before` had not, both manifests: JSON-ready; None where the older mix cannot be compared.

    The ledgers of both are there; nothing of the older mix is needed beyond its ledger and its report.
    """
    try:
        with timed(run, "report"):
            told = _compared(run, plan, subject, before, now)
    except (ItemsFailed, ValueError, KeyError, OSError) as error:  # damage of the older mix is no reason to fail
        why = f"{type(error).__name__}: {error}"
        run.warn("parent", f"what has changed since {before['version']} could not be found out: {why}")
        return None
    rows = told["rows"]
    run.log(f"since {before['version']}: {rows['came']:,} rows came, {rows['left']:,} left, {rows['stayed']:,} stayed")
    return told


def _compared(run: Run, plan: Plan, subject: Subject, before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    folder, step = files.join(run.config.emit.out, run.config.name, before["version"]), subject.step
    then, here = (changes.part_rows(url) for url in (folder, subject.mix))
    joined = changes.joined(changes.places(before["parents"], then), changes.places(now["parents"], here))
    files.write_bytes(step.file("compared.parquet"), parquet_bytes(joined))
    parts = pc.unique(joined["part"]).to_pylist()
    run.each(compare_parts, "parts", parts, subject=subject, before=folder)
    tally: Counter[str] = Counter()
    for part in parts:
        tally.update(step.facts(f"compared-{part:05d}")["tally"])
    found = changed_files(before["parents"], now["parents"])
    kinds: dict[str, list[Any]] = {
        "new": found.new,
        "gone": found.gone,
        "rewritten": found.rewritten,
        "renamed": [*map(list, found.renamed)],
    }
    return {
        "parent": before["version"],
        "files": {kind: {"count": len(names), "first": names[:MOST_NAMED]} for kind, names in kinds.items()},
        "rows": changes.rows_told(tally, now["counts"]["kept"]),
        "groups": changes.groups_told(pages.facts(folder).get("groups", []), groups(plan)),
        "settings": changes.settings_told(before["config"], now["config"]),
    }
