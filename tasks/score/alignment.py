"""Alignment: the cosine of a row's image and text embedding (CLIP score without its factor)."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from tasks import Result


class AlignmentScorer:
    """Publishes the cosine that the embed stage computed in float32, before it rounded the embeddings."""

    needs: tuple[str, ...] = ("alignment",)
    provides: tuple[str, ...] = ("alignment",)

    def __init__(self, config: Any) -> None:
        del config  # nothing to set

    def run(self, rows: pa.Table) -> Result:
        """Args: rows: `alignment: float32`, null for rows that failed before."""
        return Result(rows.select(["alignment"]), [])
