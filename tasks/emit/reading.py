"""The rows of a mix's batches in any order: which row groups to read, and how long to hold them.

Row groups and parts do not align with batches. Parquet footers say which row groups hold a unit (step, mix_rank); they
are opened only when a window comes near them. What is held of a window is positions, and the row groups that the
window needs again, up to `HOLD_BYTES`: beyond that, the one that has waited longest is read again when it is due.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator

import pyarrow as pa

from configs.errors import MixError
from storage import files
from tasks.emit.parts import Group, Part, Shelf, Source

HOLD_BYTES = 128 * files.MiB
"""Decoded row groups held for later batches of a window, per process: half a million captions, some 2,000 pictures."""


class Reader:
    """The rows of units, window by window."""

    def __init__(self, source: Source, columns: list[str]) -> None:
        """Nothing is opened before the first unit is asked for."""
        self._source, self._columns = source, columns
        self._groups: list[Group] = []
        self._shelf = Shelf()
        self._open: list[Part] = []
        """Parts of the groups, and of what comes; of their files, the shelf holds some open."""
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
        self._shelf.clear()
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
            part = Part(url, self._source, [*self._columns, *self._source.place], self._shelf)
            self._open.append(part)
            yield from part.groups()
