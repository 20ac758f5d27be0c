"""Concept-aware batches in a training loop: what the `sample` stage does, from sidecars alone and step by step.

    sampler = ConceptBatchSampler(read_sidecars(urls), CabsDm(batch_size=4096, world_size=4), rank=rank)
    loader = DataLoader(dataset, batch_sampler=sampler, num_workers=8)

Nothing of an epoch is laid out before it begins: the draws of a superbatch are computed when it is due, by the same
permutations that the mix stage uses, and its picks by the same sampler. So the batches are those of the flow for the
same seed. Only training jobs import this file, hence torch at the top.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import TypeAdapter
from torch.utils.data import Sampler as TorchSampler

from configs.errors import MixError
from configs.methods.batches import Batches
from configs.methods.sample import Sample
from configs.storage import Storage
from storage import files, manifests, objects
from storage.fingerprints import fingerprint
from storage.steps import Step
from tasks import load, sample
from tasks.mix.draws import DrawPlan, seed_of
from tasks.mix.permutation import permute
from tasks.sample.concepts import Concepts, Labels, encode, encode_chunks, gather
from tasks.sample.coverage import SECTION


def read_sidecars(urls: Iterable[str]) -> Labels:
    """The concepts of a data set from its annotate sidecars, in the order of `urls`: 8 bytes a row, 4 a label.

    Raises:
        MixError: A sidecar is missing, or has no column `concepts`.
    """
    return encode_chunks(_concepts(url) for url in urls)


def _concepts(url: str) -> pa.ChunkedArray:
    try:
        return files.read_table(url, ["concepts"])["concepts"]
    except FileNotFoundError as error:
        raise MixError(
            f"{url} is missing: this shard has no concepts yet; run `mixwright curate`, which annotates it"
        ) from error
    except (KeyError, pa.ArrowInvalid) as error:
        raise MixError(f"{url} is no annotate sidecar: its column `concepts` cannot be read: {error}") from error


class ConceptBatchSampler(TorchSampler[list[int]]):
    """The batches of one rank, each a list of indices into the data set, in order of selection.

    Epoch 0 is what the flow samples with `seed` from rows of one group, each drawn once (`of_mix`: from whatever the
    mix drew); every further one has the same draws in another seeded order.
    `set_epoch` names the epoch of the next pass. All ranks compute their own part of the same superbatch, from targets
    and frequencies of the whole of it; nothing is sent between them.
    """

    def __init__(
        self,
        concepts: Concepts | Labels,
        config: Batches,
        *,
        rows: np.ndarray | None = None,
        draws: np.ndarray | int | None = None,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        start: int = 0,
    ) -> None:
        """Encode the concepts, unless they are.

        Args:
            concepts: Of every row of the data set; see `tasks.sample.concepts.encode`. A row may have none.
            config: `CabsDm`, `CabsFm` or `Iid`, with the sizes of batch and superbatch, all ranks together.
            rows: int64: the rows to draw from, ascending; null: all.
            draws: How many draws an epoch has; null: one a row. Or int64 `(draws,)`, the row of each draw of epoch 0.
            seed: As in the flow's configuration.
            rank: Of this trainer; null: torch.distributed's where it is initialised, else 0.
            world_size: Of the training job; null: torch.distributed's where it is initialised, else the config's.
            start: Steps that have been trained already: the first pass begins after them.
        """
        running = torch.distributed.is_available() and torch.distributed.is_initialized()
        size = world_size or (torch.distributed.get_world_size() if running else config.world_size)
        self.config = _resized(config, size)
        if rank is None and not running and size > 1:
            raise ValueError(f"`rank` is None and `world_size` {size}; say which of the {size} this trainer is")
        self.rank = rank if rank is not None else torch.distributed.get_rank() if running else 0
        if not 0 <= self.rank < size:
            raise ValueError(f"`rank` is {self.rank}; it must be in [0, {size}), the `world_size`")
        self._labels = concepts if isinstance(concepts, Labels) else encode(concepts)
        self.seed, self.epoch = seed, 0
        count = len(self._labels.offsets) - 1
        self._rows = None if rows is None else _indices("rows", rows, count)
        listed = draws is not None and not isinstance(draws, int | np.integer)
        total = None if draws is None or listed else int(draws)
        self._order = _indices("draws", draws, count) if listed else None
        self._plan = _plan(total, count if self._rows is None else len(self._rows), seed)
        self.draws = self._plan.total if self._order is None else len(self._order)
        self.steps = self.draws // self.config.superbatch
        if not self.steps:
            raise ValueError(
                f"{self.draws} draws do not fill a superbatch of {self.config.superbatch}; lower `batch_size` or "
                "`filter_ratio`, or ask for more `draws`"
            )
        if not 0 <= start <= self.steps:
            raise ValueError(f"`start` is {start}; it must be in [0, {self.steps}], the steps of an epoch")
        self._method = load(sample.METHODS, self.config, seed=seed)
        if set(self._method.needs) - {"concepts"}:
            raise ValueError(f"`config` is {config.kind}, which needs more than concepts; take cabs_dm, cabs_fm or iid")  # type: ignore[attr-defined]
        self._first, self._told = start, {"epoch": 0, "step": start}

    @classmethod
    def of_mix(
        cls, url: str, *, rank: int | None = None, start: int = 0, storage: Storage | None = None
    ) -> ConceptBatchSampler:
        """The sampler that goes through the superbatches of a mix again, from the sidecars in its store.

        Indices count the rows of the input files end to end, those of `mix.json`'s `parents` in their order, damaged
        files left out. The batches of epoch 0 are those of the mix.

        Args:
            url: The folder of a mix.
            rank: As above.
            start: As above.
            storage: How object stores are reached, as in the mix's configuration; null: by the environment.

        Raises:
            MixError: It is no mix, or was not annotated, or what it was made of is gone from the store.
        """
        with objects.using(storage.options()) if storage else nullcontext():
            return cls._of_mix(manifests.read(url), url, rank, start)

    @classmethod
    def _of_mix(cls, manifest: dict[str, Any], url: str, rank: int | None, start: int) -> ConceptBatchSampler:
        steps = {one["stage"]: manifests.step_of(manifest, one) for one in manifest["steps"]}
        if "annotate" not in steps:
            raise MixError(f"{url} was made without `annotate`: there are no concepts to go by")
        damaged = {one["file"] for one in manifest["damaged"]}
        starts: dict[str, int] = {}
        first, parents = 0, []
        for one in (parent for parent in manifest["parents"] if parent["file"] not in damaged):
            starts.setdefault(one["digest"], first)  # a second file with the same content is not drawn from
            parents.append(one)
            first += one["rows"]
        shards = [f"{digest}.parquet" for digest in starts]
        for stage, needed in (("sample", [SECTION]), ("mix", shards), ("annotate", shards)):
            if gone := sorted({*needed} - {*files.names(steps[stage].url)}):
                raise MixError(
                    f"{steps[stage].file(gone[0])} is gone, which {url} was made of; run its configuration again with "
                    "the same store"
                )
        config = TypeAdapter(Sample).validate_python(files.read_json(steps["sample"].file(SECTION)))
        draws = _order(steps["mix"], starts)
        concepts = read_sidecars(steps["annotate"].file(f"{one['digest']}.parquet") for one in parents)
        return cls(concepts, config, draws=draws, seed=manifest["seed"], rank=rank, start=start)

    def __len__(self) -> int:
        """Steps that the next pass yields."""
        return self.steps - self._first

    def __iter__(self) -> Iterator[list[int]]:
        """Yields the indices of this rank's part of each batch."""
        epoch, first, size = self.epoch, self._first, self.config.superbatch
        self._first = 0
        for step in range(first, self.steps):
            rows = self._drawn(np.arange(step * size, (step + 1) * size), epoch)
            picks = self._pick(self._superbatch(rows), step + epoch * self.steps)
            self._told = {"epoch": epoch, "step": step + 1}
            yield rows[picks].tolist()

    def set_epoch(self, epoch: int) -> None:
        """The next pass is of this epoch, from its beginning."""
        if epoch < 0:
            raise ValueError(f"`epoch` is {epoch}; it must be at least 0")
        if epoch != self.epoch:
            self.epoch, self._first, self._told = epoch, 0, {"epoch": epoch, "step": 0}

    def state_dict(self) -> dict[str, Any]:
        """Where the newest pass stands: its epoch and the steps it has yielded.

        A DataLoader with workers asks ahead of what it hands out; torchdata's StatefulDataLoader accounts for that.
        With a plain one, count the steps you train and pass them as `start`.
        """
        return {**self._told, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next pass, and only that, goes on from `state`. The number of ranks may be another one.

        The state of an epoch that has ended changes nothing once `set_epoch` has named a later one.

        Raises:
            ValueError: The state is of another seed, data set or configuration.
        """
        for name, mine in self._identity().items():
            if state[name] != mine:
                raise ValueError(f"`state` was saved with {name} {state[name]}; this sampler has {mine}")
        if state["step"] == self.steps and self.epoch > state["epoch"]:
            return
        self.epoch, self._first = state["epoch"], state["step"]
        self._told = {"epoch": self.epoch, "step": self._first}

    def _identity(self) -> dict[str, Any]:
        rows, config = len(self._labels.offsets) - 1, self.config.output_fields() | {"world_size": None}
        sizes = {"rows": rows, "draws": self.draws, "superbatch": self.config.superbatch}
        return {"seed": self.seed, **sizes, "configuration": fingerprint(config)}

    def _pick(self, superbatch: pa.Table, step: int) -> np.ndarray:
        if hasattr(self._method, "pick_rank"):
            return self._method.pick_rank(superbatch, step, self.rank)
        return self._method.pick(superbatch, step)[self.rank]

    def _drawn(self, numbers: np.ndarray, epoch: int) -> np.ndarray:
        """The row of each of these draws of an epoch, int64."""
        if epoch:
            numbers = permute(numbers, self.draws, seed_of(self.seed, "epoch", epoch))
        if self._order is not None:
            return self._order[numbers]
        rows = self._plan.rows_of(numbers)[1]
        return rows if self._rows is None else self._rows[rows]

    def _superbatch(self, rows: np.ndarray) -> pa.Table:
        offsets, ids = gather(self._labels.offsets, self._labels.ids, rows)
        words = self._labels.words if getattr(self._method, "named", None) else None
        # Ids are ranks already; words are looked at only where the configuration names some.
        values = pa.array(ids) if words is None else pa.DictionaryArray.from_arrays(ids, words)
        return pa.table({"concepts": pa.ListArray.from_arrays(pa.array(offsets), values)})


def _plan(draws: int | None, rows: int, seed: int) -> DrawPlan:
    """The plan of one group of rows; `draws` null: each once."""
    if draws is not None and (draws < 0 or (draws and not rows)):
        raise ValueError(f"`draws` is {draws} of {rows} rows; it must be at least 0, and 0 if there is no row")
    return DrawPlan(np.array([[rows if draws is None else draws]]), np.array([rows]), seed)


def _indices(name: str, values: Any, count: int) -> np.ndarray:
    """Row indices as int64."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise ValueError(f"`{name}` is {array.dtype} of shape {array.shape}; it must be one row of whole numbers")
    if array.size and not 0 <= array.min() <= array.max() < count:
        raise ValueError(f"`{name}` has rows from {array.min()} to {array.max()}; there are rows 0 to {count - 1}")
    return array.astype(np.int64)


def _resized(config: Batches, world_size: int) -> Batches:
    """The configuration for another number of ranks: the same batch and superbatch, shared out anew."""
    if world_size == config.world_size:
        return config
    fields = config.model_dump() | {"world_size": world_size}
    if config.superbatch_size is not None:
        del fields["batch_size"]  # it is computed
    resized = type(config)(**fields)
    if (resized.superbatch, resized.batch_size) != (config.superbatch, config.batch_size):
        raise ValueError(
            f"`world_size` is {world_size}, among which a superbatch of {config.superbatch} draws and a batch of "
            f"{config.batch_size} rows cannot be shared out evenly"
        )
    return resized


def _order(mixed: Step, starts: dict[str, int]) -> np.ndarray:
    """The row of each draw of a mix, int64 `(draws,)`; `starts` has the first row of each shard by digest."""
    parts = []
    for digest, first in starts.items():
        table = mixed.read(digest, ["draw", "row"])
        parts.append((table["draw"].to_numpy(), first + table["row"].to_numpy()))
    order = np.full(sum(len(draws) for draws, _ in parts), -1, np.int64)
    for draws, rows in parts:
        order[draws] = rows
    return order
