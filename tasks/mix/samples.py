"""The rows of each group that a proxy learns from and is measured on: the same whatever the cut into shards.

A row's coin is made of its uid alone. Of every group the rows with the lowest coins are taken, one of each uid; those
with the very lowest are held out, and no group learns from a uid that any group is measured on. The sample of all
groups together is bounded too: where there are many, each has fewer rows. A shard has no more groups than all shards,
so what its summary holds of each is enough.
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
from tasks.mix.lowest import firsts, places
from tasks.mix.proxy_pairs import PairSource
from tasks.mix.proxy_texts import TextSource
from tasks.select.coins import coins, uid_halves

GROUP, COIN, UID = "__group", "__coin", "uid"
LEAST_ROWS = 8
"""Distinct usable rows of a group that anything is learned of, at least."""
HELD_SHARE = 4
"""One row in so many is held out where there are few."""
SAMPLE_ROWS, SAMPLE_BYTES = 400_000, 1 << 30
"""Of all groups together, to learn from; rows are counted with the bytes that they have at most."""


class Most(NamedTuple):
    """Rows of each group, at most."""

    train: int
    held: int


class Built(NamedTuple):
    """A proxy, and whom it is of."""

    proxy: GroupProxy | None
    """Its groups are those in `learned`, in that order; None where there are none."""
    learned: list[str]
    told: list[str]
    """A sentence on each group that is left out: how many rows it has, and why that is too few; one if groups have
    fewer rows than was asked for, since they are many."""


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

    def _most(self, groups: int, schema: pa.Schema) -> Most:
        """Rows of each of so many groups; never more where there are more groups."""
        each = min(SAMPLE_ROWS, SAMPLE_BYTES // self._source.row_bytes(schema)) // max(1, groups)
        train = min(self._config.train_rows, max(LEAST_ROWS, each))
        return Most(train, min(self._config.validation_rows, max(LEAST_ROWS, each) // HELD_SHARE))

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
        label = labels.cast(pa.string()).dictionary_encode()
        group = label.indices.filter(keep).to_numpy()
        rank = np.argsort(pc.sort_indices(label.dictionary).to_numpy())  # by code point of the names
        chosen = self._lowest(rank[group], coin, payload, sum(self._most(len(rank), payload.schema)))
        names = label.dictionary.take(pa.array(group[chosen]))
        payload = payload.take(pa.array(chosen)).combine_chunks()
        return payload.append_column(GROUP, names).append_column(COIN, pa.array(coin[chosen]))

    def build(self, names: Sequence[str], summaries: Iterable[pa.Table]) -> Built:
        """The proxy of those groups of `names` that have rows enough; memory is bounded by the sample."""
        group, coin, rows, most = self._gathered(names, summaries)
        ends = np.searchsorted(group, np.arange(len(names) + 1))
        counts = np.diff(ends)
        divided = [self._divided(count, most) for count in counts.tolist()]
        reserved = [coin[start : start + cut] for start, cut in zip(ends[:-1], divided, strict=True)]
        free = ~np.isin(coin, np.concatenate([np.zeros(0), *reserved]))
        held, train = [], []
        learned: list[str] = []
        told = self._told_divided(counts, most)
        for name, start, end, cut in zip(names, ends[:-1].tolist(), ends[1:].tolist(), divided, strict=True):
            own = start + cut + np.flatnonzero(free[start + cut : end])[: most.train]
            if cut == 0 or len(own) == 0:
                told.append(self._too_few(name, end - start, cut))
                continue
            held.append(rows.slice(start, cut))
            whole = own[-1] - own[0] + 1 == len(own)  # then no copy is made
            train.append(rows.slice(own[0], len(own)) if whole else rows.take(pa.array(own)))
            learned.append(name)
        if not learned:
            return Built(None, [], told)
        corpus = self._source.corpus(train, held, self._config.proxy_seed, self._device)
        return Built(GroupProxy(corpus, self._config, self._device), learned, told)

    def _divided(self, rows: int, most: Most) -> int:
        """Rows of a group to hold out; none if they are too few."""
        if rows < min(LEAST_ROWS, sum(most)):
            return 0
        return min(most.held, max(rows // HELD_SHARE, rows - most.train, 1))

    def _told_divided(self, counts: np.ndarray, most: Most) -> list[str]:
        """A sentence if groups have more rows than they may have, being many."""
        asked = Most(self._config.train_rows, self._config.validation_rows)
        if most == asked or counts.max(initial=0) < sum(most):
            return []
        return [
            f"`groups`: the proxy learns from {most.train:,} rows of each group at most, and is measured on "
            f"{most.held:,}, instead of {asked.train:,} and {asked.held:,}: the sample of all {len(counts):,} groups "
            "together is bounded"
        ]

    def _too_few(self, name: str, rows: int, held: int) -> str:
        least = min(LEAST_ROWS, self._config.train_rows + self._config.validation_rows)
        what = f"`groups`: nothing is learned of {name!r}, which has {rows} distinct usable rows in the sample"
        if held:
            return f"{what}: other groups, or its own loss, are measured on all of them"
        return f"{what}; it takes {least}"

    def _gathered(
        self, names: Sequence[str], summaries: Iterable[pa.Table]
    ) -> tuple[np.ndarray, np.ndarray, pa.Table, Most]:
        """The sample of all groups by group and coin: indices of groups, coins, rows; and how many a group may have.

        A row whose coin is above those that its full group has is not kept; the others are put in order, and cut back,
        when they are a quarter of what may be kept.
        """
        kept: pa.Table | None = None
        waiting: list[pa.Table] = []
        most = Most(self._config.train_rows, self._config.validation_rows)
        size, highest = 0, np.full(len(names) + 1, np.inf)  # the last is of rows that are of none of the groups
        for table in summaries:
            if kept is None and not waiting:
                most = self._most(len(names), table.schema)
                size = sum(most) * len(names)
            group = pc.index_in(table[GROUP], pa.array(names, pa.string())).combine_chunks()
            index = pc.fill_null(group, -1).to_numpy()
            new = (index >= 0) & (table[COIN].to_numpy() <= highest[index])
            table = table.set_column(table.column_names.index(GROUP), GROUP, group).filter(pa.array(new))
            waiting.append(table)
            if 4 * sum(part.num_rows for part in waiting) > size:
                kept, waiting = self._joined(kept, waiting, sum(most)), []
                group = kept[GROUP].to_numpy()
                last = np.flatnonzero(places(group) == sum(most) - 1)
                highest[group[last]] = kept[COIN].to_numpy()[last]
        if kept is None and not waiting:
            return np.zeros(0, np.int32), np.zeros(0), pa.table({}), most
        kept = self._joined(kept, waiting, sum(most))
        return kept[GROUP].to_numpy(), kept[COIN].to_numpy(), kept.drop_columns([GROUP, COIN]), most

    def _joined(self, kept: pa.Table | None, waiting: list[pa.Table], most: int) -> pa.Table:
        """Of each group the rows with the lowest coins, by group and coin."""
        table = pa.concat_tables([*([] if kept is None else [kept]), *waiting])
        rows = table.drop_columns([GROUP, COIN])
        chosen = self._lowest(table[GROUP].to_numpy(), table[COIN].to_numpy(), rows, most)
        return table.take(pa.array(chosen)).combine_chunks()

    @staticmethod
    def _lowest(group: np.ndarray, coin: np.ndarray, rows: pa.Table, most: int) -> np.ndarray:
        """Of each group the rows with the lowest coins, by group and coin, one of each coin: indices, int64."""
        order = firsts(group, coin, rows)
        return order[places(group[order]) < most]
