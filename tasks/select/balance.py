"""Balance: MetaCLIP-style balancing (Xu et al., arXiv 2309.16671) on whatever concepts `annotate` found.

Concepts in more than t rows are thinned towards t rows, rarer ones stay whole: see `tasks.mix.balance`. The paper's
own setting is captions against 500,000 entries without case folding.

Each row has one coin, a uniform number made of its uid, its row number and the seed; it stays if the coin is below
P(keep). So no coin depends on other rows, on shards or on order, and with the same counts a larger t keeps all rows
that a smaller one keeps. Equal rows at one place of two files have one coin: let `exact_duplicates` go first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.exchange import ROW
from storage.states import Checkpoint, State
from tasks.mix.balance import critical_thresholds, entry_counts, entry_probabilities, keep_probabilities, p_to_t
from tasks.select import Decisions, keep_all
from tasks.select.coins import coins, uid_halves

MERGE_ROWS = 1 << 20
"""Summary rows that are gathered, at least, before they are added up."""


class Balance:
    """Rows without a concept (null or empty list) are dropped."""

    needs: tuple[str, ...] = ("concepts", "uid")

    def __init__(self, config: Any, *, seed: int) -> None:
        self._threshold: float | None = config.threshold
        self._tail_share: float | None = config.tail_share
        self.ranked = config.target is not None
        self.forecasts = not self.ranked  # then the outcome is wanted, not forecast
        self._keys = np.random.SeedSequence([seed, config.draw]).generate_state(2, np.uint64)

    def summarise(self, rows: pa.Table) -> pa.Table:
        """The rows that hold each concept: `concept: large_string`, `rows: int64`."""
        offsets, codes, words = encoded(rows.column("concepts"))
        return pa.table({"concept": words, "rows": entry_counts((offsets, codes), len(words))})

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint) -> State:
        """The threshold, the concepts in code-point order (packed) and how many rows hold each."""
        total = summed(summaries)
        counts = total["rows"].to_numpy()
        if self._threshold is not None:
            threshold = self._threshold
        elif self._tail_share is None:  # a target finds its own
            threshold = 0.0
        else:
            threshold = p_to_t(counts, self._tail_share) if len(counts) else 0.0
        return {"threshold": np.float64(threshold), "counts": counts} | packed(total["concept"].combine_chunks())

    def forecast(self, rows: pa.Table, state: State) -> dict[str, float]:
        """Rows, rows with a concept, and mean and variance of the number of rows kept."""
        kept, found = self._kept(rows, state)
        variance = float(np.sum(kept * (1 - kept)))
        facts = {"rows": rows.num_rows, "with_concept": int(found.sum())}
        return facts | {"expected": float(np.sum(kept)), "variance": variance}

    def told(self, state: State, sums: dict[str, float]) -> str:
        """The forecast in words: t, the share of labels in concepts that stay whole, the expected size and sigma."""
        counts, t = state["counts"], float(state["threshold"])
        thinned = counts > t
        share = counts[~thinned].sum() / max(1, counts.sum())
        line = (
            f"t = {t:,.12g} (tail share {share:.2f}): expects {sums['expected']:,.0f} ± {sums['variance'] ** 0.5:,.0f} "
            f"of {sums['rows']:,.0f} rows, {thinned.sum():,} of {len(counts):,} concepts are thinned"
        )
        if without := sums["rows"] - sums["with_concept"]:
            line += f", {without:,.0f} rows have no concept"
        if not sums["with_concept"]:
            return f"{line}: nothing is kept"
        if sums["expected"] < 1:
            return f"{line}: t is so low that next to nothing is kept"
        return line if thinned.any() else f"{line}: t is so high that every row with a concept is kept"

    def decide(self, rows: pa.Table, state: State) -> Decisions:
        """Keep the rows whose coin is below P(keep), which is their score.

        With a target the score is the t from which a row stays, and those of the lowest t stay.
        """
        decisions = keep_all(rows.num_rows)
        drawn = coins(uid_halves(rows.column("uid")), rows.column(ROW).to_numpy(), self._keys)
        if self.ranked:
            offsets, codes, counts = self._counted(rows, state, np.ones(len(state["counts"]), bool))
            least, found = critical_thresholds((offsets, codes), counts, drawn), np.diff(offsets) > 0
            decisions.score[:] = np.where(found, least, np.nan)
            decisions.keep[:] = found
            decisions.reason[:] = np.where(found, "balanced_out", "no_concept")
            return decisions._replace(rank=least.astype(np.float32))
        kept, found = self._kept(rows, state)
        decisions.score[:] = kept
        decisions.keep[:] = drawn < kept
        decisions.reason[~decisions.keep] = "balanced_out"
        decisions.reason[~found] = "no_concept"
        return decisions

    @classmethod
    def _kept(cls, rows: pa.Table, state: State) -> tuple[np.ndarray, np.ndarray]:
        """P(keep) of each row, float64 `(n,)`, and whether it has a concept, bool `(n,)`."""
        # Only the head is looked up, a small part of a large vocabulary: every other concept is kept whole anyway.
        offsets, codes, counts = cls._counted(rows, state, state["counts"] > state["threshold"])
        kept = keep_probabilities((offsets, codes), entry_probabilities(counts, float(state["threshold"])))
        return kept, np.diff(offsets) > 0

    @staticmethod
    def _counted(rows: pa.Table, state: State, known: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Offsets and codes of the rows' concepts, and how many rows hold each, 0 for those that are not `known`."""
        offsets, codes, words = encoded(rows.column("concepts"))
        place = pc.index_in(words, value_set=unpacked(state).filter(pa.array(known)))
        counts = np.zeros(len(words), np.int64)
        counts[place.is_valid().to_numpy(zero_copy_only=False)] = state["counts"][known][place.drop_null().to_numpy()]
        return offsets, codes, counts


