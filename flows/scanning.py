"""What there is to curate: listing the input, checking its schemas before any work, knowing its content."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from configs.curate import Curate
from flows.planning import ingest_step
from flows.run import HEAVY, Run
from storage import files, shards
from storage.shards import InputFile, Memory, Shard
from tasks.emit.schema import mix_schema
from tasks.groups import ItemsFailed
from tasks.ingest import accepts, is_label
from tasks.ingest.task import ingest_files


@dataclass
class Scan:
    """The input as it stands."""

    entries: list[InputFile]
    facts: dict[str, dict[str, Any]]
    """File -> what is remembered of it; files that are new or have changed are missing."""
    schemas: dict[str, pa.Schema]
    rows: dict[str, int]
    unreadable: dict[str, str] = field(default_factory=dict)
    """File -> why its footer cannot be read."""


def scan(config: Curate) -> Scan:
    """List the input and read the footers of files that are not remembered.

    Raises:
        ValueError: Nothing is there.
    """
    entries = shards.find(config.input.path)
    memory = Memory(config.store)
    with ThreadPoolExecutor(8) as pool:
        recalled = list(pool.map(memory.recall, entries))
        facts = {e.file: known for e, known in zip(entries, recalled, strict=True) if known}
        new = [entry for entry in entries if entry.file not in facts]
        found = Scan(entries, facts, {}, {})
        for entry, footer in zip(new, pool.map(_footer, new), strict=True):
            if isinstance(footer, str):
                found.unreadable[entry.file] = footer
            else:
                found.rows[entry.file], found.schemas[entry.file] = footer
    decoded: dict[str, pa.Schema] = {}
    for file, known in facts.items():
        found.rows[file] = known["rows"]
        if known["schema"] not in decoded:
            decoded[known["schema"]] = shards.schema_of(known)
        found.schemas[file] = decoded[known["schema"]]
    return found


def _footer(entry: InputFile) -> tuple[int, pa.Schema] | str:
    try:
        return shards.footer(entry.url)
    except (pa.ArrowException, OSError) as error:
        return f"not a readable Parquet file ({error})"


def check_schemas(config: Curate, found: Scan, columns: Iterable[str], scores: list[str]) -> pa.Schema:
    """The schema of the mix, once every file has the columns that the configuration names.

    Args:
        config: The run's configuration.
        found: The input.
        columns: Input columns that methods named themselves.
        scores: Scores to be written.

    Raises:
        ValueError: A column is missing or of a wrong type; names the file and the columns there are.
    """
    distinct: dict[pa.Schema, str] = {}
    for file in sorted(found.schemas):
        distinct.setdefault(found.schemas[file].remove_metadata(), file)
    for schema, file in distinct.items():
        twice = [name for name in schema.names if schema.names.count(name) > 1]
        if twice:
            raise ValueError(
                f"{file} has {schema.names.count(twice[0])} columns named {twice[0]!r}; rename all but one"
            )
        accepts(config.input, schema, file)
        group = config.mix.groups
        for name in [*columns, *([group] if group else [])]:
            if name not in schema.names:
                raise ValueError(f"{file} has no column {name!r}; its columns are {', '.join(schema.names)}")
        if group and not is_label(schema.field(group).type):
            kind = schema.field(group).type
            raise ValueError(f"`mix.groups` is {group!r}, which is {kind} in {file}; it must be string or integer")
    return mix_schema({file: schema for schema, file in distinct.items()}, config.input, scores)


def known_shards(found: Scan) -> tuple[list[Shard], list[Shard], dict[str, str]]:
    """All remembered files as shards, those of distinct content, and duplicate file -> the file it repeats.

    Of files with one content the first in the order of `file` is the shard; the others are dropped as a whole.
    """
    entries: list[Shard] = []
    unique: list[Shard] = []
    first: dict[str, Shard] = {}
    keeper: dict[str, str] = {}
    for entry in found.entries:
        known = found.facts.get(entry.file)
        if known is None:
            continue
        digest = known["digest"]
        if digest in first:
            keeper[entry.file] = first[digest].file
            entries.append(Shard(first[digest].index, entry.file, entry.url, digest, known["rows"]))
            continue
        shard = Shard(len(unique), entry.file, entry.url, digest, known["rows"])
        first[digest] = shard
        unique.append(shard)
        entries.append(shard)
    return entries, unique, keeper


def take_in(run: Run, found: Scan) -> None:
    """Read the files that are new, changed or whose sidecar is gone; fills `found.facts`."""
    config, step = run.config, ingest_step(run.config)
    files.sweep(step.url)
    committed = step.committed()
    run.files = len(found.entries)
    run.failed |= found.unreadable
    todo = [
        entry
        for entry in found.entries
        if entry.file not in found.unreadable
        and (entry.file not in found.facts or found.facts[entry.file]["digest"] not in committed)
    ]
    run.log(f"ingest: {len(found.entries)} files, {len(todo)} to read")
    try:
        run.each(ingest_files, "files", todo, HEAVY, step=step, config=config.input)
    except ItemsFailed as error:
        run.failed |= dict(error.failed)
    memory = Memory(config.store)
    for entry in todo:
        known = memory.recall(entry)
        if known:
            found.facts[entry.file] = known
        elif entry.file not in run.failed:
            run.failed[entry.file] = "the file changed while it was read"
