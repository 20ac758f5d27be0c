"""What there is to curate: listing the inputs, checking their columns before any work, knowing their content."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from configs.curate import Curate
from configs.errors import ColumnError
from configs.inputs import Columns
from flows.planning import conversion_step
from storage import objects, shards
from storage.broken import BrokenFile, parquet_errors
from storage.naming import Naming
from storage.shards import InputFile, Memory
from storage.steps import Step
from tasks import ingest, load
from tasks.emit.schema import Passing, mix_schema
from tasks.ingest import accepts, is_label
from tasks.ingest.conversion import shards_of, unit_id

PEEKED = 3
"""Units of each input that are looked into before they are converted: enough to find a wrong column name."""


@dataclass
class Scan:
    """The inputs as they stand."""

    sections: tuple[Columns, ...]
    entries: list[InputFile] = field(default_factory=list)
    """Parquet shards in the order of `file`: those used in place and those made before."""
    section_of: dict[str, int] = field(default_factory=dict)
    """File -> index of the input that it belongs to."""
    pending: dict[int, list[InputFile]] = field(default_factory=dict)
    """Index of an input -> its units that are to be converted."""
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """File -> what is remembered of it; files that are new or have changed are missing."""
    schemas: dict[str, pa.Schema] = field(default_factory=dict)
    """File or pending unit -> its columns, under the run's names."""
    rows: dict[str, int] = field(default_factory=dict)
    damaged_units: list[tuple[InputFile, str]] = field(default_factory=list)
    """Units whose conversion found them damaged, and why."""
    damaged: dict[str, str] = field(default_factory=dict)
    """File -> why its content cannot be used, as far as it is known."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """File -> why it cannot be read now."""

    @property
    def waiting(self) -> list[InputFile]:
        """All units that are to be converted."""
        return [unit for units in self.pending.values() for unit in units]

    @property
    def files(self) -> int:
        """Input files there are, whatever their state."""
        return len(self.entries) + len(self.waiting) + len(self.damaged_units)


def scan(config: Curate) -> Scan:
    """List the inputs, and look into what is not remembered: footers of Parquet files, the beginnings of other files.

    Raises:
        InputError: Of one input nothing is there.
    """
    found = Scan(config.inputs)
    with objects.threads(8) as pool:
        for number, section in enumerate(config.inputs):
            _list(config, section, number, found, pool)
        found.entries.sort(key=lambda entry: entry.file)
        _recall(config, found, pool)
    return found


def naming_of(config: Curate, section: Columns) -> Naming:
    """How the run calls the columns of one input."""
    named, own = config.roles, section.roles
    return Naming(
        columns=tuple((named[role], own[role]) for role in named if role in own and named[role] != own[role]),
        constants=tuple((named[r], section.name if r == "source" else None) for r in named if r not in own),
        excluded=tuple(section.exclude),
    )


def _list(config: Curate, section: Any, number: int, found: Scan, pool: ThreadPoolExecutor) -> None:
    """Add one input: its shards, or its units and what they have become."""
    reader = load(ingest.METHODS, section)
    naming, prefix = naming_of(config, section), f"{section.name}/" if section.name else ""
    units = [replace(unit, file=f"{prefix}{unit.file}", naming=naming) for unit in reader.units()]
    found.section_of |= dict.fromkeys((unit.file for unit in units), number)
    if reader.in_place:
        found.entries += units
        return
    step = conversion_step(config, section)
    committed = step.committed()
    done = [unit for unit in units if unit_id(unit) in committed]
    for unit, facts in zip(done, pool.map(lambda unit: step.facts(unit_id(unit)), done), strict=True):
        _add_converted(found, number, unit, step, facts)
    if left := [unit for unit in units if unit_id(unit) not in committed]:
        found.pending[number] = left
    for unit in found.pending.get(number, [])[:PEEKED]:
        _look(found, unit, lambda unit=unit: reader.peek(unit))  # type: ignore[misc]


def _add_converted(found: Scan, number: int, unit: InputFile, step: Step, facts: dict[str, Any]) -> None:
    if facts["broken"] is not None:
        found.damaged_units.append((unit, facts["broken"]))
        found.damaged[unit.file] = facts["broken"]
    parts = shards_of(step, unit, facts)
    found.entries += parts
    found.section_of |= dict.fromkeys((part.file for part in parts), number)


def _look(found: Scan, entry: InputFile, schema: Callable[[], pa.Schema]) -> None:
    """Note the columns of a file, or why it has none."""
    try:
        with parquet_errors(entry.size):
            found.schemas[entry.file] = entry.naming.schema(schema().remove_metadata())
    except BrokenFile as broken:
        found.damaged[entry.file] = str(broken)
    except OSError as error:
        found.unreadable[entry.file] = str(error)


def _recall(config: Curate, found: Scan, pool: ThreadPoolExecutor) -> None:
    """What is remembered of the shards; of others the footer is read."""
    memory = Memory(config.store)
    for entry, known in zip(found.entries, pool.map(memory.recall, found.entries), strict=True):
        if known:
            found.facts[entry.file] = known
    decoded: dict[tuple[str, Naming], pa.Schema] = {}
    new = []
    for entry in found.entries:
        known = found.facts.get(entry.file)
        if known is None:
            new.append(entry)
        elif known.get("broken"):
            found.damaged[entry.file] = known["broken"]
        else:
            key = (known["schema"], entry.naming)
            if key not in decoded:
                decoded[key] = entry.naming.schema(shards.schema_of(known).remove_metadata())
            found.schemas[entry.file], found.rows[entry.file] = decoded[key], known["rows"]
    for entry, footer in zip(new, pool.map(_footer, new), strict=True):
        rows, schema = footer if isinstance(footer, tuple) else (0, footer)
        _look(found, entry, schema)
        found.rows[entry.file] = rows


def _footer(entry: InputFile) -> tuple[int, Callable[[], pa.Schema]] | Callable[[], pa.Schema]:
    """Rows and a way to the schema; a way to the error where there is one."""
    try:
        rows, schema = shards.footer(entry.url)
    except (pa.ArrowException, OSError) as error:
        return _raising(error)
    return rows, lambda: schema


def _raising(error: Exception) -> Callable[[], pa.Schema]:
    def fail() -> pa.Schema:
        raise error

    return fail


def check_schemas(config: Curate, found: Scan, columns: Iterable[str], scores: list[str]) -> pa.Schema:
    """The schema of the mix, once every file has the columns that the configuration names.

    Args:
        config: The run's configuration.
        found: The input.
        columns: Input columns that methods named themselves.
        scores: Scores to be written.

    Raises:
        ColumnError: A column is missing or of a wrong type; names the file and the columns there are.
    """
    distinct: dict[tuple[pa.Schema, int], str] = {}
    for file in sorted(found.schemas):
        distinct.setdefault((found.schemas[file], found.section_of[file]), file)
    for (schema, number), file in distinct.items():
        twice = [name for name in schema.names if schema.names.count(name) > 1]
        if twice:
            raise ColumnError(
                f"{file} has {schema.names.count(twice[0])} columns named {twice[0]!r}, one of them perhaps renamed to "
                f"fit the other inputs; rename all but one, or leave one out with `input.exclude: [{twice[0]}]`"
            )
        accepts(found.sections[number].roles, config.roles, schema, file)
        group = config.mix.groups
        for name in [*columns, *([group] if group else [])]:
            if name not in schema.names:
                raise ColumnError(f"{file} has no column {name!r}; its columns are {', '.join(schema.names)}")
        if group and not is_label(schema.field(group).type):
            kind = schema.field(group).type
            raise ColumnError(f"`mix.groups` is {group!r}, which is {kind} in {file}; it must be string or integer")
    passing = {}
    for (schema, number), file in distinct.items():
        section = found.sections[number]
        converted = not load(ingest.METHODS, section).in_place
        passing[file] = Passing(schema, naming_of(config, section).left_out, section.unsupported == "json", converted)
    return mix_schema(passing, config.roles.get("image"), scores)
