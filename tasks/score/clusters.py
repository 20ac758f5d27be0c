"""Clusters of embeddings as groups: spherical k-means on a sample, then the nearest centre of every row.

The sample is the rows with the lowest coins, which are made of uids alone, and stands in their order: so the same rows
have the same clusters, however they are cut into shards. Labels are "cluster 00", "cluster 01"...; a row without an
embedding, or with one of zeros, has a label of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from storage.packed import pack
from storage.packed import unpack as unpacked
from storage.states import Checkpoint, State
from tasks import Result
from tasks.embed.vectors import unpack
from tasks.select.cells import SLICE, faiss_version, kmeans
from tasks.select.coins import coins, uid_halves
from tasks.select.directions import directions, distinct_rows

COLUMN, COIN, VECTOR, UID = "cluster", "__coin", "__vector", "uid"
NEEDS = {"image": ("image_embedding",), "text": ("text_embedding",), "both": ("image_embedding", "text_embedding")}
WITHOUT = "(no embedding)"
ITERATIONS = 20


class Clusters:
    """A fitted scorer: `cluster`, a dictionary of strings, in every row."""

    provides: tuple[str, ...] = (COLUMN,)
    sketches: tuple[str, ...] = (COLUMN,)
    remedy = (
        "Clusters need embeddings: add `embed`, and of texts alone set `vectors: text`; or take groups that the input "
        "names."
    )

    def __init__(self, config: Any, *, state: State | None = None) -> None:
        self._config, self._state = config, state
        self._columns = NEEDS[config.vectors]
        self.needs: tuple[str, ...] = (*self._columns, UID)

    def depends_on(self) -> dict[str, Any]:
        """The version of faiss."""
        return faiss_version()

    def summarise(self, rows: pa.Table) -> pa.Table:
        """Of the rows with a direction those with the lowest coins, at most `train_rows`: `__coin`, `__vector`."""
        halves = uid_halves(rows[UID])
        keys = np.random.SeedSequence([self._config.seed, 53]).generate_state(2, np.uint64)
        coin = coins(halves, np.zeros(len(halves), np.int64), keys)  # copies have one coin, and as a rule one vector
        order = np.argsort(coin, kind="stable")
        taken, count = [], 0
        for at in range(0, len(order), SLICE):
            some = order[at : at + SLICE]
            some = some[_known(self._directions(rows, some))]
            taken.append(some[: self._config.train_rows - count])
            count += len(taken[-1])
            if count == self._config.train_rows:
                break
        chosen = np.concatenate([np.zeros(0, np.int64), *taken])
        # Halves as they were: the sample is what is large here.
        vectors = np.hstack([unpack(rows[name].take(pa.array(chosen))) for name in self._columns])
        return pa.table({COIN: coin[chosen], VECTOR: pack(vectors)})

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint | None = None) -> State:
        """`centroids`: float32 `(k, D)`; k is less than `clusters` where there are no more distinct vectors.

        Memory is bounded by the sample, twice as float32.
        """
        sample: pa.Table | None = None
        for table in summaries:
            sample = lowest([table] if sample is None else [sample, table], self._config.train_rows)
        if sample is None or not sample.num_rows:
            return {"centroids": np.zeros((0, 1), np.float32)}
        points = self._unit(unpacked(sample[VECTOR], "<f2"))
        first, _ = distinct_rows(points)
        if len(first) <= self._config.clusters:
            return {"centroids": points[first]}
        options = {"niter": ITERATIONS, "spherical": True, "max_points_per_centroid": len(points)}
        return {"centroids": kmeans(points, self._config.clusters, self._config.seed, **options)}

    def run(self, rows: pa.Table) -> Result:
        """The rows' labels, none null."""
        centroids = (self._state or {"centroids": np.zeros((0, 1), np.float32)})["centroids"]
        found = np.full(rows.num_rows, -1, np.int64)
        if len(centroids):
            for at in range(0, rows.num_rows, SLICE):
                some = np.arange(at, min(at + SLICE, rows.num_rows))
                vectors = self._directions(rows, some)
                found[some] = np.where(_known(vectors), nearest(vectors, centroids), -1)
        digits = len(str(max(1, self._config.clusters - 1)))
        names = [f"cluster {number:0{digits}d}" for number in range(len(centroids))]
        return Result(pa.table({COLUMN: labels(found, names, WITHOUT)}), [])

    def _directions(self, rows: pa.Table, some: np.ndarray) -> np.ndarray:
        """Unit rows side by side, float32 `(len(some), sum of D)`; zeros where a vector has no direction."""
        return self._unit(np.hstack([unpack(rows[name].take(pa.array(some))) for name in self._columns]))

    def _unit(self, vectors: np.ndarray) -> np.ndarray:
        """The columns of the towers, side by side, each made a direction."""
        parts = [directions(part) for part in np.split(vectors, len(self._columns), axis=1)]
        known = np.logical_and.reduce([_known(part) for part in parts])
        return np.where(known[:, None], np.hstack(parts), np.float32(0))


def lowest(tables: list[pa.Table], most: int) -> pa.Table:
    """The rows with the lowest coins, at most `most`, by coin, then by the bytes of their vectors."""
    every = pa.concat_tables(tables).combine_chunks()
    order = np.argsort(every[COIN].to_numpy(), kind="stable")
    ordered = every.take(pa.array(order))
    coin = ordered[COIN].to_numpy()
    if (coin[1:] == coin[:-1]).any():  # one uid, two vectors perhaps: their order must not be that of the shards
        ordered = ordered.sort_by([(COIN, "ascending"), (VECTOR, "ascending")])
    return ordered.slice(0, most)


def nearest(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The centroid with the largest dot product with each row, int64 `(n,)`, the lowest index on ties.

    Of no other row: where float32 could leave in doubt which is the largest (a product's last bits depend on the shape
    of the matrix), all products of the row are made in float64, in one order.

    Args:
        vectors: float32 `(n, D)`, rows of at most length sqrt(2).
        centroids: float32 `(k, D)`, k >= 1, of at most length sqrt(2).
    """
    found = vectors @ centroids.T
    best = found.argmax(axis=1)
    # Twice what float32 can be wrong by, for rows and centroids of length sqrt(2): all nearer ones are compared anew.
    doubt = 4 * vectors.shape[1] * np.finfo(np.float32).eps
    near = found >= found.max(axis=1, keepdims=True) - doubt
    doubtful = np.flatnonzero(near.sum(axis=1) > 1)
    row, centroid = np.nonzero(near[doubtful])
    exact = np.full((len(doubtful), len(centroids)), -np.inf)
    for at in range(0, len(row), SLICE):
        some = slice(at, at + SLICE)
        products = vectors[doubtful[row[some]]].astype(np.float64) * centroids[centroid[some]]
        exact[row[some], centroid[some]] = products.sum(axis=1)
    best[doubtful] = exact.argmax(axis=1)
    return best


def labels(codes: np.ndarray, names: list[str], rest: str) -> pa.DictionaryArray:
    """Codes as a dictionary of strings: `names` by code, `rest` for -1."""
    indices = np.where(codes < 0, len(names), codes).astype(np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(indices), pa.array([*names, rest], pa.string()))


def _known(vectors: np.ndarray) -> np.ndarray:
    """Rows that are not zeros alone."""
    return np.asarray(vectors.any(axis=1))
