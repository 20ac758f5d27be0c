"""Near-duplicate pictures by perceptual hash: rows whose hashes differ in at most so many bits.

Up to `ROWS_TOGETHER` rows meet in one call, which has only their hashes to hold. Of more, rows meet that agree under
one of many masks, as all do that are alike (`tasks.select.covers`); with flips nearly all. A row may meet others by
chance: the more rows there are and the larger the distance, the more masks it takes to keep those few. 800 are enough
for 100 million rows at 4 of 64, 12 of 256 or 40 of 1,024 bits, about; beyond, chance joins nearly all rows into one
group, which is cut, and pairs are missed. What is compared, and where not all is, `tasks.select.hamming` has.

Rows with equal hashes are one row until the end. A picture with next to nothing in it has no hash worth comparing: such
rows are alike if they are equal, image bytes and text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from storage.states import Checkpoint, State
from tasks.score.image_hash import unpack
from tasks.select import Decisions, best_first, covers, hamming, keep_all, keeper_needs, ranks_by_score
from tasks.select.coins import uid_halves
from tasks.select.groups import Pairs, rule_of
from tasks.select.linking import places
from tasks.select.sorting import first_of_each

ROWS_TOGETHER = 1 << 20
"""Rows that meet in one call, whatever they look like."""

_NO_PAIRS: Pairs = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


class Perceptual:
    """Linked by chunks of the hash; decided by the bits that differ."""

    def __init__(self, config: Any, *, seed: int) -> None:
        del seed  # nothing is drawn
        self._config, sketch = config, config.sketch
        self._hash: tuple[str, ...] = (sketch.column, *([sketch.mirrored_column] if config.flips else []))
        self._spread: str = sketch.spread_column
        self._bits: int = sketch.bits
        self.ranked: bool = config.target is not None
        self.needs: tuple[str, ...] = tuple(
            dict.fromkeys(("uid", *self._hash, self._spread, *keeper_needs(config.keep_by)))
        )

    def summarise(self, rows: pa.Table) -> pa.Table:
        """The number of rows."""
        return pa.table({"rows": [rows.num_rows]})

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint) -> State:
        """`masks: uint64 (T, words)`: rows meet that agree in all bits of one; a mask without bits lets all meet."""
        count = sum(int(n) for table in summaries for n in table["rows"].to_numpy())
        return {"masks": linking_masks(count, self._bits, self._config.max_distance, self._config.flips)}

    def keys(self, rows: pa.Table, state: State) -> np.ndarray:
        """Hashes under the masks, uint64 `(n, T)`, or `(n, 2 * T)` with flips: the smaller and the larger of both.

        A picture and a flipped copy of it have the same two if neither hash differs from its counterpart under the
        mask. If one does, one of the two keys is the same still, but where the other hash lies between it and its
        counterpart: few copies meet under no mask.
        """
        hashes = [unpack(rows[name]) for name in self._hash]
        keys = [np.stack([hamming.masked(words, mask) for mask in state["masks"]], 1) for words in hashes]
        joined = np.hstack([np.minimum(*keys), np.maximum(*keys)]) if len(keys) > 1 else keys[0]
        hashed, blank = self._kinds(rows)
        joined[blank] = uid_halves(rows["uid"])[blank, :1]
        nothing = ~hashed & ~blank  # of its own, so that it meets no other
        joined[nothing] = (places(rows)[nothing, None].astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        return joined

    def decide(self, rows: pa.Table, state: State) -> Decisions:
        """Keep one row of each group of alike pictures; with a target, rank by how alike rows are to a better one."""
        decisions = keep_all(rows.num_rows)
        order = best_first(rows, self._config.keep_by)
        hashed, blank = self._kinds(rows)
        capped = self._settle(decisions, order[hashed[order]], [unpack(rows[name]) for name in self._hash])
        self._settle(decisions, order[blank[order]], [uid_halves(rows["uid"])], compared=False)
        rank = ranks_by_score(rows, decisions, self._config.keep_by) if self.ranked else None
        return decisions._replace(rank=rank, counts={"capped_runs": capped})

    def _kinds(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Rows whose hash counts, and rows with too little in their pictures: bool `(n,)` each."""
        spread = rows[self._spread].to_numpy()  # NaN for null: neither
        return spread >= self._config.min_spread, spread < self._config.min_spread

    def _settle(self, decisions: Decisions, order: np.ndarray, strings: list[np.ndarray], compared: bool = True) -> int:
        """Decide on the rows of `order`, best first, in place; returns how many runs were too long to compare all.

        Of rows with equal strings the best stands for all: the others follow it, whatever becomes of it.
        """
        strings = [words[order] for words in strings]
        first, same = distinct(np.hstack(strings))
        heads = order[first]
        pairs, capped = self._pairs([words[first] for words in strings]) if compared else (_NO_PAIRS, 0)
        rule = rule_of(self._config.groups, ranked=self.ranked)
        keeper, similarity = rule(pairs, np.arange(len(heads)), len(heads))
        follows = first[same] != np.arange(len(order))
        stands = ~follows & (keeper[same] < 0)
        decisions.keep[order] = stands | self.ranked
        decisions.reason[order[~stands]] = "near_duplicate_image"
        decisions.score[order] = np.where(follows, 1, similarity[same])
        to_head = follows & (self.ranked | (keeper[same] < 0))
        decisions.keeper[order] = np.where(stands, -1, np.where(to_head, heads[same], heads[keeper[same]]))
        return capped

    def _pairs(self, strings: list[np.ndarray]) -> tuple[Pairs, int]:
        """Alike rows (better, worse, share of equal bits); mirrored hashes, if there are any, count with the others."""
        n = len(strings[0])
        found = hamming.near(np.concatenate(strings), self._bits, self._config.max_distance)
        i, j, apart = found.i % n, found.j % n, found.distance
        i, j = np.minimum(i, j), np.maximum(i, j)
        if len(strings) > 1:  # a pair of pictures may be several pairs of hashes: the closest one counts
            useful = np.flatnonzero((found.i < n) & (i != j))
            closest = useful[np.lexsort((apart[useful], j[useful], i[useful]))]
            new = np.append(True, (np.diff(i[closest]) != 0) | (np.diff(j[closest]) != 0))[: len(closest)]
            i, j, apart = (column[closest[new]] for column in (i, j, apart))
        return (i, j, (1 - apart / self._bits).astype(np.float32)), found.capped

    def warnings(self, counts: dict[str, int]) -> list[str]:
        """What was compared less than fully."""
        if not (runs := counts.get("capped_runs", 0)):
            return []
        return [
            f"{runs:,} times very many different hashes agreed in part: each was compared with the "
            f"{hamming.WINDOW:,} next to it at most, and near duplicates may remain; a larger `hash_size`, another "
            "`hash` or a higher `min_spread` tells pictures better apart"
        ]


def linking_masks(count: int, bits: int, distance: int, flips: bool = False) -> np.ndarray:
    """Masks under which `count` rows meet, uint64 `(T, words)`: all do, or few that are not alike."""
    if count <= ROWS_TOGETHER:
        return np.zeros((1, -(-bits // 64)), np.uint64)
    return covers.fitting(
        4 * count if flips else count, bits, distance
    )  # twice the keys, of the smaller and the larger


def distinct(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row of every distinct string, ascending, int64 `(m,)`, and of every row which of those it equals.

    Args:
        words: uint64 `(n, w)`.
    """
    whole = np.ascontiguousarray(words)
    flat = whole.ravel() if words.shape[1] == 1 else whole.view(np.dtype((np.void, 8 * words.shape[1]))).ravel()
    return first_of_each(flat)
