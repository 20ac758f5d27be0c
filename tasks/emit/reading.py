"""The rows of a mix's batches in any order: which row groups to read, and how long to hold them.

Row groups and parts do not align with batches. Parquet footers say which row groups hold a unit (step, mix_rank); they
are opened only when a window comes near them. What is held of a window is positions, and the row groups that the
window needs again, up to `HOLD_BYTES`: beyond that, the one that has waited longest is read again when it is due.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import MixError
from storage import files, objects

HOLD_BYTES = 128 * files.MiB
"""Decoded row groups held for later batches of a window, per process: half a million captions, some 2,000 pictures."""


@dataclass(frozen=True)
class Source:
    """Where the rows of a mix are."""

    url: str
    parts: tuple[str, ...]
    """URLs, in batch order."""
    mix_ranks: int
    options: objects.Options
    rows: tuple[int, ...] = ()
    """Rows of each part, as mix.json says; empty where it does not."""
    unit_rows: int = 0
    """Rows of each unit where all have equally many, which spares the reading of `place`; else 0."""

    @property
    def place(self) -> list[str]:
        """The columns that say which unit a row belongs to."""
        return ["mix_step", "mix_rank"] if self.mix_ranks > 1 else ["mix_step"]


class Part:
    """An open part: its footer, and its row groups when asked."""

    def __init__(self, url: str, source: Source, needed: Iterable[str] = ()) -> None:
        """Read the footer; `url` is one of the source's parts.

        Raises:
            MixError: It is gone or cut off, or lacks one of the columns `needed`.
        """
        self.url, self.mix_ranks, self.place = url, source.mix_ranks, source.place
        at = source.parts.index(url)
        self.unit_rows, self.first = source.unit_rows, sum(source.rows[:at])
        self._stack = ExitStack()
        with explained(url), objects.using(source.options):
            handle = self._stack.enter_context(files.reading(url))
            self.file = pq.ParquetFile(handle)
        if missing := sorted(set(needed) - set(self.schema.names)):
            raise MixError(f"{url} has no column {missing}, as other parts of the mix do: emit the mix again")

    @property
    def schema(self) -> pa.Schema:
        """Its columns."""
        return self.file.schema_arrow

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def read(self, group: int, columns: list[str] | None) -> pa.Table:
        """One row group. No Arrow threads: DataLoader workers are the parallelism, and apache/arrow#50482, a thread
        pool that has read through a Python file (any remote URL) now and then aborts or hangs the interpreter at exit.
        """
        with explained(self.url):
            return self.file.read_row_group(group, columns=columns, use_threads=False)

    def extent(self, group: int, name: str) -> tuple[int, int]:
        """Least and greatest value of a column in a row group: the footer's, or the column's own if it was left out."""
        names = [self.file.schema.column(i).path for i in range(len(self.file.schema))]
        statistics = self.file.metadata.row_group(group).column(names.index(name)).statistics
        if statistics is not None and statistics.has_min_max:
            return statistics.min, statistics.max
        values = self.read(group, [name])[name].to_numpy()
        return int(values.min()), int(values.max())

    def last_step(self) -> int:
        """The step of the last row."""
        return self.extent(self.file.num_row_groups - 1, "mix_step")[1]

    def groups(self) -> Iterator[Group]:
        """Yields the row groups in order. Two small columns are read where the footer leaves the units open."""
        begin = self.first
        for number in range(self.file.num_row_groups):
            rows = self.file.metadata.row_group(number).num_rows
            if self.unit_rows and (counted := self._counted(number, begin, rows)):
                yield counted
                begin += rows
                continue
            begin += rows
            (low, high), ranks = self.extent(number, "mix_step"), (0, 0)
            if self.mix_ranks > 1:
                ranks = self.extent(number, "mix_rank")
            group = Group(self, number, low * self.mix_ranks + ranks[0], high * self.mix_ranks + ranks[1])
            if low != high and self.mix_ranks > 1:
                group.find(self.read(number, self.place))
                group.low, group.high = min(group.places), max(group.places)
            yield group

    def _counted(self, number: int, begin: int, rows: int) -> Group | None:
        """A row group whose units are where they must be if all have `unit_rows` rows; None if its footer denies it."""
        low, high = begin // self.unit_rows, (begin + rows - 1) // self.unit_rows
        if not rows or self.extent(number, "mix_step") != (low // self.mix_ranks, high // self.mix_ranks):
            return None
        edges = [max(unit * self.unit_rows - begin, 0) for unit in range(low, high + 1)]
        spans = zip(edges, [*edges[1:], rows], strict=True)
        places = {unit: (first, end - first) for unit, (first, end) in zip(range(low, high + 1), spans, strict=True)}
        return Group(self, number, low, high, places)


@dataclass(eq=False)
class Group:
    """A row group: the units it has rows of, and its rows while they are held."""

    part: Part
    number: int
    low: int
    high: int
    places: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Unit -> first row and number of rows, in order; empty until known."""
    rows: pa.Table | None = None

    def find(self, place: pa.Table) -> None:
        """Note where the units begin; `place` has the columns of `Source.place`."""
        units = place["mix_step"].to_numpy()
        if self.part.mix_ranks > 1:
            units = units * self.part.mix_ranks + place["mix_rank"].to_numpy()
        begins = np.concatenate([[0], np.flatnonzero(units[1:] != units[:-1]) + 1])
        counts = np.diff(begins, append=len(units))
        spans = zip(begins.tolist(), counts.tolist(), strict=True)
        self.places = dict(zip(units[begins].tolist(), spans, strict=True))

    def load(self, columns: list[str]) -> None:
        """Read the rows, if they are not held."""
        if self.rows is not None:
            return
        if self.low == self.high and not self.places:
            self.places = {self.low: (0, self.part.file.metadata.row_group(self.number).num_rows)}
        ask = columns if self.places else [*columns, *(name for name in self.part.place if name not in columns)]
        table = self.part.read(self.number, ask)
        if not self.places:
            self.find(table)
        self.rows = table.select(columns)

    def slice(self, unit: int) -> pa.Table | None:
        """The rows of one unit; None if there are none."""
        place = self.places.get(unit)
        return None if self.rows is None or place is None else self.rows.slice(*place)


