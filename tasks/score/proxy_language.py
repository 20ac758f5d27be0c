"""A causal language model as proxy: small and new, with a tokenizer of its own, or one of `transformers` trained on.

A row's loss is the mean over the tokens of its response, the end-of-text token included (of plain text: over all
tokens); those of its prompt only stand before them. The new model's rows begin with the end-of-text token too, so that
their first token counts. Of a prompt and of a response 16 characters for each token of `max_length` are read at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from importlib.metadata import distributions
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from configs.errors import ColumnError
from configs.methods.logits import CausalLm
from configs.methods.proxies import LanguageProxy, Trajectory
from storage.states import State
from storage.view import TEXT
from tasks.embed.texts import read_texts
from tasks.score.blockwise import Progress, Tell, silent
from tasks.score.causal_lm import Encoded, cut_rows, padded, planned
from tasks.score.causal_loading import check_model, require_transformers, weights_digest
from tasks.score.given_lm import GivenModel, given_model
from tasks.score.proxy_training import in_threads, in_turn, steady, weights_at
from tasks.score.small_lm import SmallLm

if TYPE_CHECKING:
    import torch

CHARACTERS_PER_TOKEN = 16
"""Of a text, read at most. Fewer than `causal_lm` reads, for these are kept: in the summaries that it learns from."""
SLICE = 4096
"""Rows that are tokenised at once: Python has an object for each of their tokens."""
PIECES = 4
"""Parts of a batch in training, each of rows of like length: what may be in the model at once."""
LOGITS = 1 << 24
"""Of a forward pass without gradients: numbers, 4 bytes each."""
PROMPT, RESPONSE = "prompt", "response"


class LanguageProxyModel:
    """What is asked of a proxy, for texts; built from its section and the training's."""

    def __init__(self, config: LanguageProxy, training: Trajectory, device: str) -> None:
        self._config, self._training, self._device = config, training, device
        self.input_columns: tuple[str, ...] = tuple(dict.fromkeys(c for c in (config.prompt, config.response) if c))
        self.needs: tuple[str, ...] = tuple(dict.fromkeys((*self.input_columns, config.response or TEXT)))
        self.libraries: tuple[str, ...] = ("torch", "tokenizers")

    # --------------------------------------------------------------------------------------------------------- before
    def check(self) -> None:
        """Raise ConfigError or ModelError if transformers or the model that `model` names cannot be there."""
        if self._config.model is not None:
            require_transformers()
            check_model(self._causal_lm())

    def depends_on(self) -> dict[str, Any]:
        """The weights to begin with, and who runs them."""
        if self._config.model is None:
            return {}
        found = [d.version for d in distributions(name="transformers")]  # `check` says if there are none
        return {"weights": weights_digest(self._config.model), "transformers": found}

    def check_columns(self, schema: pa.Schema) -> None:
        """Raise ColumnError if columns of these types hold no texts."""
        for name in self.input_columns:
            check_text(schema.field(name).type, name)

    def payload(self, rows: pa.Table) -> tuple[pa.Table, np.ndarray]:
        """`prompt` and `response` of the rows that have a response, and which do, bool `(n,)`."""
        prompts, responses = self._texts(rows)
        usable = np.array([bool(text) for text in responses], bool)
        columns = {PROMPT: pa.array(prompts, pa.large_string()), RESPONSE: pa.array(responses, pa.large_string())}
        return pa.table(columns).filter(pa.array(usable)), usable

    # ------------------------------------------------------------------------------------------------------- training
    def prepared(self, parts: Iterable[pa.Table], order: np.ndarray) -> State:
        """`tokenizer: uint8`, trained on the responses and prompts of the sample, as JSON; nothing with a `model`."""
        if self._config.model is not None:
            return {}
        names = (PROMPT, RESPONSE) if self._config.prompt else (RESPONSE,)
        texts = (text for part in parts for name in names for text in part[name].drop_null().to_pylist())
        return {"tokenizer": trained_tokenizer(texts, self._config.vocabulary)}

    def learner(self, parts: Iterable[pa.Table], order: np.ndarray, prepared: State) -> LanguageLearner:
        """The sample's rows as tokens, in `order`; those without a token of the response are left out."""
        model = self._model(prepared)
        encoded = _joined(
            (part.num_rows, self._encoded(model, part[PROMPT].to_pylist(), part[RESPONSE].to_pylist()))
            for part in parts
        )
        place = np.full(max(encoded.rows[-1:].max(initial=0), order.max(initial=0)) + 1, -1)
        place[encoded.rows] = np.arange(len(encoded.rows))
        return LanguageLearner(model, encoded, place[order][place[order] >= 0], self._training.seed)

    def losses(self, rows: pa.Table, state: State, tell: Tell = silent) -> np.ndarray:
        """Mean loss of every row's response at every checkpoint, float32 `(n, T)`; NaN where there is no response."""
        model = self._model(state)
        encoded = self._encoded(model, *self._texts(rows), tell)
        lengths = np.diff(encoded.offsets)
        plan = planned(lengths, max(1, LOGITS // model.vocabulary))
        result = np.full((rows.num_rows, self._training.checkpoints), np.nan, np.float32)
        run = in_threads if self._device == "cpu" and model.threads else in_turn
        progress = Progress(tell, rows.num_rows)
        with steady(self._device):
            for t in range(self._training.checkpoints):
                weights = weights_at(state, t, self._device)
                progress.begin(f"checkpoint {t + 1} of {self._training.checkpoints}, ")
                found = run(partial(_measured, model, weights, encoded), plan)
                for members, loss in zip(plan, found, strict=True):
                    result[encoded.rows[members], t] = loss
                    progress.add(len(members))
        return result

    # ---------------------------------------------------------------------------------------------------------- tokens
    def _texts(self, rows: pa.Table) -> tuple[list[str | None], list[str | None]]:
        """Prompts and responses, as far as they are read; None for null and for what is not UTF-8."""
        name = self._config.prompt
        prompts: list[str | None] = [None] * rows.num_rows
        if name:
            prompts = self._read(rows[name], name)
        return prompts, self._read(rows[self._config.response or TEXT], self._config.response or TEXT)

    def _read(self, column: pa.ChunkedArray, name: str) -> list[str | None]:
        return read_column(column, name, self._config.max_length)

    def _encoded(
        self, model: Any, prompts: list[str | None], responses: list[str | None], tell: Tell = silent
    ) -> Encoded:
        """Token ids of the rows with a token of the response within `max_length`."""
        rows, pieces, before = [], [np.zeros(0, np.int32)], []
        cut = 0
        for at in range(0, len(responses), SLICE):
            heads = [f"{text}{self._config.separator}" if text else "" for text in prompts[at : at + SLICE]]
            tails = [text or "" for text in responses[at : at + SLICE]]
            for row, (head, tail) in enumerate(zip(model.ids(heads), model.ids(tails), strict=True), start=at):
                start = len(model.begin) + len(head)
                whole = [*model.begin, *head, *tail, *model.end]
                ids = np.array(whole[: self._config.max_length], np.int32)
                if tail and len(ids) > max(1, start):
                    cut += len(whole) > len(ids)
                    rows.append(row)
                    pieces.append(ids)
                    before.append(max(1, start))
        if cut:
            tell(cut_rows(cut, len(rows), self._config.max_length))
        offsets = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        return Encoded(np.array(rows, np.int64), np.concatenate(pieces), offsets, np.array(before, np.int64))

    def _model(self, state: State) -> NewModel | GivenModel:
        if self._config.model is not None:
            return given_model(self._causal_lm(), self._device)
        return NewModel(self._config, state["tokenizer"].tobytes().decode())

    def _causal_lm(self) -> CausalLm:
        names = ("model", "revision", "max_length")
        return CausalLm(**{name: getattr(self._config, name) for name in names})


class NewModel(SmallLm):
    """The small model, with the tokenizer that was trained with it."""

    def __init__(self, config: LanguageProxy, tokenizer: str) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(tokenizer)
        end = self._tokenizer.get_vocab_size()
        super().__init__(config, end + 1)
        self.begin, self.end = [end], [end]

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids, without those at the ends."""
        return [one.ids for one in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


class LanguageLearner:
    """Token rows to learn from, and the model."""

    def __init__(self, model: NewModel | GivenModel, encoded: Encoded, order: np.ndarray, seed: int) -> None:
        self._model, self._encoded, self._seed = model, encoded, seed
        self._order, self.count, self.threads = order, len(order), model.threads

    def initial(self) -> dict[str, np.ndarray]:
        """The model's."""
        return self._model.initial(self._seed)

    def pieces(self, rows: np.ndarray) -> list[np.ndarray]:
        """The batch by length, in parts of about as many rows."""
        own = self._order[rows]
        own = own[np.argsort(np.diff(self._encoded.offsets)[own], kind="stable")]
        return [piece for piece in np.array_split(own, PIECES) if len(piece)]

    def loss(self, weights: dict[str, torch.Tensor], rows: np.ndarray) -> tuple[torch.Tensor, int]:
        """Sum over the counted tokens, and their number, as language models are trained."""
        loss, _ = token_losses(self._model, weights, self._encoded, rows)
        return loss.sum(), len(loss)


def trained_tokenizer(texts: Iterable[str], vocabulary: int) -> np.ndarray:
    """A byte-level BPE tokenizer of `vocabulary` - 1 tokens at most, as JSON: uint8. The same for the same texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # One id is left for the end of text, which no text can spell.
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 1,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return np.frombuffer(tokenizer.to_str().encode(), np.uint8)


def _measured(model: Any, weights: dict[str, torch.Tensor], encoded: Encoded, rows: np.ndarray) -> np.ndarray:
    """Mean loss of the counted tokens of some rows, float32 `(B,)`."""
    import torch

    with torch.inference_mode():
        loss, counted = token_losses(model, weights, encoded, rows)
        whole = torch.zeros(counted.shape, device=loss.device)
        whole[counted] = loss
        return np.asarray((whole.sum(1) / counted.sum(1)).cpu().numpy())


def token_losses(
    model: Any, weights: dict[str, torch.Tensor], encoded: Encoded, rows: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses of the counted tokens of some rows, float32 `(M,)`, and the positions before them, bool `(B, N)`."""
    import torch

    tokens, there = padded(encoded, rows)
    at = torch.arange(1, tokens.shape[1])
    counted = there[:, 1:] & (at >= torch.from_numpy(encoded.prompts[rows])[:, None])
    device = next(iter(weights.values())).device
    tokens, counted = tokens.to(device), counted.to(device)
    logits = model.logits(weights, tokens[:, :-1], counted)
    return torch.nn.functional.cross_entropy(logits.float(), tokens[:, 1:][counted], reduction="none"), counted


def _joined(parts: Iterable[tuple[int, Encoded]]) -> Encoded:
    """The token rows of several parts as one; each comes with its number of rows, those without tokens included."""
    found, first, end = (
        [(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))],
        0,
        0,
    )
    for count, one in parts:
        found.append((one.rows + first, one.ids, one.offsets[1:] + end, one.prompts))
        first, end = first + count, end + len(one.ids)
    rows, ids, offsets, prompts = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return Encoded(rows, ids, np.concatenate([[0], offsets]), prompts)


def read_column(column: pa.ChunkedArray, name: str, max_length: int) -> list[str | None]:
    """Texts of the column `name`, as far as so many tokens can need them; None for null and for what is not UTF-8."""
    kind = check_text(column.type, name)
    limit = CHARACTERS_PER_TOKEN * max_length
    return [text and text[:limit] for text in read_texts(column.cast(kind))[0]]


def check_text(kind: Any, name: str) -> Any:
    """The type as which a column's texts are read; ColumnError if it holds none."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise ColumnError(f"the column {name!r} is {kind}; prompts and responses must be text")
    return kind
