"""Training-side reader of a mix: whole batches in order, disjoint over ranks and DataLoader workers, resumable.

    loader = DataLoader(MixBatches("mixes/demo"), batch_size=None, num_workers=4)

A mix is already shuffled and batched, so the unit here is the batch (step, mix_rank), numbered u = step * W + mix_rank
for a mix of W ranks; rank r of R trainers takes the units u = r (mod R). With R = W that is its own `mix_rank` at every
step. Ranks go in lockstep, so training stands where so many units are consumed, and can go on from there with any
number of ranks and workers. Only training jobs import this file, hence torch at the top.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch.utils.data import IterableDataset, get_worker_info

from configs.errors import MixError
from tasks.emit.opening import counts_of, find_mix, options_of, parts_of
from tasks.emit.order import Order, share
from tasks.emit.parts import Part, Source
from tasks.emit.passes import Begin, Passes
from tasks.emit.reading import Reader
from tasks.emit.texts import first_undecodable, undecodable
from tasks.emit.values import Pictures, Undecoded, compact, decoders, encoded, tensor_or_list


class MixBatches(IterableDataset):
    """The batches of a mix that belong to one rank, each a dict of column -> tensor or list.

    Numeric columns become tensors (a float null is NaN; an integer or boolean column with nulls is a list), the image
    column a list of RGB PIL images, or what `transform` makes of them, stacked if those are tensors; a null image is
    None. Every other column is a plain list. Decoding is done where the batches are made: in DataLoader workers.

    All ranks get the same number of batches, since one with a batch more would wait for the others for ever: where R
    does not divide what is left of the mix, the last few batches are left out, or with `drop_last=False` filled up
    with the first ones of the epoch.

    Epochs: `set_epoch(n)` before each pass, as with torch's DistributedSampler; with `shuffle_window` each has an order
    of its own. Persistent workers hear of it too.

    Resuming: `state_dict` in this process, or torchdata's StatefulDataLoader with workers (as many as before, and as
    many ranks). A DataLoader's workers read ahead, so with them this process does not know what was consumed: count
    batches, and `state_after(count)` is the state. States of this process fit any number of ranks and workers.
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
        shuffle_window: int = 0,
        seed: int = 0,
        drop_last: bool = True,
        decode: bool = True,
        decode_threads: int = 0,
        as_arrow: bool = False,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        """Open the footer of one part, no rows.

        Args:
            url: The folder of a version, or of a mix whose `latest.json` names one; any fsspec URL. Trainers that start
                at different times should be given the version, as `latest.json` may move between them.
            rank: Of this trainer; null: torch.distributed's where it is initialised, else 0. `world_size` likewise.
            start: Batches this rank has already consumed: every pass begins after them. For epochs, load a state.
            columns: The columns to read, null: all.
            transform: Applied to each image; must pickle where workers are spawned.
            shuffle_window: Steps of the mix that are shuffled among themselves, anew in every epoch; 0: none. All ranks
                of a step stay together, rows stay in their batch.
            seed: Of the shuffle.
            drop_last: Leave out a remainder that does not suffice for all ranks; false: fill it up.
            decode: Give pictures; false: the encoded files, as bytes.
            decode_threads: Threads of this process, or of each worker, that decode and transform, 0: none. A transform
                with random numbers is then not reproducible.
            as_arrow: Give each batch as a `pyarrow.Table` of undecoded columns: nothing is converted.
            storage_options: What s3fs or gcsfs needs for `url` and the environment does not say: endpoint, credentials.

        Raises:
            FileNotFoundError: There is no mix.
            ValueError: An argument is out of its bounds; a MixError where the mix is at fault.
        """
        self._set_ranks(rank, world_size)
        options = options_of(str(url), storage_options)
        self.url, manifest = find_mix(str(url), options)
        self.version = str(manifest.get("version", ""))
        self.mix_ranks = int(manifest["batches"]["world_size"])
        for name, value in (("shuffle_window", shuffle_window), ("seed", seed), ("decode_threads", decode_threads)):
            if value < 0:
                raise ValueError(f"`{name}` is {value}; it must be 0 or more")
        self.order = Order(int(manifest["batches"]["steps"]), self.mix_ranks, shuffle_window, seed)
        self.drop_last = drop_last
        self.batches = share(self.order.units, 0, self.world_size, drop_last)
        if not 0 <= start <= self.batches:
            raise ValueError(f"`start` is {start}; it must be in [0, {self.batches}], the batches of this rank")
        self.start = start
        parts = parts_of(self.url, manifest, options)
        self.source = Source(self.url, parts, self.mix_ranks, options, *counts_of(parts, manifest))
        self.columns = self._known(columns)
        self.image = manifest["columns"].get("image")
        self.transform, self.decode, self.decode_threads, self.as_arrow = transform, decode, decode_threads, as_arrow
        self._passes = Passes(0)
        self._begin: Begin | None = None
        self._done = 0
        self._mine: dict[str, Any] | None = None  # what a worker was told to resume

    def _set_ranks(self, rank: int | None, world_size: int | None) -> None:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = rank if rank is not None else torch.distributed.get_rank() if distributed else 0
        alone = torch.distributed.get_world_size() if distributed else 1
        self.world_size = world_size if world_size is not None else alone
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"`rank` is {self.rank}; it must be in [0, {self.world_size}), the `world_size`")

    def _known(self, columns: list[str] | None) -> list[str]:
        """`columns`, or all there are."""
        part = Part(self.source.parts[0], self.source)
        part.close()
        names = part.columns
        if columns is not None and (unknown := sorted(set(columns) - set(names))):
            raise ValueError(f"`columns` has {unknown}; this mix has {names}")
        return names if columns is None else list(columns)

    def __len__(self) -> int:
        """Batches that a whole pass yields to this rank, all its workers together; a resumed one yields fewer."""
        return self.batches - self.start

    def set_epoch(self, epoch: int) -> None:
        """Name the epoch of the next pass. A loaded state of that epoch stays, of another one is dropped."""
        if epoch < 0:
            raise ValueError(f"`epoch` is {epoch}; it must be 0 or more")
        if epoch != self._passes.epoch:
            self._done = 0
        self._passes.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Any] | pa.Table]:
        """Iterates over this worker's batches: every n-th of the rank's; a DataLoader's round robin restores order."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        resumed, self._mine = self._mine, None
        if resumed is None:
            begin, self._done = self._passes.begin(self.start * self.world_size), 0
        else:
            begin, self._done = self._passes.began(Begin(resumed["epoch"], resumed["consumed"])), resumed["done"]
        self._begin = begin
        count = share(self.order.units, begin.consumed, self.world_size, self.drop_last)
        first, stride = begin.consumed + self.rank, self.world_size
        positions = range(first, first + stride * count, stride)[worker + workers * self._done :: workers]
        return self._batches(positions, begin.epoch)

    def _batches(self, positions: range, epoch: int) -> Iterator[dict[str, Any] | pa.Table]:
        """Yields the batches at some positions; apart from `__iter__`, so that calling that settles where it begins."""
        found = Reader(self.source, self.columns).batches(self.order.stretches(positions, epoch))
        with decoders(self.transform, self.decode_threads) as pictures:
            for unit, table in found:
                batch = self._converted(unit, table, pictures)
                self._done += 1
                yield batch

    def _converted(self, unit: int, table: pa.Table, pictures: Pictures) -> dict[str, Any] | pa.Table:
        if self.as_arrow:
            return compact(table) if get_worker_info() else table
        batch: dict[str, Any] = {}
        for name in table.column_names:
            if name != self.image:
                try:
                    batch[name] = tensor_or_list(table[name])
                except UnicodeDecodeError as error:
                    raise MixError(self._bad_text(unit, table.select([name]))) from error
                continue
            try:
                batch[name] = pictures(table[name]) if self.decode else encoded(table[name])
            except Undecoded as error:
                raise MixError(self._bad_picture(unit, error)) from error
        return batch

    def _bad_picture(self, unit: int, error: Undecoded) -> str:
        """What to say of a picture that does not decode."""
        step, rank = divmod(unit, self.mix_ranks)
        origin = self._origin(unit, error.row)
        return (
            f"the picture of row {origin['mix_row']} of {origin['mix_file']} (batch {step}, rank {rank}, place "
            f"{error.row}) does not decode: {error}. A run with an `embed` section leaves such rows out; "
            "`decode=False` gives the files as they are"
        )

    def _bad_text(self, unit: int, column: pa.Table) -> str:
        """What to say of a text that is not UTF-8."""
        name, row, found = first_undecodable(column)
        advice = "; `columns` reads without it, `as_arrow=True` as it is"
        return undecodable(name, self._origin(unit, row), found) + advice

    def _origin(self, unit: int, row: int) -> dict[str, Any]:
        """Input file and row of a row of a batch, read only where something is wrong with it."""
        reader = Reader(self.source, ["mix_file", "mix_row"])
        _, rows = next(reader.batches([[unit]]))
        reader.close()
        origin: dict[str, Any] = rows.slice(row, 1).to_pylist()[0]
        return origin

    def state_dict(self) -> dict[str, Any]:
        """Where the current pass stands: the version, the order, and the units that all ranks have consumed.

        In a DataLoader worker it is the share of that worker: what torchdata's StatefulDataLoader asks for.

        Raises:
            ValueError: The pass runs in workers, which read ahead: `state_after` is what knows.
        """
        info = get_worker_info()
        if info is None:
            if self._passes.workers:
                raise ValueError(
                    f"this pass runs in {self._passes.workers} workers, which read ahead of what you consume: count "
                    "the batches and call `state_after(count)`, or use torchdata's StatefulDataLoader"
                )
            return self.state_after(self._done)
        begin = self._begin or self._passes.latest(self.start * self.world_size)
        part = {"done": self._done, "workers": info.num_workers, "world_size": self.world_size}
        return self._state(begin) | part

    def state_after(self, batches: int) -> dict[str, Any]:
        """The state after this rank has consumed so many batches of the current pass, however far workers have read."""
        begin = self._passes.latest(self.start * self.world_size)
        return self._state(Begin(begin.epoch, begin.consumed + batches * self.world_size))

    def _state(self, begin: Begin) -> dict[str, Any]:
        shuffled = self.order.window > 1  # else the seed makes no difference
        order = {"shuffle_window": self.order.window, "seed": self.order.seed} if shuffled else {"shuffle_window": 0}
        return {"version": self.version, **order, "epoch": begin.epoch, "consumed": begin.consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next pass, and only that, goes on from `state`, on any number of ranks and workers.

        Raises:
            ValueError: The state is of another mix or order, or is a worker's share on other ranks or workers.
        """
        for name, value in self._state(Begin(0, 0)).items():
            if name not in ("epoch", "consumed") and state.get(name) != value:
                raise ValueError(
                    f"`state` was saved with {name} {state.get(name)!r}; this loader has {value!r}: the batches would "
                    "be others, resume with the same"
                )
        if "workers" not in state:
            self._passes.load(Begin(state["epoch"], state["consumed"]))
            self._done = 0
            return
        info = get_worker_info()
        workers = info.num_workers if info else 1
        if (state["workers"], state["world_size"]) != (workers, self.world_size):
            raise ValueError(
                f"`state` is the share of one of {state['workers']} workers on {state['world_size']} ranks; here are "
                f"{workers} on {self.world_size}: save `state_after(count)` instead, which fits any number"
            )
        self._mine = dict(state)
