"""Logits of a causal language model, token by token, for rows of a prompt and a response or of plain text.

Prompt and separator are tokenised together and the response by itself, so that it is exact which tokens are of the
response. Special tokens stand at the ends of the row as the tokenizer puts them; a row ends with the end-of-text token,
which is of the response, unless `max_length` cuts it off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from configs.errors import ColumnError
from configs.methods.logits import CausalLm
from storage.view import TEXT
from tasks import Failure
from tasks.embed.device import resolve_device
from tasks.embed.stream import ahead
from tasks.embed.texts import read_texts
from tasks.score.blockwise import Tell, at_once, silent
from tasks.score.causal_loading import (
    LanguageModel,
    check_model,
    check_positions,
    load_language_model,
    require_transformers,
    weights_digest,
)
from tasks.score.logits import Block

if TYPE_CHECKING:
    import torch

LOGIT_BYTES = {"cpu": 32 << 20, "cuda": 256 << 20}
"""Float32 logits of a block, unless a single row has more. On a CPU a block a core is in memory, and more wait."""
SLICE = 4096
"""Rows that are tokenised at once: Python has an object for each of their tokens."""
CHARACTERS_PER_TOKEN = 256
"""Longer texts are cut before they are tokenised: no token is longer, so that no row's scores depend on it."""


class Encoded(NamedTuple):
    """Rows as token ids."""

    rows: np.ndarray
    """int64 `(n,)`: indices into the shard."""
    ids: np.ndarray
    """int32, row behind row."""
    offsets: np.ndarray
    """int64 `(n + 1,)`: where rows begin in `ids`."""
    prompts: np.ndarray
    """int64 `(n,)`: tokens before the response."""


