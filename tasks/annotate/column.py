"""Concepts that the input already carries: a list of strings a row, or one joined string."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.errors import ColumnError
from configs.methods.annotate import ConceptColumn
from tasks import Failure, Result
from tasks.annotate.sidecar import SCHEMA, sidecar
from tasks.embed.texts import read_texts


class ColumnAnnotator:
    """The concepts of a column, repeats kept, those with a confidence below the threshold left out.

    Of a joined string the parts are trimmed. Null and empty concepts are left out, and so are those whose confidence is
    null or NaN. A row fails that is not UTF-8, or has not as many confidences as concepts.
    """

    provides = tuple(SCHEMA.names)

    def __init__(self, config: ConceptColumn, state: dict[str, np.ndarray] | None = None) -> None:
        """`state` is there for the Protocol: nothing is fitted."""
        if config.threshold > 0 and config.scores is None:
            raise ValueError(f"`threshold` is {config.threshold}, but `scores` names no column of confidences")
        self.config = config
        self.needs = (config.column,) if config.scores is None else (config.column, config.scores)
        self.input_columns = self.needs

    def run(self, rows: pa.Table) -> Result:
        """Annotate one shard.

        Raises:
            ColumnError: If a column is of a type that cannot be read.
        """
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
            scores = pa.array(aligned[keep])
        kept = np.bincount(owner[keep], minlength=len(rows))
        table = sidecar(concepts.filter(pa.array(keep)), kept, null[name] | failed, scores)
        return Result(table, [Failure(row, "bad_concepts", problems[row]) for row in sorted(problems)])


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
