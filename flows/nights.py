"""From night to night: what is new, gone or rewritten in the input since the newest mix, and what a rerun reuses."""

from __future__ import annotations

from typing import Any

from configs.curate import Curate
from flows.freezing import frozen_url
from flows.run import Run
from flows.scanning import Scan
from flows.taking import Known
from storage import files, manifests
from storage.garbage import STATES
from storage.parentage import FileChanges, changed_files
from storage.shards import note_of, shard_digest


def newest(config: Curate) -> dict[str, Any] | None:
    """The manifest of the newest mix of the configuration's name; None if there is none that can be read."""
    try:
        found = manifests.read(files.join(config.emit.out, config.name))
    except (OSError, ValueError, KeyError):  # the first of its name, one that was removed, or a damaged one
        return None
    return found if {"version", "parents", "config"} <= found.keys() else None


def tell_changes(run: Run, known: Known) -> None:
    """Say, in the log and in the report, how the input differs from what the newest mix was made from."""
    before = newest(run.config)
    if before is None:
        return
    found = changed_files(before["parents"], [{"file": s.file, "digest": s.digest} for s in known.entries])
    if not found:
        return
    told = _told(before, found)
    if found.gone or found.rewritten:
        run.warn("input-changed", told)
    else:
        run.notes.append(told)
        run.log(told)


def changes_ahead(config: Curate, found: Scan) -> list[str]:
    """The same as one line before a run, when the content of new and changed files is not known; empty if alike."""
    before = newest(config)
    if before is None:
        return []
    now = [{"file": entry.file, "digest": _digest(found, entry)} for entry in found.entries]
    now += [{"file": unit.file, "digest": None} for unit, _ in found.damaged_units]
    for unit in found.waiting:
        parts = [one["file"] for one in before["parents"] if one["file"].startswith(f"{unit.file}#")]
        now += [{"file": file, "digest": None} for file in parts or [unit.file]]
    changes = changed_files(before["parents"], now)
    return [_told(before, changes)] if changes else []


def _digest(found: Scan, entry: Any) -> str | None:
    facts = found.facts.get(entry.file)
    return shard_digest(facts["digest"], entry.naming) if facts else None


def _told(before: dict[str, Any], changes: FileChanges) -> str:
    return f"input files against the newest mix, {before['version']}: {changes.told}"


def reused(config: Curate, found: Scan) -> dict[str, Any]:
    """What a rerun finds in the store besides its steps, for the manifest; cleaning keeps it.

    Returns:
        `notes`: what is remembered of the input's files; `converted`: units by conversion; `states`: the annotator's
        state, if it was made of a given vocabulary.
    """
    url = frozen_url(config) if config.annotate else None
    state = url.removeprefix(f"{config.store.rstrip('/')}/").removesuffix(".npz") if url else ""
    return {
        "notes": sorted(note_of(entry) for entry in found.entries),
        "converted": {step: sorted(units) for step, units in sorted(found.converted.items())},
        "states": [state] if f"/{STATES}/" in state else [],
    }
