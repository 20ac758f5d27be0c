"""Loss trajectories (S2L, Yang et al., arXiv 2403.07384): every row's loss at checkpoints of a small proxy in training.

The proxy learns from a sample, the rows with the lowest coins; a row's coin is made of its uid alone, so that the
sample does not depend on how rows are cut into shards. Its weights at T steps, evenly spread, are kept; then every row
is measured with each of them. As in the released code a row's loss is the mean over the tokens of its response; there
the proxy is a Pythia of 70 M parameters that is trained on all rows, and here what is configured.

A row that cannot be measured (no response, none of it within `max_length`, an embedding missing, a loss that is not
finite) has no trajectory: null. The released code sets 0, which is the best loss there is. No row is lost by it:
the select tells such rows by a reason of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.methods.proxies import LanguageProxy
from configs.methods.proxies import Trajectory as Config
from storage.packed import pack
from storage.states import Checkpoint, State
from tasks import Result
from tasks.embed.device import resolve_device
from tasks.score.blockwise import Tell, silent
from tasks.score.proxy_language import LanguageProxyModel
from tasks.score.proxy_pairs import PairProxyModel
from tasks.score.proxy_training import Learner, Training
from tasks.select.coins import coins, uid_halves

COLUMN, COIN, UID = "trajectory", "__coin", "uid"


class Proxy(Protocol):
    """A small model: what it reads, what it learns from, and how it measures rows."""

    needs: tuple[str, ...]
    input_columns: tuple[str, ...]
    libraries: tuple[str, ...]

    def check(self) -> None:
        """Raise a MixwrightError if something is missing that it needs."""
        ...

    def check_columns(self, schema: pa.Schema) -> None:
        """Raise ColumnError if `input_columns` are of types that it cannot read."""
        ...

    def depends_on(self) -> dict[str, Any]:
        """What the numbers depend on besides the configuration."""
        ...

    def payload(self, rows: pa.Table) -> tuple[pa.Table, np.ndarray]:
        """What it learns from, of the rows that it can learn from; and which those are, bool `(n,)`."""
        ...

    def prepared(self, parts: Iterable[pa.Table], order: np.ndarray) -> State:
        """What has to be known before training; kept in the state."""
        ...

    def learner(self, parts: Iterable[pa.Table], order: np.ndarray, prepared: State) -> Learner:
        """The rows to learn from, in memory."""
        ...

    def losses(self, rows: pa.Table, state: State, tell: Tell = silent) -> np.ndarray:
        """Float32 `(n, T)`, NaN where a row cannot be measured; `tell` hears how far it is."""
        ...


class Trajectory:
    """A fitted scorer: `summarise` and `fit` train the proxy, `run` measures a shard with all of its checkpoints."""

    provides: tuple[str, ...] = (COLUMN,)
    sketches: tuple[str, ...] = (COLUMN,)

    def __init__(self, config: Config, *, state: State | None = None) -> None:
        self._config, self._state = config, state
        self.input_columns: tuple[str, ...] = self._proxy.input_columns
        self.libraries: tuple[str, ...] = self._proxy.libraries
        self.needs: tuple[str, ...] = (*self._proxy.needs, UID)
        self.tell: Tell = silent

    @property
    def device(self) -> str:
        """`cpu` or `cuda`."""
        return resolve_device(self._config.device)

    @cached_property
    def _proxy(self) -> Proxy:
        config = self._config.proxy
        if isinstance(config, LanguageProxy):
            return LanguageProxyModel(config, self._config, self.device)
        return PairProxyModel(config, self._config, self.device)

    def check(self) -> None:
        """Raise a MixwrightError if the device is not there, or something that the proxy needs."""
        self._proxy.check()

    def check_columns(self, schema: pa.Schema) -> None:
        """Raise ColumnError if prompts or responses are no texts."""
        self._proxy.check_columns(schema)

    def depends_on(self) -> dict[str, Any]:
        """The device class, and what the proxy begins with."""
        return {"device": self.device} | self._proxy.depends_on()

    def summarise(self, rows: pa.Table) -> pa.Table:
        """Of the rows that the proxy can learn from those with the lowest coins, as many as it learns from at most."""
        payload, usable = self._proxy.payload(rows)
        halves = uid_halves(rows[UID].filter(pa.array(usable)))
        keys = np.random.SeedSequence([self._config.seed, 47]).generate_state(2, np.uint64)
        coin = coins(halves, np.zeros(len(halves), np.int64), keys)
        lowest = np.sort(np.argsort(coin, kind="stable")[: self._config.train_rows])
        return payload.append_column(COIN, pa.array(coin)).take(pa.array(lowest))

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint | None = None) -> State:
        """The weights at every checkpoint, what the proxy knows besides, `losses (T,)` of its training, and `rows`.

        What was saved in `checkpoint` is gone on from. Memory is bounded by the sample: its tokens, or its vectors.
        """
        sample = Sample(summaries, self._config.train_rows)
        if not len(sample.order):
            return {"rows": np.int64(0)}
        saved = checkpoint.load() if checkpoint else None
        if saved is None:
            prepared = self._proxy.prepared(sample, sample.order)
        else:
            prepared = {name.removeprefix("prepared/"): a for name, a in saved.items() if name.startswith("prepared/")}
        learner = self._proxy.learner(sample, sample.order, prepared)
        if not learner.count:
            return {"rows": np.int64(0)}
        aside = {f"prepared/{name}": array for name, array in prepared.items()}
        if checkpoint and saved is None:
            checkpoint.save(aside)
        trained = Training(learner, self._config, self.device).run(checkpoint, aside)
        return prepared | trained | {"rows": np.int64(learner.count)}

    def run(self, rows: pa.Table) -> Result:
        """The rows' trajectories, packed float32; null where a row cannot be measured."""
        shape = (rows.num_rows, self._config.checkpoints)
        state = self._state or {"rows": 0}
        losses: np.ndarray = np.full(shape, np.nan, np.float32)
        if int(state["rows"]):
            losses = self._proxy.losses(rows, state, self.tell)
        sound = np.isfinite(losses).all(axis=1)
        return Result(pa.table({COLUMN: pack(np.where(sound[:, None], losses, 0).astype("<f4"), sound)}), [])


class Sample:
    """The rows to learn from, summary by summary, at every iteration.

    Attributes:
        order: int64: those rows by coin, as places among all that an iteration gives.
    """

    def __init__(self, summaries: Iterable[pa.Table], most: int) -> None:
        self._summaries = summaries
        coin = np.zeros(0)
        for table in summaries:
            coin = np.sort(np.concatenate([coin, table[COIN].to_numpy()]), kind="stable")[:most]
        self._last = float(coin[-1]) if len(coin) else -1.0
        kept = [np.zeros(0), *(part[COIN].to_numpy() for part in self._parts())]
        self.order = np.argsort(np.concatenate(kept), kind="stable")[:most]  # of rows with the last coin, the first

    def __iter__(self) -> Iterator[pa.Table]:
        return (part.drop_columns(COIN) for part in self._parts())

    def _parts(self) -> Iterator[pa.Table]:
        return (table.filter(pc.less_equal(table[COIN], self._last)) for table in self._summaries)
