"""What a stage sees of a shard: named columns, wherever they rest, of the rows still alive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from configs.errors import StageError
from storage import shards
from storage.shards import Shard
from storage.steps import Step

IMAGE = "image"
TEXT = "text"


@dataclass(frozen=True)
class View:
    """Where columns come from and what takes a row out, at one point of the pipeline. Small: it travels to tasks."""

    inputs: dict[str, str]
    """Names methods use -> columns of the input file; `image`, `text`, `key`, `source` among them."""
    sidecars: dict[str, Step] = field(default_factory=dict)
    """Columns that per-shard steps made; of two steps with the same column the later counts."""
    failing: tuple[Step, ...] = ()
    """Per-shard steps so far: a row that failed in one is quarantined."""
    decisions: tuple[Step, ...] = ()
    """Selects so far: a row that one did not keep is dropped."""

    def after(self, step: Step, provides: tuple[str, ...]) -> View:
        """The view behind a per-shard step."""
        return replace(self, sidecars=self.sidecars | dict.fromkeys(provides, step), failing=(*self.failing, step))

    def selected(self, step: Step) -> View:
        """The view behind a select."""
        return replace(self, decisions=(*self.decisions, step))

    def columns(self) -> list[str]:
        """All names a method may need here."""
        return sorted({*self.inputs, *self.sidecars})

    def require(self, needs: tuple[str, ...], who: str, remedy: str = "") -> None:
        """Raise StageError if a needed column is made by no step; `remedy`: what makes it, where the method knows."""
        missing = [name for name in needs if name not in self.inputs and name not in self.sidecars]
        if missing and missing[0] in (IMAGE, TEXT):
            raise StageError(
                f"`{who}` needs images and texts or one of them; the input has no {missing[0]}s (`input.{missing[0]}` "
                "is null). Leave it out, or name the column."
            )
        if missing:
            raise StageError(
                f"`{who}` needs the column {missing[0]!r}, which nothing before it makes; there are "
                f"{', '.join(self.columns())}. {remedy or 'Add the stage that makes it, or name another column.'}",
                remedy="" if remedy else None,
            )

    def parents(self, needs: tuple[str, ...]) -> list[str]:
        """Fingerprints of the sidecars that `needs` reads, sorted."""
        return sorted({self.sidecars[name].fingerprint for name in needs if name in self.sidecars})

    def table(self, shard: Shard, needs: tuple[str, ...]) -> pa.Table:
        """All rows of a shard: one column per name in `needs`, in that order; sidecars' with their metadata."""
        found: dict[str, pa.ChunkedArray] = {}
        told: dict[str, Any] = {}
        from_input = {n: self.inputs[n] for n in needs if n not in self.sidecars}
        if from_input:
            read = shards.read(shard, sorted(set(from_input.values())))
            found |= {name: self._logical(name, read.column(column)) for name, column in from_input.items()}
        for step in {self.sidecars[n] for n in needs if n in self.sidecars}:
            names = [n for n in needs if self.sidecars.get(n) == step]
            read = step.read(shard.digest, names)
            found |= {name: read.column(name) for name in names}
            told |= {name: read.schema.field(name).metadata for name in names}
        if not needs:
            return pa.table({"": pa.nulls(shard.rows)}).select([])
        fields = [pa.field(name, found[name].type, metadata=told.get(name)) for name in needs]
        return pa.table([found[name] for name in needs], schema=pa.schema(fields))

    def stream(self, shard: Shard, needs: tuple[str, ...]) -> Iterator[pa.Table]:
        """All rows of a shard, slice after slice, with the images."""
        direct = {n: self.inputs[n] for n in needs if n not in self.sidecars}
        small = self.table(shard, tuple(n for n in needs if n in self.sidecars))
        at = 0
        for slice_ in shards.stream(shard, sorted(set(direct.values())), self.inputs[IMAGE]):
            columns = {n: self._logical(n, slice_.column(direct[n])) for n in direct}
            columns |= {n: small.column(n).slice(at, slice_.num_rows) for n in small.column_names}
            at += slice_.num_rows
            yield pa.table({name: columns[name] for name in needs})

    def _logical(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        if name == IMAGE:
            return shards.as_binary(column)
        return shards.as_text(column) if name == TEXT else column

    def alive(self, shard: Shard) -> np.ndarray:
        """Which rows of a shard are neither quarantined nor dropped: bool `(rows,)`."""
        mask = np.ones(shard.rows, dtype=bool)
        for step in self.failing:
            mask[step.failures(shard.digest)["row"].to_numpy()] = False
        for step in self.decisions:
            decided = step.read(shard.digest, ["row", "keep"])
            mask[decided["row"].to_numpy()[~decided["keep"].to_numpy()]] = False
        return mask

    def alive_rows(self, shard: Shard, needs: tuple[str, ...]) -> pa.Table:
        """The alive rows of a shard in order: `row: int64` and the columns of `needs`."""
        rows = np.flatnonzero(self.alive(shard))
        table = self.table(shard, needs)
        if len(rows) < shard.rows:
            table = table.take(pa.array(rows))
        return table.add_column(0, pa.field("row", pa.int64()), pa.array(rows, pa.int64()))
