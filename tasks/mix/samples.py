"""The rows of each group that a proxy learns from and is measured on: the same whatever the cut into shards.

A row's coin is made of its uid alone. Of every group the rows with the lowest coins are taken, one of each uid; those
with the very lowest are held out, and no group learns from a uid that any group is measured on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.methods.learned import LanguageMixProxy, Learned
from tasks.embed.device import resolve_device
from tasks.mix.group_proxy import GroupProxy
from tasks.mix.proxy_pairs import PairSource
from tasks.mix.proxy_texts import TextSource
from tasks.select.coins import coins, uid_halves

GROUP, COIN, UID = "__group", "__coin", "uid"
LEAST_ROWS = 8
"""Distinct usable rows of a group that anything is learned of, at least."""
HELD_SHARE = 4
"""One row in so many is held out where there are few."""


class Built(NamedTuple):
    """A proxy, and whom it is of."""

    proxy: GroupProxy | None
    """Its groups are those in `learned`, in that order; None where there are none."""
    learned: list[str]
    told: list[str]
    """A sentence on each group that is left out: how many rows it has, and why that is too few."""


class Samples:
    """What a learned mixing law reads of each shard, and the proxy that is made of it."""

    def __init__(self, config: Learned, device: str) -> None:
        self._config, self._device = config, device
        self.input_columns: tuple[str, ...] = self._source.input_columns
        self.libraries: tuple[str, ...] = self._source.libraries
        self.needs: tuple[str, ...] = (*self._source.needs, UID)

    @cached_property
    def _source(self) -> TextSource | PairSource:
        proxy = self._config.proxy
        return TextSource(proxy) if isinstance(proxy, LanguageMixProxy) else PairSource(proxy)

    @property
    def _most(self) -> int:
        return self._config.train_rows + self._config.validation_rows

    def check(self) -> None:
        """Raise ModelError if the device is not there."""
        resolve_device(self._config.device)

    def check_columns(self, schema: pa.Schema) -> None:
        """Raise ColumnError if the column of texts holds none."""
        self._source.check_columns(schema)

    def depends_on(self) -> dict[str, Any]:
        """The device class."""
        return {"device": self._device}

    def summarise(self, rows: pa.Table, labels: pa.Array) -> pa.Table:
        """Of each group the usable rows with the lowest coins: what the proxy reads of them, `__group`, `__coin`.

        Args:
            rows: The columns of `needs`.
            labels: string `(n,)`: the group of each.
        """
        payload, usable = self._source.payload(rows)
        keep = pa.array(usable)
        halves = uid_halves(rows[UID].filter(keep))
        keys = np.random.SeedSequence([self._config.proxy_seed, 59]).generate_state(2, np.uint64)
        coin = coins(halves, np.zeros(len(halves), np.int64), keys)
        payload = payload.append_column(GROUP, labels.cast(pa.string()).filter(keep))
        return self._lowest(payload.append_column(COIN, pa.array(coin)))

    def build(self, names: Sequence[str], summaries: Iterable[pa.Table]) -> Built:
        """The proxy of those groups of `names` that have rows enough; memory is bounded by the sample."""
        table = self._gathered(names, summaries)
        held, train = [], []
        learned: list[str] = []
        told: list[str] = []
        parts = [self._of(table, name) for name in names]
        divided = [self._divided(part.num_rows) for part in parts]
        reserved = [part[COIN].to_numpy()[: cut[0]] for part, cut in zip(parts, divided, strict=True)]
        every = np.concatenate([np.zeros(0), *reserved])
        for name, part, (first, last) in zip(names, parts, divided, strict=True):
            rest = part.slice(first)
            own = rest.filter(pa.array(~np.isin(rest[COIN].to_numpy(), every))).slice(0, last)
            if first == 0 or own.num_rows == 0:
                told.append(self._too_few(name, part.num_rows, first))
                continue
            held.append(part.slice(0, first).drop_columns([GROUP, COIN]))
            train.append(own.drop_columns([GROUP, COIN]))
            learned.append(name)
        if not learned:
            return Built(None, [], told)
        corpus = self._source.corpus(train, held, self._config.proxy_seed, self._device)
        return Built(GroupProxy(corpus, self._config, self._device), learned, told)

    def _divided(self, rows: int) -> tuple[int, int]:
        """Rows of a group to hold out, none if they are too few, and to learn from at most."""
        if rows < min(LEAST_ROWS, self._most):
            return 0, 0
        wanted = max(rows // HELD_SHARE, rows - self._config.train_rows, 1)
        return min(self._config.validation_rows, wanted), self._config.train_rows

    def _too_few(self, name: str, rows: int, held: int) -> str:
        least = min(LEAST_ROWS, self._most)
        what = f"`groups`: nothing is learned of {name!r}, which has {rows} distinct usable rows in the sample"
        if held:
            return f"{what}: other groups, or its own loss, are measured on all of them"
        return f"{what}; it takes {least}"

    @staticmethod
    def _of(table: pa.Table, name: str) -> pa.Table:
        return table.filter(pc.equal(table[GROUP], name))

    def _gathered(self, names: Sequence[str], summaries: Iterable[pa.Table]) -> pa.Table:
        """The sample of all groups, by group and coin; what is gathered is cut back when it has doubled."""
        kept: pa.Table | None = None
        waiting: list[pa.Table] = []
        rows = 0
        for table in summaries:
            table = table.filter(pc.is_in(table[GROUP], pa.array(names, pa.string())))
            waiting.append(table)
            rows += table.num_rows
            if rows > self._most * len(names):
                kept, waiting, rows = self._lowest(pa.concat_tables([*([kept] if kept else []), *waiting])), [], 0
        if kept is not None:
            waiting.insert(0, kept)
        if not waiting:
            return pa.table({GROUP: pa.array([], pa.string()), COIN: pa.array([], pa.float64())})
        return self._lowest(pa.concat_tables(waiting))

    def _lowest(self, table: pa.Table) -> pa.Table:
        """Of each group the rows with the lowest coins, by group and coin, one of each coin.

        Of a uid with several texts (the same picture twice, in a column that is not the input's) the first by code
        point is taken, so that the order of shards has no say.
        """
        by = [GROUP, COIN, *(name for name in table.column_names if pa.types.is_large_string(table[name].type))]
        order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in by]).to_numpy()
        group = table[GROUP].combine_chunks().dictionary_encode().indices.to_numpy()[order]
        coin = table[COIN].to_numpy()[order]
        new_group = np.diff(group, prepend=-1) != 0
        first = new_group | (np.diff(coin, prepend=-1) != 0)
        order, new_group = order[first], new_group[first]
        starts = np.flatnonzero(new_group)
        place = np.arange(len(order)) - np.repeat(starts, np.diff([*starts.tolist(), len(order)]))
        return table.take(pa.array(order[place < self._most])).combine_chunks()
