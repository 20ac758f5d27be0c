"""What each select decided on: how many rows another cut would keep, what a target asked for, and its classes.

Scores are counted in bins that fit all blocks, of the rows that a select kept and of those that it dropped. From them
the rows that any other cut would keep are read off. Where rows are grouped around keepers, or classes have quotas of
their own, the curve is an estimate: at another cut the groups, and so the scores, would be others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from storage.steps import Step
from tasks.emit.layout import Block
from tasks.report import scores
from tasks.report.subject import Subject
from tasks.report.wording import count, percent, size

BINS = 512
TAIL = 0.02
"""As in `tasks.report.scores`: what the first rows add to a selection is many times what the others do."""
MOST_CLASSES = 40
FATES = (("kept", True), ("dropped", False))
CHANCE = ("balance",)
"""Kinds whose score is a probability unless they have a target: there is no cut."""
ALIKE = ("minhash", "near_duplicates", "perceptual")
"""Kinds whose score is a similarity: rows go from the cut up."""


# ---------------------------------------------------------------------------------------------------------- every block
def spans(subject: Subject, block: Block) -> dict[str, dict[str, Any]]:
    """By select the range of its scores, `all`, and the least of those that it `kept` and `dropped`; None for none."""
    found = {}
    for label, step in subject.selects:
        known = [*_decided(subject, step, block)]
        least = {name: _least(score[keep == kept] for score, keep in known) for name, kept in FATES}
        found[label] = {"all": scores.span((score for score, _ in known), TAIL), **least}
    return found


def _least(parts: Iterable[np.ndarray]) -> float | None:
    values = np.concatenate([np.empty(0), *parts])
    return float(values[np.isfinite(values)].min()) if np.isfinite(values).any() else None


def counted(subject: Subject, block: Block, edges: Mapping[str, Sequence[float]]) -> dict[str, dict[str, list[int]]]:
    """By select what `scores.histogram` counts, `after` being kept rows; `bare`: kept rows without a score."""
    parts = []
    for label, step in subject.selects:
        if label in edges:
            for score, keep in _decided(subject, step, block):
                bare = {"bare": [int(np.count_nonzero(keep & np.isnan(score)))]}
                parts.append({label: scores.histogram(score, keep, np.array(edges[label])) | bare})
    return scores.merge(parts)


def _decided(subject: Subject, step: Step, block: Block) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Score, float64 with NaN for none, and whether it was kept, of the rows of each shard that the select saw."""
    for shard, _ in subject.own(block):
        table = step.read(shard.digest, ["keep", "score"])
        score = pc.fill_null(table["score"], float("nan")).to_numpy().astype(np.float64)
        yield score, table["keep"].to_numpy()


# ------------------------------------------------------------------------------------------------------------ in common
def ranges(told: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By select the `edges` of the bins, and the `least` score of what was kept and dropped; of those that drop by one.

    Args:
        told: What `spans` returns of each block, read back.
    """
    found = {}
    for label in dict.fromkeys(label for one in told for label in one):
        known = [one[label] for one in told]
        least = {name: min((one[name] for one in known if one[name] is not None), default=None) for name, _ in FATES}
        if least["dropped"] is not None:
            edges = scores.edges([scores.Span(*one["all"]) for one in known if one["all"]], bins=BINS)
            found[label] = {"edges": edges.tolist(), "least": least}
    return found


def curve(select: Mapping[str, Any], known: Mapping[str, Any], bins: Mapping[str, list[int]]) -> dict[str, Any] | None:
    """Rows kept by cut: `above` (whether rows go from the cut up, or below it), `cut` (None where each class has its
    own), `points` [cut, rows], `about`, `outside` (rows beyond the points); None where there is no such thing.

    Args:
        select: `kind` and `cut` are looked at.
        known: From `ranges`.
        bins: From `counted`, all blocks.
    """
    kind, told = select["kind"], select["cut"]
    if kind in CHANCE and not told:
        return None
    rows, stay = np.array(bins["before"]), np.array(bins["after"])
    middles = np.convolve(known["edges"], [0.5, 0.5], "valid")
    above = kind in ALIKE or (bool(stay.sum()) and _mean(middles, rows - stay) > _mean(middles, stay))
    lower = np.concatenate([[0], np.cumsum(rows)[:-1]])
    left = bins["bare"][0] + (lower if above else rows.sum() - lower)
    if left.min() == left.max():
        return None
    by_class = bool(told and len(told.get("groups", [])) > 1)
    some = np.append(True, np.diff(left) != 0) | np.append(np.diff(left) != 0, True)
    points = [[float(f"{x:.7g}"), int(n)] for x, n in zip(np.array(known["edges"][:-1])[some], left[some], strict=True)]
    return {
        "above": above,
        "cut": None if by_class else known["least"]["dropped" if above else "kept"],
        "points": [*points, [float(f"{known['edges'][-1]:.7g}"), points[-1][1]]],
        "about": "classes" if by_class else "groups" if kind in ALIKE and not told else "",
        "outside": bins["outside"][0],
    }


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float(values @ weights / max(1, weights.sum()))


def classes(cut: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The largest classes of a select by quotas, `shown`: {name, rows, kept, score}, and the sum of the others.

    Args:
        cut: What the commit point of a ranked select says under `cut`.
    """
    groups = cut.get("groups") if cut else None
    if not cut or not groups:
        return None
    ordered = sorted(groups, key=lambda one: (-one["rows"], one["name"]))
    shown = [{**one, "name": str(one["name"])[:200]} for one in ordered[:MOST_CLASSES]]
    left = {name: cut[name] - sum(one[name] for one in shown) for name in ("rows", "kept")}
    return {"shown": shown, "others": cut["group_count"] - len(shown), **left}


def met(cut: Mapping[str, Any] | None) -> str:
    """The target of a ranked select and what was met of it, in words; empty where there is none."""
    if not cut:
        return ""
    rows = f"{count(cut['kept'])} rows"
    if "unit" not in cut:
        by = f"quotas of {count(cut.get('group_count', 0))} groups"
        return f"{by} keep {count(cut['kept'])} of {count(cut['rows'])} rows" if "group_count" in cut else ""
    unit, words = cut["unit"], {"bytes": size, "tokens": _tokens}.get(cut["unit"], _rows)
    asked = f"{percent(cut['amount'])}, {words(cut['wanted'])}" if unit == "fraction" else words(cut["wanted"])
    have = rows if words is _rows else f"{rows} with {words(cut['size'])}"
    return f"target {asked}: not reached, all {have} are kept" if cut["short"] else f"target {asked}: {have} are kept"


def _rows(number: float) -> str:
    return f"{count(number)} rows"


def _tokens(number: float) -> str:
    return f"{count(number)} tokens"
