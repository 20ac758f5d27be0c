"""Score rows: named float32 columns that selects, mixes and the emitted mix can refer to."""

from __future__ import annotations

from typing import Any, Protocol

import pyarrow as pa

from tasks import Result


class Scorer(Protocol):
    """Scores the rows of one shard; built from its config model."""

    needs: tuple[str, ...]
    provides: tuple[str, ...]
    sketches: tuple[str, ...]
    """Those of `provides` that are no scores but what selects compare rows by; empty if left out."""

    def run(self, rows: pa.Table) -> Result:
        """One row per input row: the columns of `provides`, null where a row has no score."""
        ...


METHODS: dict[str, str] = {
    "alignment": "tasks.score.alignment:AlignmentScorer",
    "tokens": "tasks.score.tokens:Tokens",
    "image_digest": "tasks.score.digests:ImageDigest",
    "text_digest": "tasks.score.digests:TextDigest",
    "image_hash": "tasks.score.image_hash:ImageHasher",
    "minhash_signature": "tasks.score.minhash:MinHashSignature",
}


def scores_of(method: Any) -> list[str]:
    """The columns of a method that are scores."""
    return [name for name in method.provides if name not in getattr(method, "sketches", ())]
