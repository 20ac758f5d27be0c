"""What concept-aware batches hold: coverage over steps, how far the labels moved towards the target, the fill.

From what the sample stage left behind (`tasks.sample.coverage`); CABS is of Ghosh et al., arXiv 2511.20643.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from configs.errors import Defect
from storage import files
from storage.steps import Step
from tasks.report.concepts import curve
from tasks.report.wording import average, percent
from tasks.sample.coverage import read_concepts

POINTS = 60
"""Most points of a line over steps: more are a thicket at the width of the page."""
MOST_FILL = 0.05
"""A larger share of fill is warned of."""
SERIES = ("concepts", "iid_concepts", "offered_concepts", "rare", "iid_rare", "offered_rare")
BANDS = ("concepts", "rare")
"""Series of which the lowest and the highest value of each bin are told too."""


def found(sample: Step, parts: list[int], steps: int, top: int) -> dict[str, Any] | None:
    """What the sample stage says of its batches, or None if it says nothing: no batch, no concepts asked, an old store.

    Args:
        sample: The sampler's step in the store.
        parts: Rows of each part of the batch plan.
        steps: Batches of the whole plan.
        top: How many of the commonest concepts are named.

    Returns:
        What `thinned` and `distribution` return, together.
    """
    names = {*files.names(sample.file("coverage"))}
    both = [(f"steps-{number:05d}.parquet", f"concepts-{number:05d}.parquet") for number in range(len(parts))]
    numbers = [number for number, pair in enumerate(both) if names.issuperset(pair)]
    if not steps or {number for number, rows in enumerate(parts) if rows} - {*numbers} or not numbers:
        return None
    every = (sample.read(f"coverage/steps-{number:05d}") for number in numbers)
    return thinned(every, steps) | {"labels": distribution(read_concepts(sample, len(parts)), top)}


def thinned(tables: Iterable[pa.Table], steps: int, points: int = POINTS) -> dict[str, Any]:
    """The batches in at most `points` bins of equal numbers of steps, or nearly so.

    Args:
        tables: The columns of `tasks.sample.coverage.STEPS`; together each step from 0 on once.
        steps: How many there are, at least one.
        points: Most bins.

    Returns:
        `steps, rows, fill, bare, offered_bare`: sums; `mean`: by series of `SERIES`, over all steps; `first`: of each
        bin its first step; `bins`: by series their means; `low, high`: by series of `BANDS` their extremes.

    Raises:
        Defect: The tables do not hold the steps.
    """
    bins = min(points, steps)
    first = -(-np.arange(bins + 1) * steps // bins)
    sums = {name: np.zeros(bins) for name in SERIES}
    low, high = ({name: np.full(bins, sign * np.inf) for name in BANDS} for sign in (1, -1))
    size, total = np.zeros(bins, np.int64), dict.fromkeys(("rows", "fill", "bare", "offered_bare"), 0)
    for table in tables:
        at = np.searchsorted(first, table["step"].to_numpy(), side="right") - 1
        if len(at) and not (0 <= at.min() and at.max() < bins):
            raise Defect(f"the batch plan has {steps} steps, but what it covers is told of others")
        size += np.bincount(at, minlength=bins)
        for name in SERIES:
            sums[name] += np.bincount(at, table[name].to_numpy(), minlength=bins)
        for name in BANDS:
            np.minimum.at(low[name], at, table[name].to_numpy())
            np.maximum.at(high[name], at, table[name].to_numpy())
        total = {name: n + int(table[name].to_numpy().sum()) for name, n in total.items()}
    if not np.array_equal(size, np.diff(first)):
        raise Defect(f"the batch plan has {steps} steps, but what they cover is told of {size.sum()}")
    return {
        "steps": steps,
        **total,
        "mean": {name: float(values.sum() / steps) for name, values in sums.items()},
        "first": first[:-1].tolist(),
        "bins": {name: np.round(values / size, 3).tolist() for name, values in sums.items()},
        "low": {name: values.astype(int).tolist() for name, values in low.items()},
        "high": {name: values.astype(int).tolist() for name, values in high.items()},
    }


def distribution(counts: pa.Table, top: int) -> dict[str, Any]:
    """Offered, wanted and achieved labels by concept: what is told of them.

    Args:
        counts: The columns of `tasks.sample.coverage.CONCEPTS`.
        top: How many of the commonest offered ones are named.

    Returns:
        `distinct`: concepts by kind of count; `names`, and `shares` of those, of one, by kind; `curves`: (rank, share)
        pairs by kind, each in its own order; `distance`: total variation from the target, by kind, and `moved`, between
        offered and achieved. Kinds are `offered`, `wanted` (not for samplers without target) and `achieved`.
    """
    ordered = counts.sort_by([("offered", "descending"), ("concept", "ascending")])
    has_target = ordered.num_rows > 0 and not ordered["wanted"].null_count
    kinds = ("offered", "wanted", "achieved") if has_target else ("offered", "achieved")
    shares = {kind: _shares(ordered[kind].to_numpy().astype(np.float64)) for kind in kinds}
    distance = {"moved": variation(shares["offered"], shares["achieved"])}
    if has_target:
        distance |= {kind: variation(shares[kind], shares["wanted"]) for kind in ("offered", "achieved")}
    return {
        "distinct": {kind: int(np.count_nonzero(values)) for kind, values in shares.items()},
        "names": ordered["concept"].slice(0, top).to_pylist(),
        "shares": {kind: values[:top].tolist() for kind, values in shares.items()},
        "curves": {kind: curve(values) for kind, values in shares.items()},
        "distance": distance,
    }


def variation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Total variation distance of two distributions, 0 to 1: half the sum of |p - q|; None if one is nothing at all."""
    return float(np.abs(one - other).sum() / 2) if one.any() and other.any() else None


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / max(counts.sum(), 1e-300)


