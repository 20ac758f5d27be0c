"""From proportions to counts: within the budget, within the bound on repetition, and what is to be told of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.mix import Proportions
from tasks.mix.draws import capped_counts, most_draws, round_counts

TOLD = 8
"""Groups that a note of its own, or a place in one, is made for."""


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
    counts = capped_counts(found.rounds, draws, None if max_epochs is None else most_draws(rows, max_epochs))
    epochs = counts.sum(axis=0) / np.maximum(1, rows)
    told = {"planned": found.rounds.tolist(), "epochs": epochs.tolist(), "facts": dict(found.facts)}
    notes, warnings = list(found.notes), list(found.warnings)
    if max_epochs is not None:
        notes += redistributed(found.rounds, counts, names, rows, draws, max_epochs)
        warnings += unmet(found.rounds, counts, rows, draws, max_epochs)
    return counts, told | {"notes": notes, "warnings": warnings}


def redistributed(
    proportions: np.ndarray, counts: np.ndarray, names: list[str], rows: np.ndarray, draws: int, max_epochs: float
) -> list[str]:
    """Which groups `max_epochs` bounds, what was planned and what they get; and where the difference goes.

    Args:
        proportions: float64 `(rounds, groups)`: planned.
        counts: int64 `(rounds, groups)`: drawn.
        names: Of the groups.
        rows: int64 `(groups,)`.
        draws: Planned in all.
        max_epochs: The bound.
    """
    wanted, got = round_counts(proportions, draws).sum(axis=0), counts.sum(axis=0)
    short = np.flatnonzero(got < wanted)
    if not len(short):
        return []
    short = short[np.argsort(got[short] - wanted[short], kind="stable")]
    notes = [
        f"`max_epochs` is {max_epochs:g}: {names[i]} was to have {wanted[i]:,} draws ({wanted[i] / draws:.1%}, "
        f"{wanted[i] / rows[i]:,.3g} epochs) and has {got[i]:,} ({got[i] / rows[i]:,.3g} epochs)"
        for i in short[:TOLD].tolist()
    ]
    if len(rest := short[TOLD:]):
        notes.append(
            f"`max_epochs` is {max_epochs:g}: {len(rest):,} more groups were to have {wanted[rest].sum():,} draws and "
            f"have {got[rest].sum():,}"
        )
    return [*notes, _gone(got - wanted, names)]


def _gone(change: np.ndarray, names: list[str]) -> str:
    """Where the draws that groups fall short by have gone to."""
    missing, gained = int(-change[change < 0].sum()), np.flatnonzero(change > 0)
    if not len(gained):
        return f"the {missing:,} draws that they fall short by go to no group: none has room and a share"
    gained = gained[np.argsort(-change[gained], kind="stable")]
    told = ", ".join(f"{names[i]} (+{change[i]:,})" for i in gained[:TOLD].tolist())
    if len(rest := gained[TOLD:]):
        told += f" and {len(rest):,} more groups (+{change[rest].sum():,})"
    total = int(change[gained].sum())
    of = f"{total:,} of the {missing:,}" if total < missing else f"the {missing:,}"
    return f"of other groups' rows come {of} draws that they fall short by: {told}"


def unmet(proportions: np.ndarray, counts: np.ndarray, rows: np.ndarray, draws: int, max_epochs: float) -> list[str]:
    """One sentence if there are fewer draws than the budget takes."""
    drawn = int(counts.sum())
    if drawn >= draws:
        return []
    there = int(rows[(proportions > 0).any(axis=0)].sum())
    enough = -(-draws // max(1, there))
    return [
        f"the budget takes {draws:,} draws, but with `max_epochs` {max_epochs:g} the {there:,} rows that have a share "
        f"give {drawn:,}, and the mix is as large as that; set `mix.max_epochs` to {enough:,}, or lower the budget"
    ]
