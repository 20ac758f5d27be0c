"""From proportions to counts: within the budget, within the bound on repetition, and what is to be told of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.mix import Proportions
from tasks.mix.draws import capped_counts


def allot(
    found: Proportions, names: list[str], rows: np.ndarray, draws: int, max_epochs: float | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Draws of every group in every round, and what log and report say of them.

    Args:
        found: What the mixing law says.
        names: Of the groups.
        rows: int64 `(groups,)`: surviving rows of each.
        draws: In all.
        max_epochs: Times that a group's rows may be drawn at most.

    Returns:
        Counts, int64 `(rounds, groups)`, and {planned, epochs, notes, warnings, facts}, JSON-ready: the proportions as
        they were before counts were bounded, and how often each group's rows are drawn on average.
    """
    most = None if max_epochs is None else np.floor(max_epochs * rows + 1e-9).astype(np.int64)
    counts = capped_counts(found.rounds, draws, most)
    epochs = counts.sum(axis=0) / np.maximum(1, rows)
    told = {"planned": found.rounds.tolist(), "epochs": epochs.tolist(), "facts": dict(found.facts)}
    return counts, told | {"notes": list(found.notes), "warnings": list(found.warnings)}
