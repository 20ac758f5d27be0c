"""Two linear adapters over the cached embeddings of images and texts as proxy: an adaptation of S2L to pairs.

They learn by CLIP's softmax loss within a batch. To measure by that would make a row's loss depend on its neighbours;
so each row is measured against the same rows of the sample, whose embeddings are kept: the mean, over both directions,
of minus the log of the share of its own partner among the partner and those references. A reference with the very
embedding of the row's partner is no wrong answer, and is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from configs.methods.proxies import PairProxy, Trajectory
from storage.states import State
from tasks.embed.vectors import unpack
from tasks.score.blockwise import Progress, Tell, silent
from tasks.score.proxy_training import in_threads, in_turn, steady, weights_at
from tasks.select.directions import directions

if TYPE_CHECKING:
    import torch

    Weights = dict[str, torch.Tensor]

REFERENCES = 1024
"""Rows of the sample that every row is measured against."""
BLOCK_ROWS = 1024
LARGEST_SCALE = 100.0
"""Of the logits, as in CLIP."""
IMAGE, TEXT = "image_embedding", "text_embedding"


class PairProxyModel:
    """What is asked of a proxy, for pairs; built from its section and the training's."""

    needs: tuple[str, ...] = (IMAGE, TEXT)
    input_columns: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ("torch",)

    def __init__(self, config: PairProxy, training: Trajectory, device: str) -> None:
        self._config, self._training, self._device = config, training, device

    def check(self) -> None:
        """Nothing can be missing."""

    def check_columns(self, schema: pa.Schema) -> None:
        """No column is the user's."""

    def depends_on(self) -> dict[str, Any]:
        """Nothing more."""
        return {}

    def payload(self, rows: pa.Table) -> tuple[pa.Table, np.ndarray]:
        """Both embeddings of the rows that have both, and which do, bool `(n,)`."""
        usable = np.ones(rows.num_rows, bool)
        for name in self.needs:
            vectors = unpack(rows[name])
            usable &= np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
        return rows.select(self.needs).filter(pa.array(usable)), usable

    def prepared(self, parts: Iterable[pa.Table], order: np.ndarray) -> State:
        """The references' embeddings, the first rows in `order`: `reference/<column>: float16 (R, D)`."""
        found = _sampled(parts, order[:REFERENCES])
        return {f"reference/{name}": vectors for name, vectors in found.items()}

    def learner(self, parts: Iterable[pa.Table], order: np.ndarray, prepared: State) -> PairLearner:
        """The sample's rows, in `order`."""
        return PairLearner(_sampled(parts, order), self._config.width, self._training.seed, self._device)

    def losses(self, rows: pa.Table, state: State, tell: Tell = silent) -> np.ndarray:
        """Loss of every row at every checkpoint, float32 `(n, T)`; NaN where an embedding is missing."""
        import torch

        result = np.full((rows.num_rows, self._training.checkpoints), np.nan, np.float32)
        table, usable = self.payload(rows)
        if not usable.any():
            return result
        own = {name: unpack(table[name]) for name in self.needs}
        known = {name: state[f"reference/{name}"] for name in self.needs}
        codes = {name: codes_of(own[name], known[name]) for name in self.needs}
        vectors = {name: torch.from_numpy(directions(own[name])) for name in self.needs}
        against = {name: torch.from_numpy(directions(known[name])).to(self._device) for name in self.needs}
        run = in_threads if self._device == "cpu" else in_turn
        progress = Progress(tell, len(table))
        blocks = [slice(at, at + BLOCK_ROWS) for at in range(0, len(table), BLOCK_ROWS)]
        with steady(self._device):
            for t in range(self._training.checkpoints):
                weights = weights_at(state, t, self._device)
                progress.begin(f"checkpoint {t + 1} of {self._training.checkpoints}, ")
                found = []
                for part in run(partial(_measured, weights, vectors, against, codes), blocks):
                    found.append(part)
                    progress.add(len(part))
                result[usable, t] = np.concatenate(found)
        return result


