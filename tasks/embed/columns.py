"""Embeddings that were made elsewhere and rest in list columns of the input."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.errors import ColumnError
from configs.methods.embed import EmbeddingColumns
from tasks import Failure, Result
from tasks.embed import vectors


class ColumnEmbedder:
    """The configured columns as unit float16 vectors, and their cosine if there are both.

    The width is that of the shard's first vector. A row fails whose vector is null, of another width, not finite or all
    zero; where both columns are null it failed earlier and stays null.
    """

    def __init__(self, config: EmbeddingColumns, columns: tuple[str, ...] = ("image", "text")) -> None:
        """`columns` is there for the Protocol: whether the input has pictures does not matter here."""
        self._sources = {name: source for name, source in (("image", config.image), ("text", config.text)) if source}
        self.needs = tuple(dict.fromkeys(self._sources.values()))
        self.input_columns = self.needs
        self.provides = tuple(f"{name}_embedding" for name in self._sources)
        self.provides += ("alignment",) if len(self._sources) == 2 else ()

    def check_columns(self, schema: pa.Schema) -> None:
        """Raise ColumnError if columns of these types hold no vectors."""
        for source in self.needs:
            unit_rows(schema.empty_table()[source], source)

    def run(self, rows: pa.Table | Iterator[pa.Table]) -> Result:
        """Convert one shard.

        Raises:
            ColumnError: If a column does not hold lists of numbers, or image and text vectors differ in width.
        """
        table = rows if isinstance(rows, pa.Table) else pa.concat_tables(rows)
        nothing = np.all([table[source].is_null().to_numpy() for source in self.needs], axis=0)
        units: dict[str, np.ndarray] = {}
        problems: dict[int, str] = {}
        for name, source in self._sources.items():
            units[name], wrong = unit_rows(table[source], source)
            problems = wrong | problems
        failures = [Failure(row, "bad_embedding", problems[row]) for row in sorted(problems) if not nothing[row]]
        valid = ~nothing
        valid[[failure.row for failure in failures]] = False
        arrays = {f"{name}_embedding": vectors.pack(unit, valid) for name, unit in units.items()}
        fields = [vectors.field(f"{name}_embedding", unit.shape[1]) for name, unit in units.items()]
        if "alignment" in self.provides:
            arrays["alignment"] = pa.array(_cosine(units["image"], units["text"]), mask=~valid)
            fields.append(pa.field("alignment", pa.float32()))
        return Result(pa.table(arrays, schema=pa.schema(fields)), failures)


def unit_rows(column: pa.ChunkedArray, name: str) -> tuple[np.ndarray, dict[int, str]]:
    """Vectors of a list column scaled to length one, and what is wrong with the rows that have none.

    Returns:
        float32 `(n, D)`, zeros where something is wrong; and row -> detail.
    """
    if not _holds_numbers(column.type):
        raise ColumnError(f"`{name}` is a column of {column.type}; embeddings must be lists of numbers")
    null = column.is_null().to_numpy()
    lengths = np.where(null, 0, pc.fill_null(pc.list_value_length(column), 0).to_numpy())
    dim = int(next(iter(lengths[lengths > 0]), 1))
    fits = lengths == dim
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]  # a null number becomes NaN
    found = np.concatenate(values)[np.repeat(fits, lengths)].reshape(-1, dim) if values else np.zeros((0, dim))
    rows = np.flatnonzero(fits)
    unit = np.zeros((len(column), dim), np.float32)
    unit[rows], finite, zero = scale_to_unit(found)
    problems = {row: f"`{name}` is null" for row in np.flatnonzero(null).tolist()}
    for row in np.flatnonzero(~null & ~fits).tolist():
        problems[row] = f"`{name}` has {lengths[row]} numbers; the first vector of the shard has {dim}"
    problems |= {row: f"`{name}` has NaN, infinity or null among its numbers" for row in rows[~finite].tolist()}
    problems |= {row: f"`{name}` is all zeros" for row in rows[zero].tolist()}
    return unit, problems


def scale_to_unit(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows scaled to length one, float32 `(n, D)`, zeros where impossible; which are finite, and which are all zero.

    Args:
        vectors: numbers of any type, `(n, D)`.
    """
    vectors = vectors.astype(np.result_type(vectors.dtype, np.float32), copy=False)
    finite = np.asarray(np.isfinite(vectors).all(axis=1))
    largest = np.abs(vectors).max(axis=1, initial=0, where=finite[:, None])
    usable = largest > 0
    unit = np.zeros(vectors.shape, np.float32)
    # By the largest number first, so that squares neither overflow nor vanish.
    unit[usable] = vectors[usable] / largest[usable, None]
    unit[usable] /= np.linalg.norm(unit[usable], axis=1, keepdims=True)
    return unit, finite, finite & ~usable


def _holds_numbers(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    return pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)


def _cosine(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    if image.shape[1] != text.shape[1]:
        raise ColumnError(
            f"image vectors have {image.shape[1]} numbers and text vectors {text.shape[1]}; "
            "without a common space there is no alignment: name only one of the two columns"
        )
    return np.einsum("nd,nd->n", image, text)
