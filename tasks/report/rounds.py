"""The rounds of a mix: shares of the groups in each, and what a learned law says of its own: losses, and matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.report import svg
from tasks.report.coverage import POINTS
from tasks.report.sources import MOST, largest
from tasks.report.utility import first_steps
from tasks.report.wording import count, figure

if TYPE_CHECKING:
    from markupsafe import Markup

MOST_CELLS = 12
"""Groups a side of a matrix that is shown."""
POSITIVE, NEGATIVE = "47 111 179", "196 80 27"
"""Colours of a matrix's cells."""


def drawn(counts: np.ndarray, names: Sequence[str]) -> dict[str, Any] | None:
    """Draws by round of the largest groups, the others last: {names, others, rounds, first, counts}; None of one round.

    Args:
        counts: int64 `(rounds, groups)`.
        names: Of the groups.
    """
    rounds = len(counts)
    if rounds < 2 or not counts.sum():
        return None
    shown, first = largest(counts.sum(axis=0).tolist(), names), first_steps(rounds, POINTS)
    binned = np.add.reduceat(counts, first[:-1], axis=0).T
    areas = [binned[one].tolist() for one in shown]
    rest = binned.sum(axis=0) - binned[shown].sum(axis=0)
    common = {"names": [names[one] for one in shown], "others": len(names) - len(shown), "rounds": rounds}
    return common | {"first": first[:-1].tolist(), "counts": [*areas, rest.tolist()]}


def learned(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a learned law says, as much of it as is shown; None of a law that has learned nothing.

    Args:
        facts: {kind, mode, groups, rounds: [{step, losses, proportions, matrix}], final_losses, stopped, left_out}.

    Returns:
        `kind, mode, groups` (how many), `stopped, left_out`; `names` of the largest by their last proportions; `steps`
        of at most `POINTS` rounds, with `proportions` and `losses` by name; `matrices`: of first and last round {step,
        names, cells}.
    """
    rounds, names = list(facts.get("rounds", [])), list(facts.get("groups", []))
    if not rounds or not names:
        return None
    last = np.array(rounds[-1]["proportions"], np.float64)
    shown = largest(last.tolist(), names)
    some = [rounds[at] for at in np.unique(np.linspace(0, len(rounds) - 1, POINTS).astype(int)).tolist()]
    steps = [one["step"] for one in some]
    losses = [one.get("losses") for one in some]
    final = facts.get("final_losses")
    return {
        **{key: facts.get(key) for key in ("kind", "mode", "stopped")},
        "left_out": list(facts.get("left_out") or []),
        "groups": len(names),
        "rounds": len(rounds),
        "names": [names[one] for one in shown],
        "steps": steps,
        "proportions": [[one["proportions"][at] for one in some] for at in shown],
        "losses": [[_finite(one and one[at]) for one in losses] for at in shown],
        "final": [_finite(final and final[at]) for at in shown],
        "matrices": _matrices(rounds, names, last),
    }


def _matrices(rounds: Sequence[Mapping[str, Any]], names: Sequence[str], last: np.ndarray) -> list[dict[str, Any]]:
    known = [one for one in rounds if one.get("matrix")]
    shown = sorted(largest(last.tolist(), names, MOST_CELLS))
    ends = known[:1] if len(known) < 2 else [known[0], known[-1]]
    return [
        {
            "step": one["step"],
            "names": [names[at] for at in shown],
            "cells": [[_finite(one["matrix"][row][column]) for column in shown] for row in shown],
        }
        for one in ends
    ]


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def shares(told: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the page needs of `drawn`: a drawing, and the names with their CSS classes."""
    from markupsafe import Markup

    if not told:
        return None
    areas = [(shade(at, len(told["names"])), one) for at, one in enumerate(told["counts"])]
    title = "Shares of the groups, round by round"
    drawing = Markup(svg.stacked(told["first"], told["rounds"], areas, title=title, across="round"))
    names = [*told["names"], *([f"{count(told['others'])} more"] if told["others"] else [])]
    keys = [{"class": shade(at, len(told["names"])), "name": name} for at, name in enumerate(names)]
    return {"drawing": drawing, "names": keys, "thinned": len(told["first"]) < told["rounds"], "rounds": told["rounds"]}


def lines(told: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the page needs of `learned`: `charts`, title and drawing; the names with their CSS classes; `matrices`."""
    if not told:
        return None
    charts = [("Proportions", _chart(told["steps"], told["proportions"], "Proportions, round by round", "share"))]
    charts.append(("Losses", _chart(told["steps"], told["losses"], "Validation losses, round by round", "nats")))
    keys = [{"class": shade(at, MOST), "name": name} for at, name in enumerate(told["names"])]
    finals = [(name, figure(loss, 4)) for name, loss in zip(told["names"], told["final"], strict=True) if loss]
    return {
        **{key: told[key] for key in ("kind", "mode", "stopped", "left_out", "groups", "rounds")},
        "names": keys,
        "more": told["groups"] - len(told["names"]),
        "charts": [(title, drawing) for title, drawing in charts if drawing],
        "finals": finals,
        "matrices": [_heat(one) for one in told["matrices"]],
        "fewer": bool(told["matrices"]) and len(told["matrices"][0]["names"]) < told["groups"],
    }


def _chart(steps: Sequence[float], values: Sequence[Sequence[float | None]], title: str, up: str) -> Markup | None:
    from markupsafe import Markup

    series = [
        (shade(at, MOST), [(x, y) for x, y in zip(steps, one, strict=True) if y is not None])
        for at, one in enumerate(values)
    ]
    series = [(name, points) for name, points in series if points]
    return Markup(svg.lines(series, title=title, across="step of the proxy", up=up)) if series else None


def _heat(matrix: Mapping[str, Any]) -> dict[str, Any]:
    """The matrix with a colour for each cell, the stronger the further from 0."""
    most = max([abs(value) for row in matrix["cells"] for value in row if value is not None], default=0) or 1.0
    rows = [
        (name, [{"told": "–" if one is None else figure(one, 2), "colour": _colour(one, most)} for one in row])
        for name, row in zip(matrix["names"], matrix["cells"], strict=True)
    ]
    return {"step": matrix["step"], "names": matrix["names"], "rows": rows}


def _colour(value: float | None, most: float) -> str:
    if value is None:
        return "none"
    return f"rgb({POSITIVE if value >= 0 else NEGATIVE} / {0.75 * abs(value) / most:.2f})"


def shade(at: int, named: int) -> str:
    """The CSS class of the group at this place; those behind the named ones are one."""
    return f"s{at}" if at < named else "rest"
