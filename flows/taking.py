"""Taking in what there is: converting and reading what is new, then knowing every file by its content."""

from __future__ import annotations

from dataclasses import dataclass, replace

from configs.errors import TooMuchQuarantined
from flows.planning import conversion_step, ingest_step
from flows.run import HEAVY, Run
from flows.scanning import Scan, scan
from flows.watching import WARNING
from storage import files
from storage.shards import InputFile, Memory, Shard, schema_of, shard_digest
from tasks.groups import ItemsFailed
from tasks.ingest.conversion import unit_id
from tasks.ingest.task import convert_units, ingest_files

ROUNDS = 3
"""Times that units are converted which change while others are."""
CHANGED = "it changed while it was read"
MOST_TOLD = 20
"""Damaged files that the log names."""


@dataclass(frozen=True)
class Known:
    """The inputs once all of their content is known."""

    entries: list[Shard]
    """Every file."""
    every: list[Shard]
    """The files that are worked on: of distinct content, and whole."""
    keeper_of: dict[str, str]
    """Duplicate file -> the file that it repeats."""
    damaged: dict[str, str]
    """File that is quarantined as a whole -> why."""


def known_shards(found: Scan) -> Known:
    """All remembered files as shards. Of files with one content the first in the order of `file` is worked on."""
    known = Known([], [], {}, {})
    first: dict[str, Shard] = {}
    for entry in found.entries:
        facts = found.facts.get(entry.file)
        if facts is None:
            continue
        digest = shard_digest(facts["digest"], entry.naming)
        shard = Shard(-1, entry.file, entry.url, digest, facts["rows"], entry.naming)
        if facts.get("broken"):
            known.damaged[entry.file] = facts["broken"]
        elif digest in first:
            shard = replace(shard, index=first[digest].index)
            known.keeper_of[entry.file] = first[digest].file
        else:
            shard = replace(shard, index=len(known.every))
            first[digest] = shard
            known.every.append(shard)
        known.entries.append(shard)
    for unit, why in found.damaged_units:
        known.damaged[unit.file] = why
        known.entries.append(Shard(-1, unit.file, unit.url, unit_id(unit), 0, unit.naming))
    known.entries.sort(key=lambda shard: shard.file)
    return known


def convert(run: Run, found: Scan) -> Scan:
    """Convert the units that are to be converted; returns the scan as it is then.

    What changes meanwhile is another unit: it is converted in the next round, else its rows would silently be missing.
    """
    for _ in range(ROUNDS):
        if all(unit.file in run.failed for unit in found.waiting):
            return found
        for number, units in found.pending.items():
            _convert(run, number, [unit for unit in units if unit.file not in run.failed])
        found = scan(run.config)
    run.failed |= {unit.file: CHANGED for unit in found.waiting if unit.file not in run.failed}
    return found


def _convert(run: Run, number: int, units: list[InputFile]) -> None:
    section = run.config.inputs[number]
    step = conversion_step(run.config, section)
    files.sweep(step.url)
    run.log(f"convert {step.kind}: {len(units)} units to do")
    try:
        run.each(convert_units, "units", units, HEAVY, step=step, config=section)
    except ItemsFailed as error:
        run.failed |= dict(error.failed)


def take_in(run: Run, found: Scan) -> None:
    """Read the shards that are new or changed; `found` is then as it stands.

    Raises:
        TooMuchQuarantined: Too much of the input is damaged.
    """
    config, step = run.config, ingest_step(run.config)
    files.sweep(step.url)
    committed = step.committed()
    run.files = found.files
    run.failed |= found.unreadable
    todo = []
    for entry in found.entries:
        facts = found.facts.get(entry.file)
        done = facts and (facts.get("broken") or shard_digest(facts["digest"], entry.naming) in committed)
        if not done and entry.file not in found.unreadable:
            todo.append(entry)
    run.log(f"ingest: {len(found.entries)} files, {len(todo)} to read")
    try:
        run.each(ingest_files, "files", todo, HEAVY, step=step, roles=config.roles)
    except ItemsFailed as error:
        run.failed |= dict(error.failed)
    memory = Memory(config.store)
    for entry, known in zip(todo, memory.recall_all(todo), strict=True):
        if known:
            found.facts[entry.file] = known
            if known.get("broken"):
                found.damaged[entry.file] = known["broken"]
                found.schemas.pop(entry.file, None)
            else:  # its footer may have been half written when it was looked at
                found.damaged.pop(entry.file, None)
                found.schemas[entry.file] = entry.naming.schema(schema_of(known).remove_metadata())
        elif entry.file not in run.failed:
            run.failed[entry.file] = CHANGED
    _tell_damaged(run, found)


def _tell_damaged(run: Run, found: Scan) -> None:
    """Say which files are quarantined as a whole; fail if they are too many."""
    if found.damaged:
        told = {"files": len(found.damaged), "first": min(found.damaged), "stage": run.stage}
        run.watch.event(f"{WARNING}.damaged-files", told)
    for file, why in sorted(found.damaged.items())[:MOST_TOLD]:
        run.log(f"quarantined as a whole: {file}: {why}")
    if len(found.damaged) > MOST_TOLD:
        run.log(f"quarantined as a whole: {len(found.damaged) - MOST_TOLD} more files, all of them in the quarantine")
    stop_if_too_many_are_damaged(found, run.config.max_quarantine_fraction)


def stop_if_too_many_are_damaged(found: Scan, limit: float) -> None:
    """Raise TooMuchQuarantined if more than this share of the input files is known to be damaged."""
    if len(found.damaged) > limit * max(1, found.files):
        file, why = min(found.damaged.items())
        raise TooMuchQuarantined(
            f"{len(found.damaged)} of {found.files} files are damaged, more than `max_quarantine_fraction` "
            f"{limit:g} allows. First: {file}: {why}"
        )
