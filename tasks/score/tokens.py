"""Tokens: how many each text has, in words or by a tokenizer that Hugging Face's `tokenizers` can read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.errors import ConfigError
from storage import files
from storage.fingerprints import digest
from storage.view import TEXT
from tasks import Result

BATCH = 4096
WORD = r"[\pL\pM\pN]+"


class Tokens:
    """`tokens`: int64, null for null. Special tokens, truncation and padding of the tokenizer are left out."""

    needs: tuple[str, ...] = (TEXT,)
    provides: tuple[str, ...] = ("tokens",)
    sketches: tuple[str, ...] = provides

    def __init__(self, config: Any) -> None:
        self._path: str | None = None if config.tokenizer == "words" else config.tokenizer
        self.libraries: tuple[str, ...] = ("tokenizers",) if self._path else ()

    def depends_on(self) -> dict[str, Any]:
        """The tokenizer's content, wherever it lies."""
        return {"tokenizer": digest(self._read())} if self._path else {}

    def run(self, rows: pa.Table) -> Result:
        """Args: rows: `text: string`."""
        text = rows[TEXT]
        if not self._path:
            return Result(pa.table({"tokens": pc.count_substring_regex(text, WORD).cast(pa.int64())}), [])
        tokenizer = self._tokenizer()
        counts = np.zeros(len(text), np.int64)
        for at in range(0, len(text), BATCH):
            batch = [value or "" for value in text.slice(at, BATCH).to_pylist()]
            encoded = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            counts[at : at + len(batch)] = [len(one) for one in encoded]
        mask = text.is_null().to_numpy()
        return Result(pa.table({"tokens": pa.array(counts, pa.int64(), mask=mask)}), [])

    def _read(self) -> bytes:
        try:
            return files.read_bytes(str(self._path))
        except OSError as error:
            raise ConfigError(
                f"`score: tokens` names the tokenizer {self._path!r}, which cannot be read: {error}"
            ) from None

    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_buffer(self._read())
        except ValueError as error:
            raise ConfigError(f"`score: tokens` names {self._path!r}, which is no tokenizer.json: {error}") from None
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
