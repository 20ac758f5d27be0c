"""Pairs of embeddings as what a proxy is trained on: two linear adapters. Our adaptation: the papers mix texts.

Training is by CLIP's softmax loss within a batch, whatever groups its rows are of; a group's part of it is the mean
over its own rows, the whole batch being their wrong answers. To measure by that would make a group's validation loss
depend on who its neighbours are: so rows of all groups are measured against the same references, rows to learn from,
as many of every group (`tasks.score.proxy_pairs`). A row with the very embedding of the right answer is no wrong one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from configs.methods.proxies import PairProxy
from tasks.embed.vectors import unpack
from tasks.score.proxy_pairs import (
    BLOCK_ROWS,
    IMAGE,
    REFERENCES,
    TEXT,
    PairLearner,
    adapted,
    codes_of,
    reference_losses,
    scale_of,
)
from tasks.select.directions import directions

if TYPE_CHECKING:
    import torch

    Weights = dict[str, torch.Tensor]

TOWERS = (IMAGE, TEXT)


class PairSource:
    """What is read of rows for adapters."""

    needs: tuple[str, ...] = TOWERS
    input_columns: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ("torch",)

    def __init__(self, config: PairProxy) -> None:
        self._config = config

    def check_columns(self, schema: pa.Schema) -> None:
        """No column is the user's."""

    def row_bytes(self, schema: pa.Schema) -> int:
        """Of a row of a payload with this schema: both embeddings."""
        return sum(schema.field(name).type.byte_width for name in TOWERS)

    def payload(self, rows: pa.Table) -> tuple[pa.Table, np.ndarray]:
        """Both embeddings of the rows that have both, and which do, bool `(n,)`."""
        usable = np.ones(rows.num_rows, bool)
        for name in TOWERS:
            vectors = unpack(rows[name])
            usable &= np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
        return rows.select(TOWERS).filter(pa.array(usable)), usable

    def corpus(self, train: list[pa.Table], held: list[pa.Table], seed: int, device: str) -> PairCorpus:
        """The corpus of each group's payloads, to learn from and to be measured on."""
        table = pa.concat_tables([*train, *held])
        vectors = {name: unpack(table[name]) for name in TOWERS}
        ends = np.cumsum([part.num_rows for part in (*train, *held)])
        rows = np.split(np.arange(table.num_rows), ends[:-1])
        learner = PairLearner(vectors, self._config.width, seed, device)
        return PairCorpus(learner, vectors, rows[: len(train)], rows[len(train) :], device)


class PairCorpus:
    """Pairs of every group; a `tasks.mix.group_proxy.Corpus`."""

    threads = True  # a batch is one piece all the same, for its rows are each other's wrong answers

    def __init__(
        self,
        learner: PairLearner,
        vectors: dict[str, np.ndarray],
        train: list[np.ndarray],
        held: list[np.ndarray],
        device: str,
    ) -> None:
        import torch

        self.train, self.held = train, held
        self._learner, self._vectors, self._device = learner, vectors, device
        each = max(1, REFERENCES // len(train))
        references = np.concatenate([rows[:each] for rows in train])
        known = {name: vectors[name][references] for name in TOWERS}
        self._codes = {name: codes_of(vectors[name], known[name]) for name in TOWERS}
        self._known = {name: torch.from_numpy(directions(known[name])).to(device) for name in TOWERS}

    def initial(self) -> dict[str, np.ndarray]:
        """As of `tasks.score.proxy_pairs`."""
        return self._learner.initial()

    def pieces(self, batch: np.ndarray, places: np.ndarray, least: int = 1) -> list[np.ndarray]:
        """The places as they are."""
        return [places]

    def loss(self, weights: Weights, batch: np.ndarray, places: np.ndarray) -> tuple[torch.Tensor, int]:
        """Sum of the softmax losses, both directions, of the rows at these places within the batch; and their number.

        Rows of the batch with the very embedding of a row's partner (itself drawn twice, say) are not against it.
        """
        import torch

        own = {name: adapted(weights, name, vectors) for name, vectors in self._on_device(batch).items()}
        right = torch.arange(len(batch), device=self._device)[places]
        total = torch.zeros((), device=self._device)
        for name, other in ((IMAGE, TEXT), (TEXT, IMAGE)):
            codes = self._codes[other][0][batch]
            same = codes[places, None] == codes
            same[np.arange(len(places)), places] = False
            logits = scale_of(weights) * own[name][right] @ own[other].T
            logits = logits.masked_fill(torch.from_numpy(same).to(self._device), float("-inf"))
            total = total + torch.nn.functional.cross_entropy(logits, right, reduction="sum")
        return total / 2, len(places)

    def held_pieces(self, rows: np.ndarray) -> list[np.ndarray]:
        """The rows in blocks."""
        return [rows[at : at + BLOCK_ROWS] for at in range(0, len(rows), BLOCK_ROWS)]

    def held_loss(self, weights: Weights, rows: np.ndarray) -> tuple[torch.Tensor, int]:
        """Sum of the losses of some rows against the references, and their number."""
        codes = {name: (partner[rows], known) for name, (partner, known) in self._codes.items()}
        return reference_losses(weights, self._on_device(rows), self._known, codes).sum(), len(rows)

    def _on_device(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        import torch

        return {n: torch.from_numpy(directions(v[rows])).to(self._device) for n, v in self._vectors.items()}
