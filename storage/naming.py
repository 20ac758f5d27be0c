"""Names of columns: inputs of one run may call the same thing differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Naming:
    """How the columns of a file are called in a run whose inputs have different ones."""

    columns: tuple[tuple[str, str], ...] = ()
    """Name in the run, name in the file: where they differ."""
    constants: tuple[tuple[str, str | None], ...] = ()
    """Name in the run, the value of all rows (null: the file has no such column)."""
    excluded: tuple[str, ...] = ()
    """Columns of the file that do not pass through to the mix."""

    def in_file(self, name: str) -> str:
        """What the run's column is called in the file."""
        return dict(self.columns).get(name, name)

    @property
    def left_out(self) -> set[str]:
        """The excluded columns under the run's names."""
        given = {inside: outside for outside, inside in self.columns}
        taken = {outside for outside, _ in (*self.columns, *self.constants)}
        return {given.get(name, name) for name in self.excluded if name in given or name not in taken}

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """A file's schema under the run's names, its constants behind the columns; names may come out twice.

        An excluded column whose name the run uses for another is left out: it is out of reach.
        """
        given = {inside: outside for outside, inside in self.columns}
        taken = {outside for outside, _ in (*self.columns, *self.constants)}
        fields = [
            field.with_name(given.get(field.name, field.name))
            for field in schema
            if field.name in given or not (field.name in taken and field.name in self.excluded)
        ]
        values = [pa.field(name, pa.null() if value is None else pa.string()) for name, value in self.constants]
        return pa.schema([*fields, *values])

    def table(self, table: pa.Table, columns: Sequence[str]) -> pa.Table:
        """Some columns of a file, as read, under the run's names and in their order."""
        constants = dict(self.constants)
        found = []
        for name in columns:
            if name not in constants:
                found.append(table.column(self.in_file(name)))
            elif constants[name] is None:
                found.append(pa.chunked_array([pa.nulls(table.num_rows)]))
            else:
                found.append(pa.chunked_array([pa.repeat(pa.scalar(constants[name]), table.num_rows)]))
        return pa.table(found, names=list(columns)) if columns else table.select([])

    def physical(self, columns: Sequence[str]) -> list[str]:
        """What has to be read of a file for the run's `columns`."""
        constants = dict(self.constants)
        return [self.in_file(name) for name in columns if name not in constants]


AS_IT_IS = Naming()
