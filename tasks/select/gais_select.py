"""GAIS-style (reconstructed) instance selection over shards of any number: one network learns from a sample, buckets
of rows are scored one by one, and each class keeps its best rows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from importlib.metadata import distributions
from typing import Any

import numpy as np
import pyarrow as pa

from configs.errors import ConfigError
from configs.methods.diversity import Gais as Config
from configs.methods.diversity import GaisGraph, GaisNetwork
from storage.exchange import ROW
from storage.states import Checkpoint, State
from tasks.embed.device import device_slot, resolve_device
from tasks.select import Decisions, keep_all
from tasks.select.balance import packed, unpacked
from tasks.select.cells import faiss_version
from tasks.select.coins import coins, uid_halves
from tasks.select.gais import scaled, trained
from tasks.select.gais_buckets import bucket_of, coarse_keys, plan, shared_batches
from tasks.select.gais_clusters import centroids, nearest
from tasks.select.gais_columns import CLUSTER, codes_of, feature_columns, features_of, labels_of, number_column
from tasks.select.gais_graphs import row_graph
from tasks.select.gais_sample import Known, gathered, summary
from tasks.select.gais_scores import above_percentile, class_sizes, row_scores, shared_out
from tasks.select.gais_tuning import require_optuna, tuned

MOST_CLASSES = 1000
USUAL_RATIO = 0.04
UNLABELLED = -1
SAVE_SECONDS = 5.0
"""Between two checkpoints: what a crash may cost. An epoch may take less time than writing one down."""


class Gais:
    """Ranks rows within their class, always by quota; rows without features or label are told apart."""

    ranked = True
    libraries: tuple[str, ...] = ("torch", "torch-geometric", "scipy")

    def __init__(self, config: Config, *, seed: int) -> None:
        self._config, self._seed = config, seed
        self._columns = feature_columns(config.features)
        self._label = None if config.labels == CLUSTER else config.labels
        self._keys = np.random.SeedSequence([seed, 71]).generate_state(2, np.uint64)
        named = [*(self._columns if isinstance(config.features, list) else ()), self._label]
        self.input_columns: tuple[str, ...] = tuple(name for name in named if name and name != "source")
        label = (self._label,) if self._label else ()
        self.needs: tuple[str, ...] = tuple(dict.fromkeys((*self._columns, *label, "uid")))

    def check(self) -> None:
        """Raise ConfigError if settings are to be tuned and Optuna is not installed."""
        if self._config.tune_trials:
            require_optuna()

    def depends_on(self) -> dict[str, Any]:
        """The device class (other kernels add up in another order), settings left open, and who clusters and tunes."""
        ratio = self._config.keep_ratio or USUAL_RATIO
        facts: dict[str, Any] = {"device": resolve_device(self._config.device), "keep_ratio": ratio}
        facts["bits"] = self._config.graph.levels
        if self._label is None:
            facts |= faiss_version()
        if self._config.tune_trials:  # not in `libraries`: those must be there before `check` can say what is missing
            facts["optuna"] = [found.version for found in distributions(name="optuna")]
        return facts

    def check_columns(self, schema: pa.Schema) -> None:
        """Raise ColumnError if columns of these types hold neither features nor labels."""
        empty = schema.empty_table()
        if isinstance(self._config.features, list):
            for name in self._columns:
                number_column(empty, name)
        if self._label in schema.names:
            self._labels(empty)

    # ------------------------------------------------------------------------------------------------------------- fit
    def summarise(self, rows: pa.Table) -> pa.Table:
        """Classes, ranges of features, and a bounded sample of the rows that have both."""
        x, labels, usable = self._usable(rows)
        mask = pa.array(usable)
        own = coins(uid_halves(rows["uid"]), rows[_place(rows)].to_numpy(), self._keys)
        return summary(x[usable], labels.filter(mask), own[usable], self._config.train_rows)

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint) -> State:
        """Classes, ranges, how rows are dealt to buckets, and the trained network; goes on from `checkpoint`."""
        known = gathered(summaries, self._config.train_rows)
        if not known.rows:
            return {"rows": np.int64(0), "buckets": np.int64(1)}
        self._check(known)
        x = scaled(known.x, known.low, known.high)
        state: State = {"rows": np.int64(known.rows), "low": known.low, "high": known.high}
        state["center"] = scaled(known.mean[None], known.low, known.high)[0]
        if self._label is None:
            state["centroids"] = centroids(x, self._config.clusters, self._seed)
            y, classes = nearest(x, state["centroids"]), len(state["centroids"])
        else:
            state |= packed(known.classes)
            y, classes = codes_of(pa.chunked_array([known.labels]), known.classes), len(known.classes)
        graph, network = self._settings(x, y, checkpoint)
        state["settings"] = _as_bytes(graph, network)
        state |= plan(x, state["center"], graph, self._seed, (known.rows, self._config.bucket_rows))
        drawn = self._network(network, x.shape[1], classes)
        with device_slot(resolve_device(self._config.device)):
            if len(np.unique(y)) > 1:
                # The sample is bounded: all of it is dealt to batches, even if few rows are drawn from the rest.
                whole = graph.model_copy(update={"mode": "cover"})
                _train(trained(drawn, x, y, whole, self._seed), state["settings"], checkpoint)
        weights = {name: value.detach().cpu().numpy() for name, value in drawn.parameters().items()}
        return state | {"classes": np.int64(classes)} | {f"network/{name}": value for name, value in weights.items()}

    def _check(self, known: Known) -> None:
        if self._label is None:
            return
        if not 2 <= (count := len(known.classes)) <= MOST_CLASSES:
            example = f", {known.classes[0].as_py()!r} in every row" if count == 1 else ""
            raise ConfigError(
                f"select gais: `labels: {self._label}` has {count:,} classes{example}; there must be from 2 to "
                f"{MOST_CLASSES:,}. Name another column, or set `labels: cluster`."
            )

    def _settings(self, x: np.ndarray, y: np.ndarray, checkpoint: Checkpoint | None) -> tuple[GaisGraph, GaisNetwork]:
        """The settings given, or those that tuning finds; what was found before a crash is not looked for again."""
        saved = checkpoint.load() if checkpoint else None
        if saved is not None:
            return _from_bytes(saved["settings"])
        graph, network = self._config.graph, self._config.network
        if self._config.tune_trials:
            device = resolve_device(self._config.device)
            with device_slot(device):
                graph, network = tuned(x, y, self._config, seed=self._seed, device=device)
        if checkpoint:
            checkpoint.save({"settings": _as_bytes(graph, network)})
        return graph, network

    def _network(self, config: GaisNetwork, features: int, classes: int) -> Any:
        from tasks.select.gais_network import Network

        return Network(config, features, classes, seed=self._seed, device=resolve_device(self._config.device))

    # ---------------------------------------------------------------------------------------------------------- decide
    def partition(self, rows: pa.Table, state: State) -> np.ndarray:
        """Buckets of whole hash buckets, or by coin."""
        own = coins(uid_halves(rows["uid"]), rows[ROW].to_numpy(), self._keys)
        if "keys" not in state:
            return bucket_of(state, own, None)
        x, sound = features_of(rows, self._columns)
        graph, _ = _from_bytes(state["settings"])
        moved = scaled(np.where(sound[:, None], x, 0), state["low"], state["high"])
        return bucket_of(state, own, coarse_keys(moved, state["center"], graph, self._seed))

    def decide(self, rows: pa.Table, state: State) -> Decisions:
        """Rank the rows of one bucket within their classes."""
        decisions = keep_all(rows.num_rows)
        group = np.full(rows.num_rows, UNLABELLED, np.int64)
        rank = np.full(rows.num_rows, -np.inf, np.float32)
        x, sound = features_of(rows, self._columns)
        labelled = np.ones(rows.num_rows, bool) if self._label is None else self._labels(rows).is_valid().to_numpy()
        if self._config.unlabelled == "drop":
            _drop(decisions, ~labelled, "no_label")
        _drop(decisions, ~sound if self._config.unlabelled == "drop" else ~sound & labelled, "no_features")
        members = np.flatnonzero(sound & labelled)
        if len(members):
            moved = scaled(x[members], state["low"], state["high"])
            group[members] = self._codes(rows, members, moved, state)
            own = coins(uid_halves(rows["uid"]), rows[ROW].to_numpy(), self._keys)
            score = self._scores(moved, group[members], state, int(own[members[0]] * int(state["buckets"])))
            decisions.score[members] = np.where(np.isneginf(score), np.nan, score)
            rank[members] = -score
            decisions.reason[members] = "less_important"
            _drop(decisions, members[np.isneginf(score)], "in_no_batch")
        return decisions._replace(rank=rank, group=group)

    def _codes(self, rows: pa.Table, members: np.ndarray, x: np.ndarray, state: State) -> np.ndarray:
        if self._label is None:
            return nearest(x, state["centroids"])
        return codes_of(self._labels(rows), unpacked(state))[members]

    def _scores(self, x: np.ndarray, y: np.ndarray, state: State, bucket: int) -> np.ndarray:
        """Scores of one bucket, piece by piece if it came out far larger than planned."""
        from tasks.select.gais_network import node_scores, restored

        graph, settings = _from_bytes(state["settings"])
        if graph.kind == "mini_batch" and graph.mode == "sample":  # the bucket's share of the batches
            share = shared_batches(graph.batches, int(state["buckets"]), bucket)
            if not share:
                return np.full(len(x), -np.inf, np.float32)
            graph = graph.model_copy(update={"batches": share})
        network = restored(self._network(settings, x.shape[1], int(state["classes"])), state)
        pieces = np.array_split(np.arange(len(x)), -(-len(x) // (2 * self._config.bucket_rows)))
        found = np.empty(len(x), np.float32)
        with device_slot(resolve_device(self._config.device)):
            for piece in pieces:
                nodes = row_graph(x[piece], y[piece], graph, self._seed, state["center"])
                scores = node_scores(network, (x[piece], y[piece]), nodes, self._config.score)
                found[piece] = row_scores(scores, nodes.rows, len(piece))
        return found

    # ----------------------------------------------------------------------------------------------------------- quotas
    def quotas(self, groups: np.ndarray, rows: np.ndarray, wanted: int | None) -> np.ndarray:
        """Rows to keep of each class: its share, those above the percentile, or its part of the target."""
        labelled = groups != UNLABELLED
        sizes = rows.copy()
        if wanted is not None:
            sizes[~labelled] = np.minimum(rows[~labelled], wanted)
            sizes[labelled] = shared_out(rows[labelled], wanted - int(sizes[~labelled].sum()))
        elif self._config.percentile is not None:
            sizes[labelled] = above_percentile(rows[labelled], self._config.percentile)
        else:
            sizes[labelled] = class_sizes(rows[labelled], self._config.keep_ratio or USUAL_RATIO)
        return sizes

    def group_names(self, groups: np.ndarray, state: State) -> list[str]:
        """The classes' labels."""
        names = unpacked(state).to_pylist() if "text" in state else []
        told = [names[g] if 0 <= g < len(names) else f"cluster {g}" for g in groups.tolist()]
        return ["no label" if g == UNLABELLED else name for g, name in zip(groups, told, strict=True)]

    def _labels(self, rows: pa.Table) -> pa.ChunkedArray:
        return labels_of(rows, self._label or "")

    def _usable(self, rows: pa.Table) -> tuple[np.ndarray, pa.ChunkedArray, np.ndarray]:
        """Features, labels (empty for clusters) and which rows have both."""
        x, sound = features_of(rows, self._columns)
        if self._label is None:
            return x, pa.chunked_array([pa.repeat(pa.scalar("", pa.large_string()), len(x))]), sound
        labels = self._labels(rows)
        return x, labels, sound & labels.is_valid().to_numpy()


