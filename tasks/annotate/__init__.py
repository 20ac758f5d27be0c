"""Annotate: the concepts of each row, per shard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from tasks import Result

METHODS = {
    "column": "tasks.annotate.column:ColumnAnnotator",
    "captions": "tasks.annotate.captions:CaptionAnnotator",
    "zero_shot": "tasks.annotate.zero_shot:ZeroShotAnnotator",
}


class Annotator(Protocol):
    """What an annotation method offers: `Annotator(config, state=None)`.

    A method that matches against a vocabulary, or must see all shards first, has these hooks besides:

    - `summarise(rows: pa.Table) -> pa.Table`, per shard, small;
    - `fit(summaries: Iterable[pa.Table]) -> dict[str, np.ndarray]`, once: the state that `Annotator(config, state=...)`
      gets from then on. Numbers only, no objects, for it is kept as `.npz` without pickle; empty if nothing was found;
    - `from_text(text: str) -> dict[str, np.ndarray]`: the state from a vocabulary that `config.vocabulary` names;
      ValueError if there is no concept in it;
    - `fitted: bool`: whether this configuration wants `summarise` and `fit`; left out: it does.

    A state with the arrays of `tasks.annotate.entries.State` gets its mapping of names to concepts written beside it.

    One whose state takes long to compute has, besides `from_text`, whose state it is then constructed with:

    - `accept(schema: pa.Schema)`: ValueError if it cannot work with columns of these types; may load a model;
    - `parts() -> int`, `build(part: int) -> dict[str, np.ndarray]`: the parts, each computed once whatever crashes;
    - `join(parts: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]`: the state, from all parts in order.

    It may also have `libraries` (distributions that make its numbers) and `depends_on() -> dict` (what else they depend
    on; both go into the fingerprint, so no heavy import), `check()` (ValueError where it cannot run), `device` (the
    device class it computes on, of which it is then the one owner) and `notes` (what a report must say of it). Its
    config model may have `behind(embed) -> Section`: itself, told of the embed section; ValueError if they do not fit.
    """

    needs: tuple[str, ...]
    """Columns it reads."""
    provides: tuple[str, ...]
    """Columns of its sidecar: `concepts` and `confidences`."""
    input_columns: tuple[str, ...]
    """Optional: those of `needs` that are columns of the input by the name the user gave, not by their role."""

    def __init__(self, config: Any, state: dict[str, np.ndarray] | None = None) -> None: ...

    def run(self, rows: pa.Table | Iterator[pa.Table]) -> Result:
        """Annotate one shard: one row per input row, in order, null where a row failed.

        A row that is null in every needed column failed in an earlier stage: it stays null and is no new failure.
        """
        ...
