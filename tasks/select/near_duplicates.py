"""Near duplicates: rows whose embeddings are alike; one keeper a group.

Buckets are k-means cells (faiss, spherical, seeded), as in SemDeDup (arXiv 2303.09540, which has 8,800 rows a cell on
LAION-440M): pairs are compared inside a cell only, so a pair that a cell border divides is missed. With no more rows
than `bucket_rows` there is one cell and the result is exact. Listed twice, with another `draw`, the select finds most
of what the first pass missed, for the borders run elsewhere.

What a group is, `groups` says: see `tasks.select.linkage`. With a target every row is ranked by its similarity to the
better row it is linked with: exactly what some threshold would do for `components` and `semdedup`; with `greedy`, whose
groups depend on the threshold, the closest pairs go first (`tasks.select.closest`). Rows without a direction (a vector
of zeros, a number that is not finite) are kept: nothing is known of what they resemble.

SemDeDup orders a cell by similarity to its centroid and keeps the least alike ("hard"), the most alike ("easy") or any
("random"). Here the centroid is the mean of the cell's distinct rows; the authors' code takes that of k-means.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from storage.states import Checkpoint, State
from tasks.embed.device import device_slot, resolve_device
from tasks.select import Decisions, badness, best_first, cells, keep_all, keeper_needs, linkage
from tasks.select.alike import Cell
from tasks.select.cells import Vectors, divide, nearest
from tasks.select.closest import closest_first
from tasks.select.threads import one_thread

LOOKED_BELOW = 0.05
"""How far below the threshold pairs are looked at too, so that the report can tell what a lower one would drop."""
ROUNDING = 1e-6
"""Of a float32 dot product: a pair exactly at the threshold must not depend on it."""


class NearDuplicates:
    """Partitioned by k-means cell; a cell is compared whole."""

    def __init__(self, config: Any, *, seed: int) -> None:
        self._columns = [f"{name}_embedding" for name in config.compared]
        self._cuts = [config.cut(name) for name in config.compared]
        self._shifts = [cut - self._cuts[0] for cut in self._cuts]
        threshold = self._cuts[0]
        self.ranked: bool = config.target is not None
        self._cut = float(np.float32(threshold - ROUNDING))
        self._floor = None if self.ranked else threshold - min(LOOKED_BELOW, 1 - threshold) - ROUNDING
        self._groups: str = "closest" if self.ranked and config.groups == "greedy" else config.groups
        self._order: str = config.order
        self._keep_by = config.keep_by
        self._bucket_rows: int = config.bucket_rows
        self._seed = int(np.random.SeedSequence([seed, config.draw]).generate_state(1)[0]) if config.draw else seed
        self.needs: tuple[str, ...] = tuple(dict.fromkeys([*self._columns, *keeper_needs(config.keep_by)]))

    def depends_on(self) -> dict[str, Any]:
        """faiss, the device class (other kernels round otherwise), and thresholds that the configuration left open."""
        return cells.faiss_version() | {"device": resolve_device("auto"), "thresholds": self._cuts}

    def summarise(self, rows: pa.Table) -> pa.Table:
        """See `cells.sampled`."""
        return cells.sampled(rows, self._columns, self._bucket_rows)

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint) -> State:
        """See `cells.fitted`."""
        return cells.fitted(summaries, self._columns, self._bucket_rows, self._seed)

    def partition(self, rows: pa.Table, state: State) -> np.ndarray:
        """The nearest centroid of every row."""
        with one_thread():
            return nearest(self._vectors(rows), np.arange(rows.num_rows), state["centroids"])

    def decide(self, rows: pa.Table, state: State) -> Decisions:
        """Keep the keepers of one cell; a cell that is far too large is divided first, by the same rule."""
        vectors, order = self._vectors(rows), best_first(rows, self._keep_by)
        link = np.full(rows.num_rows, -1, np.int64)
        similarity = np.full(rows.num_rows, -np.inf, np.float32)
        first = vectors.firsts(order)
        copies = np.flatnonzero((first >= 0) & (first != np.arange(rows.num_rows)))
        with one_thread(), device_slot(resolve_device("auto")):
            parts, forced = divide(vectors, order[first[order] == order], self._bucket_rows, self._seed)
            for part in parts:
                inside = self._ordered(vectors, part)
                found, alike = self._linked(Cell(vectors.take(inside), self._shifts, self._floor, self._cut))
                link[inside], similarity[inside] = np.where(found >= 0, inside[found], -1), alike
        link[copies], similarity[copies] = first[copies], 1 - max(0, *self._shifts)
        if self._groups == "greedy":  # a copy goes with what it is a copy of
            taken = copies[similarity[first[copies]] >= self._cut]
            link[taken], similarity[taken] = link[first[taken]], similarity[first[taken]]
        counts = {"no_direction": int(np.sum(first < 0)), "cut_cells": forced}
        return self._told(rows, link, similarity)._replace(counts={name: n for name, n in counts.items() if n})

    def warnings(self, counts: dict[str, int]) -> list[str]:
        """See `cells.warnings`."""
        again = "; list the select again with another `draw` to compare across the cuts"
        return cells.warnings(counts, unknown="are kept uncompared", bucket_rows=self._bucket_rows, again=again)

    def _vectors(self, rows: pa.Table) -> Vectors:
        return Vectors([rows[name] for name in self._columns])

    def _ordered(self, vectors: Vectors, part: np.ndarray) -> np.ndarray:
        """One cell's rows, those to keep first."""
        if self._order == "keep_by":
            return part
        if self._order == "random":
            return np.random.default_rng(self._seed).permutation(part)
        joint = vectors.joint(part)
        alike = joint @ joint.sum(axis=0)  # in the order of the cosine with the mean
        return part[np.argsort(alike if self._order == "hard" else -alike, kind="stable")]

    def _linked(self, cell: Cell) -> linkage.Links:
        if self._groups == "greedy":
            return linkage.greedy(cell, self._cut)
        if self._groups == "closest":
            return closest_first(cell)
        return linkage.semdedup(cell) if self._groups == "semdedup" else linkage.components(cell)

    def _told(self, rows: pa.Table, link: np.ndarray, similarity: np.ndarray) -> Decisions:
        linked = link >= 0
        decisions = keep_all(rows.num_rows)
        decisions.score[linked] = similarity[linked]
        if self.ranked:
            decisions.reason[linked] = "near_duplicate"
            decisions.keeper[:] = link
            return decisions._replace(rank=np.column_stack([similarity, badness(rows, self._keep_by)]))
        gone = similarity >= self._cut
        decisions.keep[:] = ~gone
        decisions.reason[gone] = "near_duplicate"
        decisions.keeper[gone] = linkage.followed(link, gone)[gone]
        return decisions
