"""Texts as what a proxy is trained on: a small causal language model, with a tokenizer of its own.

The tokenizer learns from the sample too, from as many characters of every group at most, so that no group's size
decides how well another is cut. A loss is the mean over tokens, the end-of-text token included: in training over those
of the batch, and of a group over those of its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from configs.methods.learned import LanguageMixProxy
from configs.methods.proxies import LanguageProxy
from storage.view import TEXT
from tasks.score.causal_lm import SLICE, Encoded, planned
from tasks.score.proxy_language import (
    CHARACTERS_PER_TOKEN,
    LOGITS,
    NewModel,
    check_text,
    read_column,
    token_losses,
    trained_tokenizer,
)

if TYPE_CHECKING:
    import torch

    Weights = dict[str, torch.Tensor]
    # Of a group. Arrow's are read a slice at a time, for Python's take several times as much memory.
    Texts = Sequence[str] | Any  # pa.ChunkedArray

TOKENIZER_CHARACTERS = 1 << 20
"""Of each group, at most, that the tokenizer learns from."""

FIRST_SLICE = 256
"""Texts that are read at once for the tokenizer, which takes few."""

HELD_LOGITS = LOGITS // 4
"""Of a forward pass over validation rows: small enough that some may be in the model at once, with gradients."""


class TextSource:
    """What is read of rows for a language model."""

    libraries: tuple[str, ...] = ("torch", "tokenizers")

    def __init__(self, config: LanguageMixProxy) -> None:
        self._config = config
        self._column = config.text or TEXT
        self.input_columns: tuple[str, ...] = (config.text,) if config.text else ()
        self.needs: tuple[str, ...] = (self._column,)

    def check_columns(self, schema: pa.Schema) -> None:
        """Raise ColumnError if the column that the user names holds no texts."""
        for name in self.input_columns:
            check_text(schema.field(name).type, name)

    def row_bytes(self, schema: pa.Schema) -> int:
        """Of a row of a payload: as much text as may become tokens, a byte for each character."""
        return CHARACTERS_PER_TOKEN * self._config.max_length

    def payload(self, rows: pa.Table) -> tuple[pa.Table, np.ndarray]:
        """`text` of the rows that have one, and which do, bool `(n,)`; as much of it as may become tokens."""
        found, usable = [pa.array([], pa.large_string())], [np.zeros(0, bool)]
        for at in range(0, rows.num_rows, SLICE):
            part = rows[self._column].slice(at, SLICE)
            texts = read_column(part, self._column, self._config.max_length)
            usable.append(np.array([bool(text) for text in texts], bool))
            found.append(pa.array([text for text in texts if text], pa.large_string()))
        return pa.table({"text": pa.concat_arrays(found)}), np.concatenate(usable)

    def corpus(self, train: list[pa.Table], held: list[pa.Table], seed: int, device: str) -> TextCorpus:
        """The corpus of each group's payloads, to learn from and to be measured on."""
        shape = self._config.model_dump(include={"max_length", "vocabulary", "width", "layers", "heads"})
        config = LanguageProxy(**shape)
        first = (text for part in train for text in _first(part["text"]))
        model = NewModel(config, trained_tokenizer(first, config.vocabulary).tobytes().decode())
        return TextCorpus(model, [part["text"] for part in train], [part["text"] for part in held], seed, device)


class TextCorpus:
    """Token rows of every group; a `tasks.mix.group_proxy.Corpus`.

    Attributes:
        model: The model, with its tokenizer.
    """

    threads = True

    def __init__(self, model: NewModel, train: Sequence[Texts], held: Sequence[Texts], seed: int, device: str) -> None:
        self.model, self._seed, self._device = model, seed, device
        self._encoded = _encoded(model, [*train, *held])
        self._lengths = np.diff(self._encoded.offsets)
        ends = np.cumsum([len(texts) for texts in (*train, *held)])
        rows = np.split(np.arange(int(ends[-1])), ends[:-1])
        self.train, self.held = rows[: len(train)], rows[len(train) :]

    def initial(self) -> dict[str, np.ndarray]:
        """The model's."""
        return self.model.initial(self._seed)

    def pieces(self, batch: np.ndarray, places: np.ndarray, least: int = 1) -> list[np.ndarray]:
        """The places by the length of their rows, in parts of about as many: `least`, or as many as fit in memory."""
        lengths = self._lengths[batch[places]]
        order = places[np.argsort(lengths, kind="stable")]
        most = max(least, -(-int(lengths.max(initial=0)) * len(places) * self.model.vocabulary // LOGITS))
        return [piece for piece in np.array_split(order, most) if len(piece)]

    def loss(self, weights: Weights, batch: np.ndarray, places: np.ndarray) -> tuple[torch.Tensor, int]:
        """Sum over the tokens of the rows at these places, and their number."""
        return self.held_loss(weights, batch[places])

    def held_pieces(self, rows: np.ndarray) -> list[np.ndarray]:
        """The rows in parts of like length."""
        return [rows[part] for part in planned(self._lengths[rows], max(1, HELD_LOGITS // self.model.vocabulary))]

    def held_loss(self, weights: Weights, rows: np.ndarray) -> tuple[torch.Tensor, int]:
        """Sum over the tokens of some rows, and their number."""
        losses, _ = token_losses(self.model, weights, self._encoded, rows)
        return losses.sum(), len(losses)


def _slices(texts: Texts, rows: int) -> Iterator[list[str]]:
    """Texts, so many at a time."""
    for at in range(0, len(texts), rows):
        part = texts[at : at + rows]
        yield part.to_pylist() if isinstance(part, pa.ChunkedArray) else list(part)


def _first(texts: Texts) -> Iterator[str]:
    """The first texts, up to as many characters as the tokenizer learns from."""
    read = 0
    for text in (text for part in _slices(texts, FIRST_SLICE) for text in part):
        if read >= TOKENIZER_CHARACTERS:
            return
        yield text
        read += len(text)


def _encoded(model: NewModel, groups: Sequence[Texts]) -> Encoded:
    """Token ids of the texts of all groups, none empty, between end-of-text tokens; cut at the model's length."""
    pieces, lengths = [np.zeros(0, np.int32)], [0]
    for part in (part for texts in groups for part in _slices(texts, SLICE)):
        rows = [[*model.begin, *ids, *model.end][: model.max_length] for ids in model.ids(part)]
        lengths += map(len, rows)
        pieces.append(np.fromiter((one for row in rows for one in row), np.int32, sum(map(len, rows))))
    count = len(lengths) - 1
    offsets = np.cumsum(lengths, dtype=np.int64)
    return Encoded(np.arange(count), np.concatenate(pieces), offsets, np.ones(count, np.int64))
