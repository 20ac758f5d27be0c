"""What there is to curate: listing the inputs, checking their columns before any work, knowing their content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from configs.curate import Curate
from configs.errors import ColumnError
from configs.inputs import Columns
from flows.planning import Planned, conversion_step
from storage import objects, shards, together
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
    converted: dict[str, list[str]] = field(default_factory=dict)
    """Conversion in the store (`ingest/<kind>/<fingerprint>`) -> its units that are in the input."""
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
    left, done = [], []
    for unit in units:
        name = unit_id(unit)
        if name in committed:
            done.append((unit, name))
        else:
            left.append(unit)
    for (unit, _), facts in zip(done, together.facts(step, [name for _, name in done]), strict=True):
        _add_converted(found, number, unit, step, facts)
    found.converted.setdefault(step.place, []).extend(name for _, name in done)
    if left:
        found.pending[number] = left
    for unit in left[:PEEKED]:
        _note(found, unit, _looked(unit, lambda unit=unit: _renamed(unit, reader.peek(unit))))  # type: ignore[misc]


def _add_converted(found: Scan, number: int, unit: InputFile, step: Step, facts: dict[str, Any]) -> None:
    if facts["broken"] is not None:
        found.damaged_units.append((unit, facts["broken"]))
        found.damaged[unit.file] = facts["broken"]
    parts = shards_of(step, unit, facts)
    found.entries += parts
    found.section_of |= dict.fromkeys((part.file for part in parts), number)


def _looked(entry: InputFile, look: Callable[[], Any]) -> Any:
    """What `look` tells of a file, or the error that says why it tells nothing."""
    try:
        with parquet_errors(entry.size):
            return look()
    except (BrokenFile, OSError) as error:
        return error


def _note(found: Scan, entry: InputFile, told: pa.Schema | BrokenFile | OSError) -> None:
    """Note the columns of a file, or why it has none."""
    if isinstance(told, BrokenFile):
        found.damaged[entry.file] = str(told)
    elif isinstance(told, OSError):
        found.unreadable[entry.file] = str(told)
    else:
        found.schemas[entry.file] = told


def _renamed(entry: InputFile, schema: pa.Schema) -> pa.Schema:
    return entry.naming.schema(schema.remove_metadata())


def _recall(config: Curate, found: Scan, pool: ThreadPoolExecutor) -> None:
    """What is remembered of the shards; of others the footer is read."""
    memory = Memory(config.store)
    for entry, known in zip(found.entries, memory.recall_all(found.entries), strict=True):
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
                decoded[key] = _renamed(entry, shards.schema_of(known))
            found.schemas[entry.file], found.rows[entry.file] = decoded[key], known["rows"]
    footers = pool.map(lambda entry: _looked(entry, lambda: _footer(entry)), new)
    for entry, footer in zip(new, footers, strict=True):
        found.rows[entry.file], told = footer if isinstance(footer, tuple) else (0, footer)
        _note(found, entry, told)


def _footer(entry: InputFile) -> tuple[int, pa.Schema]:
    rows, schema = shards.footer(entry.url)
    return rows, _renamed(entry, schema)


def _columns(planned: Planned) -> tuple[str, ...]:
    """Input columns that the step's method named itself."""
    return tuple(getattr(planned.method, "input_columns", ()))


def _check_named(named: Iterable[tuple[str, str]], schema: pa.Schema, file: str) -> None:
    for column, setting in named:
        if column not in schema.names:
            raise ColumnError(
                f"{file} has no column {column!r}, which `{setting}` names; its columns are {', '.join(schema.names)}"
            )


def _check_types(planned: Planned, schema: pa.Schema, file: str) -> None:
    try:
        planned.method.check_columns(pa.schema([schema.field(name) for name in _columns(planned)]))
    except ColumnError as error:
        raise ColumnError(f"{file}, `{planned.label}`: {error}") from error


def check_schemas(config: Curate, found: Scan, planned: Sequence[Planned], scores: list[str]) -> pa.Schema:
    """The schema of the mix, once every file has the columns that the configuration names.

    Args:
        config: The run's configuration.
        found: The input.
        planned: Steps whose methods may name input columns themselves.
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
        group = config.mix.groups if isinstance(config.mix.groups, str) else None
        named = [(column, one.label) for one in planned for column in _columns(one)]
        _check_named([*named, *([(group, "mix.groups")] if group else [])], schema, file)
        for one in planned:
            if hasattr(one.method, "check_columns"):
                _check_types(one, schema, file)
        if group and not is_label(schema.field(group).type):
            kind = schema.field(group).type
            raise ColumnError(f"`mix.groups` is {group!r}, which is {kind} in {file}; it must be string or integer")
    passing = {}
    for (schema, number), file in distinct.items():
        section = found.sections[number]
        converted = not load(ingest.METHODS, section).in_place
        passing[file] = Passing(schema, naming_of(config, section).left_out, section.unsupported == "json", converted)
    return mix_schema(passing, config.roles.get("image"), scores, config.emit.concepts)
