"""Concepts that the input already carries: a list of strings a row, or one joined string."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.errors import ColumnError
from configs.methods.annotate import ConceptColumn
from tasks import Failure, Result
from tasks.annotate import mining
from tasks.annotate.cleaning import normalise
from tasks.annotate.entries import State, decode_vocabulary, mined_state
from tasks.annotate.sidecar import SCHEMA, sidecar
from tasks.embed.texts import read_texts
from tasks.sample.concepts import row_frequencies

MERGED = 100_000
"""Distinct concepts, those of the most rows, that are compared for merging; the others are what they are."""


class ColumnAnnotator:
    """The concepts of a column, repeats kept, those with a confidence below the threshold left out.

    Of a joined string the parts are trimmed. Null and empty concepts are left out, and so are those whose confidence is
    null or NaN, and those that cleaning leaves empty. A row fails that is not UTF-8, or has not as many confidences as
    concepts.

    With `cleaning: merge` what merges is found once from all rows (`summarise`, `fit`) and comes as state.
    """

    provides = tuple(SCHEMA.names)

    def __init__(self, config: ConceptColumn, state: State | None = None) -> None:
        if config.threshold > 0 and config.scores is None:
            raise ValueError(f"`threshold` is {config.threshold}, but `scores` names no column of confidences")
        self.config = config
        self.needs = (config.column,) if config.scores is None else (config.column, config.scores)
        self.input_columns = self.needs
        self.fitted = config.cleaning == "merge"
        self._merged: dict[str, str] | None = None
        if state is not None:
            concepts = decode_vocabulary(state["vocabulary"])
            places = zip(decode_vocabulary(state["names"]), state["concept_of"].tolist(), strict=True)
            self._merged = {normalise(name): concepts[place] for name, place in places if place >= 0}

    def run(self, rows: pa.Table) -> Result:
        """Annotate one shard.

        Raises:
            ColumnError: If a column is of a type that cannot be read.
        """
        if self.fitted and self._merged is None:
            raise ValueError("`state` is None; `cleaning` merge needs what `fit` has found")
        null, concepts, owner, scores, problems = self._read(rows)
        if self.config.cleaning != "none":
            concepts, owner, scores = self._cleaned(concepts, owner, scores)
        kept = np.bincount(owner, minlength=len(rows))
        null[list(problems)] = True
        table = sidecar(concepts, kept, null, None if scores is None else pa.array(scores))
        return Result(table, [Failure(row, "bad_concepts", problems[row]) for row in sorted(problems)])

    def check_columns(self, schema: pa.Schema) -> None:
        """Raise ColumnError if columns of these types cannot be read."""
        self._read(schema.empty_table())

    def summarise(self, rows: pa.Table) -> pa.Table:
        """How many of a shard's rows have each concept, as it is written there."""
        _, concepts, owner, _, _ = self._read(rows)
        encoded = concepts.dictionary_encode()
        offsets = np.searchsorted(owner, np.arange(len(rows) + 1))
        counts = row_frequencies(offsets, encoded.indices.to_numpy(), len(encoded.dictionary))
        table = pa.table([encoded.dictionary.cast(pa.string()), counts], schema=mining.SCHEMA)
        return mining.most_frequent(table, mining.SUMMARY_ROWS)

    def fit(self, summaries: Iterable[pa.Table]) -> State:
        """Which concepts become which: those of fewer rows those of more; empty if there is none."""
        found = mining.frequent_phrases(summaries, min_count=1, max_concepts=MERGED)
        return mined_state(found["phrase"].to_pylist(), found["captions"].to_pylist(), self.config.cleaning)

    def _read(self, rows: pa.Table) -> tuple[np.ndarray, pa.Array, np.ndarray, np.ndarray | None, dict[int, str]]:
        """Which rows are null, bool `(n,)`; the concepts that count, their rows and confidences; row -> problem."""
        null = {name: rows[name].is_null().to_numpy() for name in self.needs}
        name, scored_by = self.config.column, self.config.scores
        concepts, counts, broken = _concepts(rows[name], name, self.config.separator)
        problems = dict.fromkeys(np.flatnonzero(broken).tolist(), f"`{name}` is not UTF-8")
        scores, score_counts = (None, counts) if scored_by is None else _scores(rows[scored_by], scored_by)
        for row in np.flatnonzero((counts != score_counts) & ~broken).tolist():
            problems[row] = f"`{name}` has {counts[row]} concepts, `{scored_by}` has {score_counts[row]} confidences"
        for row in np.flatnonzero(null[name] & ~np.all(list(null.values()), axis=0)).tolist():
            problems[row] = f"`{name}` is null, `{scored_by}` is not"
        failed = np.zeros(len(rows), bool)
        failed[list(problems)] = True
        owner = np.repeat(np.arange(len(rows)), counts)
        keep = ~failed[owner] & pc.fill_null(pc.not_equal(concepts, ""), False).to_numpy(zero_copy_only=False)
        if scores is not None:
            # The same number of confidences as concepts in every row that has not failed: there they are parallel.
            aligned = np.full(len(concepts), np.nan, np.float32)
            aligned[~failed[owner]] = scores[~np.repeat(failed, score_counts)]
            keep &= aligned >= self.config.threshold
            scores = aligned[keep]
        return null[name], concepts.filter(pa.array(keep)), owner[keep], scores, problems

    def _cleaned(
        self, concepts: pa.Array, owner: np.ndarray, scores: np.ndarray | None
    ) -> tuple[pa.Array, np.ndarray, np.ndarray | None]:
        """The concepts cleaned, those left out that are empty then, with their rows and confidences."""
        encoded = concepts.dictionary_encode()
        spelled = [normalise(value) for value in encoded.dictionary.to_pylist()]
        merged = self._merged or {}
        cleaned = pa.array([merged.get(spelling, spelling) for spelling in spelled], pa.large_string())
        concepts = cleaned.take(encoded.indices)
        keep = pc.not_equal(concepts, "").to_numpy(zero_copy_only=False)
        return concepts.filter(pa.array(keep)), owner[keep], None if scores is None else scores[keep]