def headlines(told: Mapping[str, Any]) -> list[str]:
    """What matters of `found`, in sentences, without any word of strangers."""
    mean, labels = told["mean"], told["labels"]
    if not mean["offered_concepts"]:
        return ["No row of the draws has a concept: there is nothing to choose by."]
    lines = [
        f"A batch holds {average(mean['concepts'])} distinct concepts on average; an IID batch of the same draws "
        f"{average(mean['iid_concepts'])}{_as_many(mean['concepts'], mean['iid_concepts'])}."
    ]
    if mean["offered_rare"]:
        lines.append(
            f"Of {average(mean['offered_rare'])} rare concepts of its draws a batch holds {average(mean['rare'])}, an "
            f"IID batch {average(mean['iid_rare'])}{_as_many(mean['rare'], mean['iid_rare'])}."
        )
    distance = labels["distance"]
    if distance.get("achieved") is not None and distance.get("offered") is not None:
        achieved, offered = f"{distance['achieved']:.2f}", f"{distance['offered']:.2f}"
        moved = "moved towards" if achieved < offered else "moved away from"
        moved = "stayed as far from" if achieved == offered else moved
        lines.append(
            f"The batches {moved} the target: their distance from it is {achieved}, that of the draws {offered}."
        )
    if told["fill"]:
        lines.append(f"{percent(told['fill'], told['rows'])} of the rows are fill.")
    if told.get("bare"):
        lines.append(f"{percent(told['bare'], told['rows'])} of the rows have no concept.")
    return lines


def _as_many(number: float, other: float) -> str:
    if not other:
        return ""
    ratio = number / other
    return f": {ratio:.2f} times as many" if 0.9 < ratio < 1.1 else f": {ratio:.1f} times as many"


def meaning_of_fill(capped: bool) -> str:
    """What fill is, in words; `capped`: whether the sampler voids rows with a concept that it has often enough."""
    if capped:
        return "taken when every row left held a concept that had reached its cap, or had no concept"
    return "rows without concepts, taken when no other row was left"


def warnings(told: Mapping[str, Any] | None, capped: bool) -> list[str]:
    """What to say, and what to do: more than `MOST_FILL` of the rows are fill, or less is covered than by chance.

    Args:
        told: From `found`.
        capped: As in `meaning_of_fill`.
    """
    if told is None or not told["rows"]:
        return []
    lines, bare, rows = [], told.get("bare", 0), told["rows"]
    closed = told["fill"] - min(bare, told["fill"])
    if told["fill"] > MOST_FILL * rows:
        share = percent(told["fill"], rows)
        if capped and closed >= bare:
            remedy = "raise `sample.maximum` or `sample.filter_ratio`, or lower `sample.batch_size`"
            lines.append(f"{share} of the rows are fill, {meaning_of_fill(capped)}; {remedy}")
        else:
            lines.append(
                f"{share} of the rows are fill, most of them rows without a concept, which are taken when no other row "
                "is left; give more rows concepts (see `annotate`), or raise `sample.filter_ratio`"
            )
    mean = told["mean"]
    if "wanted" in told["labels"]["shares"] and mean["concepts"] < mean["iid_concepts"]:
        lines.append(
            f"a batch holds {average(mean['concepts'])} distinct concepts, fewer than the "
            f"{average(mean['iid_concepts'])} of an IID batch: `cabs_dm` goes by the mean over a row's concepts, which "
            "favours rows with few, rare ones; compare with `cabs_fm` and `iid`"
        )
    return lines
