"""Training-side reader of a mix: whole batches in order, disjoint over ranks and DataLoader workers, resumable.

    loader = DataLoader(MixBatches("mixes/demo"), batch_size=None, num_workers=4)

A mix is already shuffled and batched, so the unit here is the batch (step, mix_rank), numbered u = step * W + mix_rank
for a mix of W ranks; rank r of R trainers takes the units u = r (mod R). With R = W that is its own `mix_rank` at every
step. Row groups and parts do not align with batches: Parquet footers say which row groups to read, each is read once.
Only training jobs import this file, hence torch at the top.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch.utils.data import IterableDataset, get_worker_info

MAX_PIXELS = 178_956_970
"""Pillow's own alarm. What went into a mix has usually passed the embedder's lower limit before."""


class MixBatches(IterableDataset):
    """The batches of a mix that belong to one rank, each a dict of column -> tensor or list.

    Numeric columns become tensors (a float null is NaN; an integer or boolean column with nulls is a list), the image
    column a list of RGB PIL images, or what `transform` makes of them, stacked if those are tensors; a null image is
    None. Every other column is a plain list.

    All ranks get the same number of batches, floor(steps * W / R): where R does not divide steps * W the last few
    batches of the mix are left out, since one rank with a batch more would wait for the others for ever.
    """

    def __init__(
        self,
        url: str | Path,
        *,
        rank: int | None = None,
        world_size: int | None = None,
        start: int = 0,
        columns: list[str] | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        """Open the footer of one part, no rows.

        Args:
            url: The folder of a version, or of a mix whose `latest.json` names one; any fsspec URL. Trainers that start
                at different times should be given the version, as `latest.json` may move between them.
            rank: Of this trainer; null: torch.distributed's where it is initialised, else 0. `world_size` likewise.
            start: Batches this rank has already consumed: every pass begins after them.
            columns: The columns to read, null: all.
            transform: Applied to each image; must pickle where workers are spawned.
        """
        self.url, manifest = find_mix(str(url))
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = rank if rank is not None else torch.distributed.get_rank() if distributed else 0
        alone = torch.distributed.get_world_size() if distributed else 1
        self.world_size = world_size if world_size is not None else alone
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"`rank` is {self.rank}; it must be in [0, {self.world_size}), the `world_size`")
        self.mix_ranks = int(manifest["batches"]["world_size"])
        self.batches = int(manifest["batches"]["steps"]) * self.mix_ranks // self.world_size
        if not 0 <= start <= self.batches:
            raise ValueError(f"`start` is {start}; it must be in [0, {self.batches}], the batches of this rank")
        self.start = start
        self.parts = _parts(self.url)
        schema = _schema(self.url, self.parts)
        if columns is not None and (unknown := sorted(set(columns) - set(schema.names))):
            raise ValueError(f"`columns` has {unknown}; this mix has {schema.names}")
        self.columns = columns
        self.image = manifest["columns"].get("image")
        self.transform = transform
        self._done = 0
        self._resume: dict[str, int] | None = None

    def __len__(self) -> int:
        """Batches that a pass yields to this rank, all its workers together."""
        return self.batches - self.start

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields this worker's batches: every n-th of the rank's, so that a DataLoader's round robin restores order."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        self._done = self._resumed(workers)
        first = self.start + worker + workers * self._done
        stop = self.rank + self.world_size * self.batches
        wanted = range(self.rank + self.world_size * first, stop, self.world_size * workers)
        found = _tables(self.url, self.parts, wanted, self.mix_ranks, self.columns)
        for unit in wanted:
            got, table = next(found, (None, None))
            if got != unit or table is None:
                step, mix_rank = divmod(unit, self.mix_ranks)
                raise ValueError(
                    f"{self.url} has no rows of batch {step} for rank {mix_rank} where they should be, though its "
                    "mix.json counts it; the mix is damaged: verify it, or emit it again"
                )
            batch = {name: self._values(name, table[name]) for name in table.column_names}
            self._done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where the current pass stands.

        It is this process's own count: right with num_workers=0 and with torchdata's StatefulDataLoader, which asks
        each worker. With a plain DataLoader and workers, count the batches you consume and pass them as `start`.
        """
        info = get_worker_info()
        return {
            "done": self._done,
            "start": self.start,
            "workers": info.num_workers if info else 1,
            "world_size": self.world_size,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next pass, and only that, goes on from `state`; the worker and rank counts must be those of the state."""
        if state["world_size"] != self.world_size or state["start"] != self.start:
            raise ValueError(
                f"`state` was saved with world_size {state['world_size']} and start {state['start']}; this loader has "
                f"{self.world_size} and {self.start}: resume with the same, or pass `start` instead"
            )
        self._resume = dict(state)
        self._done = state["done"]

    def _resumed(self, workers: int) -> int:
        """Batches that a loaded state says this worker has yielded; the state is used up."""
        state, self._resume = self._resume, None
        if state is None:
            return 0
        if state["workers"] != workers:
            raise ValueError(
                f"`state` was saved with {state['workers']} workers; this loader has {workers}: pass `start` instead"
            )
        return state["done"]

    def _values(self, name: str, column: pa.ChunkedArray) -> Any:
        if name == self.image:
            return self._images(column)
        whole = pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)
        if pa.types.is_floating(column.type) or (whole and not column.null_count):
            return torch.from_numpy(np.array(column.to_numpy()))  # a copy: Arrow's memory is read-only
        return column.to_pylist()

    def _images(self, column: pa.ChunkedArray) -> Any:
        """RGB images of (n,) encoded ones, transformed, and stacked if the transform gave tensors."""
        from tasks.embed.decode import decode

        encoded = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
        images = [None if data is None else decode(data, MAX_PIXELS) for data in encoded.to_pylist()]
        if self.transform is None:
            return images
        changed = [None if image is None else self.transform(image) for image in images]
        tensors = [item for item in changed if isinstance(item, torch.Tensor)]
        return torch.stack(tensors) if tensors and len(tensors) == len(changed) else changed


def find_mix(url: str) -> tuple[str, dict[str, Any]]:
    """The folder of the version that `url` means, and its mix.json.

    Raises:
        FileNotFoundError: `url` holds neither mix.json nor a latest.json that leads to one.
    """
    folder = url.rstrip("/")
    if (manifest := _json(f"{folder}/mix.json")) is None and (latest := _json(f"{folder}/latest.json")) is not None:
        folder = f"{folder}/{latest['version']}"
        manifest = _json(f"{folder}/mix.json")
    if manifest is None:
        raise FileNotFoundError(
            f"{folder} is not a mix: no mix.json; give the folder of a version, or one whose latest.json names it "
            "(mix.json is written last: an interrupted run has left none)"
        )
    return folder, manifest


def _json(url: str) -> dict[str, Any] | None:
    fs, path = fsspec.core.url_to_fs(url)
    return json.loads(fs.cat_file(path)) if fs.isfile(path) else None


def _parts(url: str) -> list[str]:
    """Paths of the mix's parts, in batch order."""
    fs, path = fsspec.core.url_to_fs(url)
    listed = fs.ls(f"{path}/data", detail=False) if fs.isdir(f"{path}/data") else []
    parts = [part for part in listed if PurePosixPath(part).match("part-*.parquet")]
    return sorted(parts, key=lambda part: (len(part), part))  # six digits come after five


def _schema(url: str, parts: list[str]) -> pa.Schema:
    if not parts:
        raise FileNotFoundError(f"{url} has a mix.json, but no data/part-*.parquet: it is empty, or was copied in part")
    fs, _ = fsspec.core.url_to_fs(url)
    return pq.read_schema(parts[0], filesystem=fs)


def _tables(
    url: str, parts: list[str], wanted: range, mix_ranks: int, columns: list[str] | None
) -> Iterator[tuple[int, pa.Table]]:
    """Yields (unit, its rows) for the units in `wanted`, ascending.

    Holds one row group and the unit at hand. A row group without a wanted unit is not read, another is read once.
    """
    if not wanted:
        return
    current, pieces = -1, list[pa.Table]()
    for file, group in _row_groups(url, parts, wanted[0] // mix_ranks, wanted[-1] // mix_ranks):
        units = _units(file, group, mix_ranks)
        table = None
        starts = np.flatnonzero(np.diff(units, prepend=-1))
        for begin, end in zip(starts, [*starts[1:], len(units)], strict=True):
            unit = int(units[begin])
            if unit != current and pieces:
                yield current, pa.concat_tables(pieces)
                pieces = []
            if unit in wanted:
                table = table if table is not None else _read(file, group, columns)
                current = unit
                pieces.append(table.slice(begin, end - begin))
    if pieces:
        yield current, pa.concat_tables(pieces)


def _row_groups(url: str, parts: list[str], first: int, last: int) -> Iterator[tuple[pq.ParquetFile, int]]:
    """Yields the row groups that hold rows of the steps `first` to `last`, in order; parts before them stay shut."""
    fs, _ = fsspec.core.url_to_fs(url)

    def last_step(part: str) -> int:
        with pq.ParquetFile(part, filesystem=fs) as file:
            return _extent(file, file.num_row_groups - 1, "mix_step")[1]

    for part in parts[bisect_left(parts, first, key=last_step) :]:
        with pq.ParquetFile(part, filesystem=fs) as file:
            for group in range(file.num_row_groups):
                low, high = _extent(file, group, "mix_step")
                if low > last:
                    return
                if high >= first:
                    yield file, group


def _units(file: pq.ParquetFile, group: int, mix_ranks: int) -> np.ndarray:
    """Unit of each row of a row group, int64 (rows,): from the footer where that is enough, else from two columns."""
    step, rank = _extent(file, group, "mix_step"), _extent(file, group, "mix_rank")
    if step[0] == step[1] and rank[0] == rank[1]:
        return np.full(file.metadata.row_group(group).num_rows, step[0] * mix_ranks + rank[0])
    table = _read(file, group, ["mix_step", "mix_rank"])
    return table["mix_step"].to_numpy() * mix_ranks + table["mix_rank"].to_numpy()


def _extent(file: pq.ParquetFile, group: int, name: str) -> tuple[int, int]:
    """Least and greatest value of a column in a row group: the footer's, or the column's own if it was left out."""
    index = next(i for i in range(len(file.schema)) if file.schema.column(i).path == name)
    statistics = file.metadata.row_group(group).column(index).statistics
    if statistics is not None and statistics.has_min_max:
        return statistics.min, statistics.max
    values = _read(file, group, [name])[name].to_numpy()
    return int(values.min()), int(values.max())


def _read(file: pq.ParquetFile, group: int, columns: list[str] | None) -> pa.Table:
    """One row group. No Arrow threads: DataLoader workers are the parallelism, and apache/arrow#50482, a thread pool
    that has read through a Python file (any remote URL) now and then aborts or hangs the interpreter at exit."""
    return file.read_row_group(group, columns=columns, use_threads=False)