def _concepts(column: pa.ChunkedArray, name: str, separator: str) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """All concepts row after row; how many each row has, int64 `(n,)`; which rows are not UTF-8, bool `(n,)`."""
    if _is_list(column.type) and _is_string(column.type.value_type):
        flat, counts = _flatten(column)
        concepts = _strings(flat)
        broken = np.zeros(len(counts), bool)
        broken[np.repeat(np.arange(len(counts)), counts)[_not_utf8(concepts)]] = True
        return concepts, counts, broken
    if not _is_string(column.type):
        raise ColumnError(f"`{name}` is a column of {column.type}; concepts must be lists of strings, or strings")
    joined = _strings(column)
    broken = _not_utf8(joined)
    flat, counts = _flatten(pc.split_pattern(pc.if_else(pa.array(broken), None, joined), pattern=separator))
    return pc.utf8_trim_whitespace(flat), counts, broken


def _scores(column: pa.ChunkedArray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """All confidences row after row, float32, NaN for null; how many each row has, int64 `(n,)`."""
    kind = column.type
    if not _is_list(kind) or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise ColumnError(f"`{name}` is a column of {kind}; confidences must be lists of numbers")
    flat, counts = _flatten(column)
    return flat.to_numpy(zero_copy_only=False).astype(np.float32), counts


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_string(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _flatten(lists: pa.ChunkedArray | pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Elements of all lists, those below a null left out, and how many each list has, int64 `(n,)`, 0 for null."""
    chunks = lists.chunks if isinstance(lists, pa.ChunkedArray) else [lists]
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    empty = pa.array([], lists.type.value_type)
    return pa.concat_arrays([empty, *(chunk.flatten() for chunk in chunks)]), lengths


def _strings(array: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The strings as one large_string array, a dictionary resolved."""
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    array = array.cast(pa.large_string())
    return array if isinstance(array, pa.Array) else pa.concat_arrays([pa.array([], pa.large_string()), *array.chunks])


def _not_utf8(strings: pa.Array) -> np.ndarray:
    """Which strings are not UTF-8 (Parquet does not check), bool `(n,)`."""
    mask = np.zeros(len(strings), bool)
    try:
        strings.cast(pa.large_binary()).cast(pa.large_string())  # this cast does check
    except pa.ArrowInvalid:
        mask[list(read_texts(strings)[1])] = True
    return mask
