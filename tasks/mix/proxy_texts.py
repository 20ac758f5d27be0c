"""Texts as what a proxy is trained on: a small causal language model, with a tokenizer of its own.

The tokenizer learns from the sample too, from as many characters of every group at most, so that no group's size
decides how well another is cut. A loss is the mean over tokens, the end-of-text token included: in training over those
of the batch, and of a group over those of its rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from configs.methods.learned import LanguageMixProxy
from configs.methods.proxies import LanguageProxy
from storage.view import TEXT
from tasks.score.causal_lm import SLICE, Encoded, planned
from tasks.score.proxy_language import LOGITS, NewModel, check_text, read_column, token_losses, trained_tokenizer

if TYPE_CHECKING:
    import torch

    Weights = dict[str, torch.Tensor]

TOKENIZER_CHARACTERS = 1 << 20
"""Of each group, at most, that the tokenizer learns from."""

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

    def payload(self, rows: pa.Table) -> tuple[pa.Table, np.ndarray]:
        """`text` of the rows that have one, and which do, bool `(n,)`; as much of it as may become tokens."""
        texts = read_column(rows[self._column], self._column, self._config.max_length)
        usable = np.array([bool(text) for text in texts], bool)
        return pa.table({"text": pa.array(texts, pa.large_string())}).filter(pa.array(usable)), usable

    def corpus(self, train: list[pa.Table], held: list[pa.Table], seed: int, device: str) -> TextCorpus:
        """The corpus of each group's payloads, to learn from and to be measured on."""
        learned = [part["text"].to_pylist() for part in train]
        shape = self._config.model_dump(include={"max_length", "vocabulary", "width", "layers", "heads"})
        config = LanguageProxy(**shape)
        state = trained_tokenizer((text for texts in learned for text in _first(texts)), config.vocabulary)
        model = NewModel(config, state.tobytes().decode())
        return TextCorpus(model, learned, [part["text"].to_pylist() for part in held], seed, device)


class TextCorpus:
    """Token rows of every group; a `tasks.mix.group_proxy.Corpus`.

    Attributes:
        model: The model, with its tokenizer.
    """

    threads = True

    def __init__(self, model: NewModel, train: list[list[str]], held: list[list[str]], seed: int, device: str) -> None:
        self.model, self._seed, self._device = model, seed, device
        self._encoded = _encoded(model, [text for texts in (*train, *held) for text in texts])
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


def _first(texts: list[str]) -> Iterator[str]:
    """The first texts, up to as many characters as the tokenizer learns from."""
    read = 0
    for text in texts:
        if read >= TOKENIZER_CHARACTERS:
            return
        yield text
        read += len(text)


def _encoded(model: NewModel, texts: list[str]) -> Encoded:
    """Token ids of texts, none empty, between end-of-text tokens; cut at the model's length."""
    pieces = [np.zeros(0, np.int32)]
    for at in range(0, len(texts), SLICE):
        for ids in model.ids(texts[at : at + SLICE]):
            pieces.append(np.array([*model.begin, *ids, *model.end][: model.max_length], np.int32))
    lengths = [len(piece) for piece in pieces]  # the first is 0
    rows = np.arange(len(texts))
    return Encoded(rows, np.concatenate(pieces), np.cumsum(lengths, dtype=np.int64), np.ones(len(rows), np.int64))