class PairLearner:
    """Pairs of embeddings to learn from."""

    threads = True  # a batch is one piece all the same, for its rows are each other's wrong answers

    def __init__(self, vectors: dict[str, np.ndarray], width: int, seed: int, device: str) -> None:
        self._vectors, self._width, self._seed, self._device = vectors, width, seed, device
        self.count = len(vectors[IMAGE])

    def initial(self) -> dict[str, np.ndarray]:
        """Adapters `(D, width)`, normal with deviation D^-0.5, and the log of the logits' scale, as CLIP begins."""
        rng = np.random.default_rng([self._seed, 3])
        scales = {name: vectors.shape[1] for name, vectors in self._vectors.items()}
        drawn = {n: rng.standard_normal((d, self._width), dtype=np.float32) / d**0.5 for n, d in scales.items()}
        return {n: w.astype(np.float32) for n, w in drawn.items()} | {"scale": np.array([np.log(1 / 0.07)], np.float32)}

    def pieces(self, rows: np.ndarray) -> list[np.ndarray]:
        """The batch as it is."""
        return [rows]

    def loss(self, weights: Weights, rows: np.ndarray) -> tuple[torch.Tensor, int]:
        """Softmax loss of the batch, both directions, times its rows; and its rows."""
        import torch

        own = {name: torch.from_numpy(directions(v[rows])).to(self._device) for name, v in self._vectors.items()}
        logits = scale_of(weights) * adapted(weights, IMAGE, own[IMAGE]) @ adapted(weights, TEXT, own[TEXT]).T
        right = torch.arange(len(rows), device=self._device)
        entropy = torch.nn.functional.cross_entropy
        return (entropy(logits, right) + entropy(logits.T, right)) / 2 * len(rows), len(rows)


def adapted(weights: Weights, name: str, vectors: torch.Tensor) -> torch.Tensor:
    """Unit vectors in the common space, float32 `(n, width)`."""
    import torch

    return torch.nn.functional.normalize(vectors @ weights[name], dim=1)


def scale_of(weights: Weights) -> torch.Tensor:
    """What cosines are multiplied by, float32 `(1,)`."""
    return weights["scale"].exp().clamp(max=LARGEST_SCALE)


def _measured(
    weights: Weights,
    vectors: dict[str, torch.Tensor],
    against: dict[str, torch.Tensor],
    codes: dict[str, tuple[np.ndarray, np.ndarray]],
    block: slice,
) -> np.ndarray:
    """Losses of a block of rows against the references, float32 `(rows,)`."""
    import torch

    with torch.inference_mode():
        own = {name: v[block] for name, v in vectors.items()}
        theirs = {name: (partner[block], known) for name, (partner, known) in codes.items()}
        return np.asarray(reference_losses(weights, own, against, theirs).cpu().numpy())


def reference_losses(
    weights: Weights,
    vectors: dict[str, torch.Tensor],
    against: dict[str, torch.Tensor],
    codes: dict[str, tuple[np.ndarray, np.ndarray]],
) -> torch.Tensor:
    """Losses of rows against the references, float32 `(n,)`.

    Args:
        weights: As of `PairLearner.initial`.
        vectors: Directions of the rows' embeddings by column, float32 `(n, D)`.
        against: Those of the references, float32 `(R, D)`.
        codes: As of `codes_of`, by column.
    """
    import torch

    device = weights["scale"].device
    own = {name: adapted(weights, name, v.to(device)) for name, v in vectors.items()}
    known = {name: adapted(weights, name, v) for name, v in against.items()}
    right = (own[IMAGE] * own[TEXT]).sum(1, keepdim=True)
    total = torch.zeros(len(right), device=device)
    for name, other in ((IMAGE, TEXT), (TEXT, IMAGE)):
        wrong = own[name] @ known[other].T
        partner, theirs = codes[other]
        same = torch.from_numpy(partner[:, None] == theirs).to(device)
        wrong = wrong.masked_fill(same, float("-inf"))
        logits = scale_of(weights) * torch.cat([right, wrong], dim=1)
        total = total + (logits.logsumexp(1) - logits[:, 0])
    return total / 2


def codes_of(vectors: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A number for each row's vector and for each reference's, the same where they are byte for byte: `(n,)`, `(R,)`.

    Rows by references as booleans would be a kilobyte a row.
    """
    whole = np.ascontiguousarray(np.concatenate([known, vectors]))
    code = np.unique(whole.view(np.dtype((np.void, whole.itemsize * whole.shape[1]))).ravel(), return_inverse=True)[1]
    return code[len(known) :], code[: len(known)]


def _sampled(parts: Iterable[pa.Table], order: np.ndarray) -> dict[str, np.ndarray]:
    """The embeddings of the rows that `order` names, in that order: float16 `(len(order), D)` by column."""
    found: dict[str, np.ndarray] = {}
    first = 0
    for part in parts:
        place = np.flatnonzero((order >= first) & (order < first + part.num_rows))
        for name in (IMAGE, TEXT):
            vectors = unpack(part[name])
            if part.num_rows:
                found.setdefault(name, np.empty((len(order), vectors.shape[1]), np.float16))
                found[name][place] = vectors[order[place] - first]
        first += part.num_rows
    return found