def encoded(concepts: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray, pa.Array]:
    """Offsets int64 `(n + 1,)`, codes int32 and the distinct concepts (large_string) of list<string> rows.

    Raises:
        ValueError: A concept is null; a row may be.
    """
    lengths = pc.fill_null(pc.list_value_length(concepts), 0).to_numpy().astype(np.int64)
    values = pc.list_flatten(concepts).cast(pa.large_string())
    if values.null_count:
        raise ValueError("`concepts` holds a null concept; a row may be null, a concept may not")
    return np.concatenate(([0], np.cumsum(lengths))), *_coded(values)


def summed(summaries: Iterable[pa.Table]) -> pa.Table:
    """Rows by concept over all summaries, in code-point order; memory is bounded by the distinct concepts."""
    total = pa.table({"concept": pa.array([], pa.large_string()), "rows": pa.array([], pa.int64())})
    waiting: list[pa.Table] = []
    gathered = 0
    for summary in summaries:
        waiting.append(summary)
        gathered += summary.num_rows
        if gathered >= max(MERGE_ROWS, total.num_rows):  # as many as the sum has: so the whole work is linear
            total, waiting, gathered = _added([total, *waiting]), [], 0
    return _added([total, *waiting]).sort_by("concept")


def _added(tables: list[pa.Table]) -> pa.Table:
    every = pa.concat_tables(tables)
    codes, concepts = _coded(every["concept"])
    rows = np.zeros(len(concepts), np.int64)
    np.add.at(rows, codes, every["rows"].to_numpy())
    return pa.table({"concept": concepts, "rows": rows})


def _coded(strings: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Codes int32 `(n,)` and the distinct strings."""
    coded = strings.combine_chunks().dictionary_encode()
    return coded.indices.to_numpy(), coded.dictionary


def packed(concepts: pa.LargeStringArray) -> State:
    """Strings as `offsets` int64 `(E + 1,)` and `text`, their UTF-8 bytes: any character may be in them."""
    lengths = pc.binary_length(concepts).to_numpy()
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)))
    text = b"".join(concepts.cast(pa.large_binary()).to_pylist())
    return {"offsets": offsets, "text": np.frombuffer(text, np.uint8)}


def unpacked(state: State) -> pa.LargeStringArray:
    """The strings that `packed` has packed."""
    offsets, text = (pa.py_buffer(np.ascontiguousarray(state[name])) for name in ("offsets", "text"))
    return pa.LargeStringArray.from_buffers(len(state["offsets"]) - 1, offsets, text)
