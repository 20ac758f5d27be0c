"""What has changed from one mix to the next of its name: found out when the newer one is published."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from flows.reporting import groups
from flows.run import Run
from flows.stages import timed
from storage import files, manifests
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
    """The manifest of the mix that `latest.json` names, if it is another version than this and can be read."""
    try:
        before = manifests.read(files.join(run.config.emit.out, run.config.name))
    except (ValueError, OSError, KeyError, json.JSONDecodeError):
        return None  # the first of its name, or one that was removed
    return before if before.get("version") not in (None, plan.version) else None


def changes_since(run: Run, plan: Plan, subject: Subject, before: dict[str, Any], now: dict[str, Any]) -> Any:
    """What `now` has that `before` had not, both manifests: JSON-ready; None where the older mix cannot be compared.

    The ledgers of both are there; nothing of the older mix is needed beyond its ledger and its report.
    """
    folder = files.join(run.config.emit.out, run.config.name, before["version"])
    step = subject.step
    try:
        with timed(run, "report"):
            then, here = (changes.part_rows(url) for url in (folder, subject.mix))
            joined = changes.joined(changes.places(before["parents"], then), changes.places(now["parents"], here))
            files.write_bytes(step.file("compared.parquet"), parquet_bytes(joined))
            parts = pc.unique(joined["part"]).to_pylist()
            run.each(compare_parts, "parts", parts, subject=subject, before=folder)
    except (ItemsFailed, OSError) as error:
        run.warn("parent", f"what has changed since {before['version']} could not be found out: {error}")
        return None
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
    told = {
        "parent": before["version"],
        "files": {kind: {"count": len(names), "first": names[:MOST_NAMED]} for kind, names in kinds.items()},
        "rows": changes.rows_told(tally, now["counts"]["kept"]),
        "groups": changes.groups_told(pages.facts(folder).get("groups", []), groups(plan)),
        "settings": changes.settings_told(before["config"], now["config"]),
    }
    rows = told["rows"]
    run.log(f"since {before['version']}: {rows['came']:,} rows came, {rows['left']:,} left, {rows['stayed']:,} stayed")
    return told
