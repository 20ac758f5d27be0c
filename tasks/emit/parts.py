"""A part of a mix: its footer, which row groups hold which units, and their rows; at most so many files open.

A window of a shuffle may spread over thousands of parts. Their footers are kept; of their files, those read last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import MixError
from storage import files, objects

OPEN_FILES = 32
"""Files of parts that a process holds open: many loaders with many workers stay under the usual limit of 1,024."""


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

    @cached_property
    def firsts(self) -> dict[str, int]:
        """URL of each part -> the first of its rows among those of the mix; empty where mix.json does not say."""
        return dict(zip(self.parts, accumulate(self.rows, initial=0), strict=False))

    @property
    def place(self) -> list[str]:
        """The columns that say which unit a row belongs to."""
        return ["mix_step", "mix_rank"] if self.mix_ranks > 1 else ["mix_step"]


class Shelf:
    """Open files of parts, at most `OPEN_FILES`: that one is closed for another which was read longest ago."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[pq.ParquetFile, ExitStack]] = {}

    def file(self, url: str, options: objects.Options, footer: pq.FileMetaData | None) -> pq.ParquetFile:
        """The file at `url`, opened if it is not; its footer is read where none is given."""
        found = self._files.pop(url, None)
        if found is None:
            while len(self._files) >= OPEN_FILES:
                self.close(next(iter(self._files)))
            with ExitStack() as stack, objects.using(options):
                opened = pq.ParquetFile(stack.enter_context(files.reading(url)), metadata=footer)
                found = opened, stack.pop_all()
        self._files[url] = found
        return found[0]

    def clear(self) -> None:
        """Close all files."""
        for url in list(self._files):
            self.close(url)

    def close(self, url: str) -> None:
        """Close the file at `url`, if it is open."""
        if url in self._files:
            self._files.pop(url)[1].close()


class Part:
    """A part: its footer, and its row groups when asked."""

    def __init__(self, url: str, source: Source, needed: Iterable[str] = (), shelf: Shelf | None = None) -> None:
        """Read the footer.

        Args:
            url: One of the source's parts.
            source: The mix.
            needed: Columns that it must have.
            shelf: What holds its file open, together with others; null: one of its own.

        Raises:
            MixError: It is gone or cut off, or lacks one of the columns `needed`.
        """
        self.url, self.mix_ranks, self.place = url, source.mix_ranks, source.place
        self.unit_rows, self.first = source.unit_rows, source.firsts.get(url, 0)
        self._options, self._shelf = source.options, shelf or Shelf()
        with explained(url):
            file = self._shelf.file(url, self._options, None)
            self.footer: pq.FileMetaData = file.metadata
            self.columns: list[str] = file.schema_arrow.names
        if missing := sorted(set(needed) - set(self.columns)):
            raise MixError(f"{url} has no column {missing}, as other parts of the mix do: emit the mix again")

    def close(self) -> None:
        """Close the file; what is read later opens it again."""
        self._shelf.close(self.url)

    def read(self, group: int, columns: list[str] | None) -> pa.Table:
        """One row group. No Arrow threads: DataLoader workers are the parallelism, and apache/arrow#50482, a thread
        pool that has read through a Python file (any remote URL) now and then aborts or hangs the interpreter at exit.
        """
        with explained(self.url):
            file = self._shelf.file(self.url, self._options, self.footer)
            return file.read_row_group(group, columns=columns, use_threads=False)

    def extent(self, group: int, name: str) -> tuple[int, int]:
        """Least and greatest value of a column in a row group: the footer's, or the column's own if it was left out."""
        names = [self.footer.schema.column(i).path for i in range(len(self.footer.schema))]
        statistics = self.footer.row_group(group).column(names.index(name)).statistics
        if statistics is not None and statistics.has_min_max:
            return statistics.min, statistics.max
        values = self.read(group, [name])[name].to_numpy()
        return int(values.min()), int(values.max())

    def last_step(self) -> int:
        """The step of the last row."""
        return self.extent(self.footer.num_row_groups - 1, "mix_step")[1]

    def groups(self) -> Iterator[Group]:
        """Yields the row groups in order. Two small columns are read where the footer leaves the units open."""
        begin = self.first
        for number in range(self.footer.num_row_groups):
            rows = self.footer.row_group(number).num_rows
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
            self.places = {self.low: (0, self.part.footer.row_group(self.number).num_rows)}
        ask = columns if self.places else [*columns, *(name for name in self.part.place if name not in columns)]
        table = self.part.read(self.number, ask)
        if not self.places:
            self.find(table)
        self.rows = table.select(columns)

    def slice(self, unit: int) -> pa.Table | None:
        """The rows of one unit; None if there are none."""
        place = self.places.get(unit)
        return None if self.rows is None or place is None else self.rows.slice(*place)


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
