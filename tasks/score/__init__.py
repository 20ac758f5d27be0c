"""Score rows: named float32 columns that selects, mixes and the emitted mix can refer to."""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa

from tasks import Result


class Scorer(Protocol):
    """Scores the rows of one shard; built from its config model."""

    needs: tuple[str, ...]
    provides: tuple[str, ...]

    def run(self, rows: pa.Table) -> Result:
        """One row per input row: the columns of `provides`, null where a row has no score."""
        ...


METHODS: dict[str, str] = {"alignment": "tasks.score.alignment:AlignmentScorer"}