class Reader:
    """The rows of units, window by window."""

    def __init__(self, source: Source, columns: list[str]) -> None:
        """Nothing is opened before the first unit is asked for."""
        self._source, self._columns = source, columns
        self._groups: list[Group] = []
        self._open: list[Part] = []
        self._coming: Iterator[Group] | None = None
        self._first = 0
        self._held: dict[Group, int] = {}
        """Groups whose rows are held -> bytes; the one used last is the last."""

    def batches(self, stretches: Iterable[list[int]]) -> Iterator[tuple[int, pa.Table]]:
        """Yields (unit, its rows) for the units of each stretch, in order.

        Raises:
            MixError: A unit has no rows, or a file cannot be read.
        """
        try:
            for units in stretches:
                self._cover(min(units), max(units))
                uses: Counter[Group] = Counter()
                if len(units) > 1:
                    uses.update(group for unit in units for group in self._of(unit))
                for unit in units:
                    yield unit, self._rows(unit, uses, max(units))
        finally:
            self.close()

    def close(self) -> None:
        """Close all files and forget all rows."""
        for part in self._open:
            part.close()
        self._groups, self._open, self._coming, self._held = [], [], None, {}

    def _rows(self, unit: int, uses: Counter[Group], last: int) -> pa.Table:
        pieces = []
        for group in self._of(unit):
            group.load(self._columns)
            piece = group.slice(unit)
            if piece is not None:
                pieces.append(piece)
            uses[group] -= 1
            self._hold(group, again=uses[group] > 0 or group.high > last)
        if not pieces:
            step, rank = divmod(unit, self._source.mix_ranks)
            raise MixError(
                f"{self._source.url} has no rows of batch {step} for rank {rank} where they should be, though its "
                "mix.json counts it; the mix is damaged: verify it, or emit it again"
            )
        return pa.concat_tables(pieces) if len(pieces) > 1 else pieces[0]

    def _hold(self, group: Group, again: bool) -> None:
        """Hold a group's rows or let them go, and with them what is too much."""
        if again and next(reversed(self._held), None) is group:
            return
        size = self._held.pop(group, None)
        if again and group.rows is not None:
            self._held[group] = size if size is not None else group.rows.nbytes
            while len(self._held) > 1 and sum(self._held.values()) > HOLD_BYTES:
                oldest = next(iter(self._held))
                del self._held[oldest]
                oldest.rows = None
        else:
            group.rows = None

    def _of(self, unit: int) -> list[Group]:
        """The groups that may have rows of a unit."""
        at = bisect_left(self._groups, unit, key=lambda group: group.high)
        end = at
        while end < len(self._groups) and self._groups[end].low <= unit:
            end += 1
        return self._groups[at:end]

    def _cover(self, first: int, last: int) -> None:
        """Know all groups with units from `first` to `last`; forget those before."""
        if self._coming is None or first < self._first:  # a padded pass begins again
            self.close()
            self._coming = self._from(first // self._source.mix_ranks)
        self._first = first
        if self._groups and self._groups[0].high >= first and self._groups[-1].high > last:
            return
        gone = bisect_left(self._groups, first, key=lambda group: group.high)
        for group in self._groups[:gone]:
            self._held.pop(group, None)
        del self._groups[:gone]
        while not self._groups or self._groups[-1].high <= last:
            if (coming := next(self._coming, None)) is None:
                break
            if coming.high >= first:
                self._groups.append(coming)
        while self._groups and self._open[0] is not self._groups[0].part:
            self._open.pop(0).close()

    def _from(self, step: int) -> Iterator[Group]:
        """Yields the groups from the one that holds a step on; parts before it stay shut."""

        def last_step(url: str) -> int:
            part = Part(url, self._source)
            try:
                return part.last_step()
            finally:
                part.close()

        urls = self._source.parts
        for url in urls[bisect_left(urls, step, key=last_step) if step else 0 :]:
            part = Part(url, self._source, [*self._columns, *self._source.place])
            self._open.append(part)
            yield from part.groups()


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Tells what is wrong with a part; trouble with a network or a store is told as it is.

    Raises:
        MixError: It is gone, or its bytes are no whole Parquet file.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise MixError(
            f"{url} is gone though the mix was opened: this version was deleted or moved while it was read. Open the "
            "folder of a version that is kept; `latest.json` names the newest"
        ) from error
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None):
            raise
        raise MixError(
            f"{url} cannot be read, it is cut off or overwritten ({_first_line(error)}): copy it again, or emit the "
            "mix again"
        ) from error


def _first_line(error: Any) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