class CausalLmLogits:
    """Logits of every row's tokens; rows of like length are in the model together, padded on the right.

    What is padded depends on the shard's rows alone, so the bytes of a shard are the same for any number of workers.

    Attributes:
        tell: Hears, once they are tokenised, how many rows `max_length` has cut.
    """

    def __init__(self, config: CausalLm) -> None:
        require_transformers()
        self.config = config
        self.input_columns: tuple[str, ...] = tuple(dict.fromkeys(c for c in (config.prompt, config.response) if c))
        self.needs: tuple[str, ...] = tuple(dict.fromkeys((*self.input_columns, config.response or TEXT)))
        self.libraries: tuple[str, ...] = ("torch", "transformers", "tokenizers")
        self.tell: Tell = silent

    @property
    def device(self) -> str:
        """`cpu` or `cuda`."""
        return resolve_device(self.config.device)

    def check(self) -> None:
        """Raise ModelError or ConfigError if the model cannot be there, or does not fit; nothing is loaded."""
        resolve_device(self.config.device)
        check_model(self.config)

    def depends_on(self) -> dict[str, Any]:
        """Device, and weights and tokenizer of a local folder."""
        return {"device": self.device, "weights": weights_digest(self.config.model)}

    def shape(self) -> tuple[int, int]:
        """`(T, V)`: `max_length`, and the model's vocabulary."""
        return self.config.max_length, self.model().vocabulary

    def model(self) -> LanguageModel:
        """The model, loaded at first use.

        Raises:
            ModelError: It cannot be found or loaded.
            ConfigError: Its vocabulary or positions do not fit.
        """
        model = load_language_model(self.config, self.device)
        check_positions(self.config, model.positions)
        return model

    def blocks(
        self, rows: pa.Table | Iterator[pa.Table], failures: list[Failure], *, hidden: bool = False
    ) -> Iterator[Block]:
        """All rows but those that are null in every needed column, or that fail; the longest come first."""
        table = rows if isinstance(rows, pa.Table) else pa.concat_tables(rows)
        model = self.model()
        encoded = self._encoded(table, model, failures)
        lengths, token_bytes = np.diff(encoded.offsets), 4 * model.vocabulary
        plan = planned(lengths, min(self.config.batch_tokens, LOGIT_BYTES[self.device] // token_bytes))
        largest = len(plan[0]) * int(lengths[plan[0][0]]) * token_bytes if plan else 0
        waiting = at_once(model.workers, largest)
        computing = ((members, model.submit(*padded(encoded, members), hidden)) for members in plan)
        for members, future in ahead(computing, waiting):
            block = _block(encoded, members, future.result(), failures)
            if len(block.rows):
                yield block

    def _encoded(self, table: pa.Table, model: LanguageModel, failures: list[Failure]) -> Encoded:
        """The rows that have a response, as tokens; the others fail, but those without prompt and response."""
        config = self.config
        prompts, bad = _texts(table, config.prompt) if config.prompt else ([None] * len(table), {})
        responses, more = _texts(table, config.response or TEXT)
        bad |= more
        failures += [Failure(row, "undecodable_text", what) for row, what in sorted(bad.items())]
        present = [
            row
            for row in range(len(table))
            if row not in bad and (prompts[row] is not None or responses[row] is not None)
        ]
        kept: list[int] = []
        pieces: list[np.ndarray] = []
        before: list[int] = []
        cut = 0
        for at in range(0, len(present), SLICE):
            members = present[at : at + SLICE]
            heads = [f"{prompts[row]}{config.separator}" if prompts[row] is not None else "" for row in members]
            tails = [responses[row] or "" for row in members]
            for row, head, tail in zip(members, self._ids(model, heads), self._ids(model, tails), strict=True):
                start = len(model.begin) + len(head)
                if not tail or start >= config.max_length:
                    failures.append(Failure(row, "no_tokens", _why(len(tail), start, config.max_length)))
                    continue
                ids = [*model.begin, *head, *tail, *model.end]
                cut += len(ids) > config.max_length
                kept.append(row)
                pieces.append(np.array(ids[: config.max_length], np.int32))
                before.append(start)
        if cut:
            self.tell(cut_rows(cut, len(kept), config.max_length))
        offsets = np.cumsum([0, *(len(piece) for piece in pieces)], dtype=np.int64)
        joined = np.concatenate(pieces) if pieces else np.zeros(0, np.int32)
        return Encoded(np.array(kept, np.int64), joined, offsets, np.array(before, np.int64))

    def _ids(self, model: LanguageModel, texts: list[str]) -> list[list[int]]:
        if not any(texts):
            return [[] for _ in texts]
        limit = CHARACTERS_PER_TOKEN * self.config.max_length
        with model.tokenizing:
            return model.tokenizer(
                [text[:limit] for text in texts],
                add_special_tokens=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )["input_ids"]


def cut_rows(cut: int, rows: int, limit: int) -> str:
    """What is told of rows that were too long."""
    return f"{cut:,} of {rows:,} rows were cut at `max_length` {limit:,}"


def planned(lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Rows in blocks of at most `tokens` tokens, padding with them, or of one row: indices, the longest row first."""
    order = np.argsort(-lengths, kind="stable")
    blocks, at = [], 0
    while at < len(order):
        size = max(1, tokens // int(lengths[order[at]]))
        blocks.append(order[at : at + size])
        at += size
    return blocks


def padded(encoded: Encoded, members: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens int64 `(B, N)` of some rows, zeros for padding on the right, and which are there: bool `(B, N)`."""
    import torch

    lengths = encoded.offsets[members + 1] - encoded.offsets[members]
    there = np.arange(int(lengths.max())) < lengths[:, None]
    tokens = np.zeros(there.shape, np.int64)
    tokens[there] = np.concatenate([encoded.ids[encoded.offsets[one] : encoded.offsets[one + 1]] for one in members])
    return torch.from_numpy(tokens), torch.from_numpy(there)


def _block(encoded: Encoded, members: np.ndarray, computed: Any, failures: list[Failure]) -> Block:
    """What was computed, without the rows whose logits are not finite: those fail."""
    import torch

    logits, hidden, tokens, there, finite = computed
    starts = torch.from_numpy(encoded.prompts[members]).to(logits.device)
    responses = there & (torch.arange(there.shape[1], device=logits.device) >= starts[:, None])
    rows = encoded.rows[members]
    if bool(finite.all()):
        return Block(rows, logits, there, responses, tokens, hidden)
    good = finite.numpy()
    what = "the model's logits have NaN or infinity"
    failures += [Failure(int(row), "non_finite_logits", what) for row in rows[~good]]
    left = finite.to(logits.device)
    parts = (one[left] if one is not None else None for one in (logits, there, responses, tokens, hidden))
    return Block(rows[good], *parts)  # type: ignore[arg-type]


def _texts(table: pa.Table, name: str) -> tuple[list[str | None], dict[int, str]]:
    column = table.column(name)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_null(kind):
        return [None] * len(column), {}
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise ColumnError(f"the column {name!r} is of type {column.type}; prompts and responses must be text")
    return read_texts(column.cast(kind))


def _why(tokens: int, start: int, limit: int) -> str:
    return "the response has no tokens" if not tokens else f"the prompt takes {start} tokens, `max_length` is {limit}"
