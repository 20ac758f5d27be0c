"""Near-duplicate texts by MinHash: rows whose shingle sets have a Jaccard similarity of at least the threshold.

A signature is cut into b bands of r slots; rows that agree in a whole band are candidates, which two texts of
similarity s are with the probability 1 - (1 - s^r)^b (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4).
Candidates are then compared by the share of slots in which they agree, an unbiased estimate of the similarity. Equal
signatures are one row until the end, and a band that very many distinct rows share is compared through a bounded
number of leaders, so that no input takes quadratic time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from storage.exchange import ROW, SHARD
from storage.packed import unpack
from storage.states import State
from tasks.select import GROUP, Decisions, best_first, keep_all, keeper_needs, ranks_by_score
from tasks.select.banding import ALL_PAIRS, band_keys, compare, distinct
from tasks.select.groups import rule_of

NEAR = 0.05
"""How far from the threshold a planted pair may lie to be counted in what a run tells of itself."""
LEAST_PAIRS = 30
"""Planted pairs that are a measurement."""


class MinHash:
    """Linked by band; decided by the agreement of signatures within a component."""

    def __init__(self, config: Any, *, seed: int) -> None:
        del seed  # the sketch has its own: signatures are kept in the store
        self._config, self._sketch = config, config.sketch
        self._bands, self._slots = bands_of(config)
        self.ranked: bool = config.target is not None
        self.needs: tuple[str, ...] = (
            *(self._sketch.column, self._sketch.planted_column),
            *keeper_needs(config.keep_by),
        )

    def keys(self, rows: pa.Table, state: State) -> np.ndarray:
        """The hash of each band, uint64 `(n, b)`; a row without text has one of its own, so that it meets no other."""
        column = rows.column(self._sketch.column)
        keys = band_keys(unpack(column, "<u2"), self._bands, self._slots)
        blank = np.flatnonzero(column.is_null().to_numpy())
        place = np.stack([rows.column(name).to_numpy()[blank] for name in (SHARD, ROW)], 1).astype(np.int64)
        keys[blank] = band_keys(place.view("<u2"), 1, place.shape[1] * 4)
        return keys

    def forecast(self, rows: pa.Table, state: State) -> dict[str, float]:
        """How many planted pairs near the threshold are found, how many should be, and how many count as alike."""
        column = rows.column(self._sketch.planted_column)
        at = np.flatnonzero(column.is_valid().to_numpy())
        raw = np.array([np.frombuffer(one, np.uint8) for one in column.take(pa.array(at)).to_pylist()])
        raw = np.ascontiguousarray(raw.reshape(len(at), 4 + 2 * self._sketch.num_perm))
        exact = raw[:, :4].copy().view("<f4").ravel().astype(np.float64)
        near = np.abs(exact - self._config.threshold) <= NEAR
        planted = raw[near, 4:].copy().view("<u2").reshape(-1, self._sketch.num_perm)
        own = unpack(rows.column(self._sketch.column).take(pa.array(at[near])), "<u2")
        met = band_keys(own, self._bands, self._slots) == band_keys(planted, self._bands, self._slots)
        found, above = met.any(axis=1), exact[near] >= self._config.threshold
        alike = found & ((own == planted).mean(axis=1) >= self._config.threshold)
        return {
            "pairs": float(near.sum()),
            "expected": float(recall(exact[near], self._bands, self._slots).sum()),
            "found": float(found.sum()),
            "above": float(above.sum()),
            "confirmed": float((above & (alike | (found & (not self._config.verify)))).sum()),
        }

    def told(self, state: State, sums: dict[str, float]) -> str:
        """Parameters, tokeniser, seed, and recall at the threshold: by the formula, and as measured in this run."""
        sketch, threshold, pairs = self._sketch, self._config.threshold, sums.get("pairs", 0)
        unit = "words" if sketch.tokens == "words" else "characters"
        line = (
            f"minhash: {sketch.ngram}-grams of {unit}, {sketch.num_perm} hashes in {self._bands} bands of "
            f"{self._slots}, seed {sketch.seed}; texts of Jaccard {threshold:g} are candidates with probability "
            f"{recall(threshold, self._bands, self._slots):.3f} by the formula"
        )
        if pairs < LEAST_PAIRS:
            return f"{line}; too few texts are long enough to measure it"
        line += (
            f"; of {int(pairs):,} pairs planted within {NEAR:g} of it {sums['found'] / pairs:.3f} were found, "
            f"{sums['expected'] / pairs:.3f} by the formula"
        )
        if not sums["above"] or not self._config.verify:
            return line
        return f"{line}; of those at the threshold or above {sums['confirmed'] / sums['above']:.3f} were also confirmed"

    def decide(self, rows: pa.Table, state: State) -> Decisions:
        """Keep one row of each group of near duplicates; or rank rows by how alike to a better one they are.

        Of rows with equal signatures the best stands for all: the others follow it, whatever becomes of it.
        """
        decisions = keep_all(rows.num_rows)
        column, order = rows.column(self._sketch.column), best_first(rows, self._config.keep_by)
        order = order[column.is_valid().to_numpy()[order]]
        signatures = unpack(column, "<u2")[order]
        first, same = distinct(signatures)
        heads, signatures = order[first], signatures[first]
        group = rows.column(GROUP).to_numpy()[heads]
        cut = self._config.threshold if self._config.verify else 0.0
        keys = band_keys(signatures, self._bands, self._slots)
        edges, nearest, capped = compare(signatures, keys, group, cut)
        rule = rule_of(self._config.groups, ranked=self.ranked)
        keeper, similarity = rule(edges, np.arange(len(heads)), len(heads))
        stays, copy = keeper < 0, first[same] != np.arange(len(order))
        # A copy names what stands for its head; with a target the head, which another row may stand for in turn.
        by_head = copy & (stays[same] | self.ranked)
        dropped = copy | ~stays[same]
        decisions.keep[order] = ~dropped | self.ranked
        decisions.reason[order[dropped]] = "near_duplicate_text"
        decisions.score[order] = np.where(by_head, 1, np.where(stays, nearest, similarity)[same])
        decisions.keeper[order[dropped]] = heads[np.where(by_head, same, keeper[same])[dropped]]
        rank = ranks_by_score(rows, decisions, self._config.keep_by) if self.ranked else None
        return decisions._replace(rank=rank, counts={"capped_bands": capped})

    def warnings(self, counts: dict[str, int]) -> list[str]:
        """What was compared less than fully."""
        runs = counts.get("capped_bands", 0)
        if not runs:
            return []
        return [
            f"{runs:,} bands are shared by more than {ALL_PAIRS} groups of texts unlike each other: rows in them were "
            f"compared with {ALL_PAIRS} others at most, and near duplicates may remain; more `band_rows` makes bands "
            "more selective"
        ]


def recall(similarity: Any, bands: int, slots: int) -> Any:
    """Probability that two rows of a Jaccard similarity share a band: 1 - (1 - s^r)^b."""
    return 1 - (1 - similarity**slots) ** bands


def bands_of(config: Any) -> tuple[int, int]:
    """Bands and slots of each: as given, or the most slots with which `recall` is reached at the threshold.

    Candidates are compared by their signatures anyway, so a wrong one costs a comparison and a missed one is lost.
    """
    if config.bands:
        return config.bands, config.band_rows
    num_perm = config.sketch.num_perm
    reached = [r for r in range(1, num_perm + 1) if recall(config.threshold, num_perm // r, r) >= config.recall]
    slots = max(reached, default=1)
    return num_perm // slots, slots