def _place(rows: pa.Table) -> str:
    """The column of row numbers: summaries see it under the name it has at rest."""
    return ROW if ROW in rows.column_names else "row"


def _drop(decisions: Decisions, which: np.ndarray, reason: str) -> None:
    decisions.keep[which] = False
    decisions.reason[which] = reason


def _train(training: Any, settings: np.ndarray, checkpoint: Checkpoint | None) -> None:
    """Train to the end, from the last epoch that was saved."""
    saved = checkpoint.load() if checkpoint else None
    if saved is not None and "epoch" in saved:
        training.restore(saved)
    if checkpoint is None:
        training.run()
        return
    last = time.monotonic()

    def save(state: State) -> None:
        nonlocal last
        if time.monotonic() - last >= SAVE_SECONDS or training.done:
            checkpoint.save(state | {"settings": settings})
            checkpoint.tell(f"gais: epoch {training.epoch}, loss {training.losses[-1]:.4f}")
            last = time.monotonic()

    training.run(save)


def _as_bytes(graph: GaisGraph, network: GaisNetwork) -> np.ndarray:
    """Settings as the bytes of JSON, uint8: a state holds no objects."""
    return np.frombuffer(json.dumps([graph.model_dump(), network.model_dump()], sort_keys=True).encode(), np.uint8)


def _from_bytes(settings: np.ndarray) -> tuple[GaisGraph, GaisNetwork]:
    graph, network = json.loads(settings.tobytes())
    return GaisGraph(**graph), GaisNetwork(**network)
