"""Kinds of line drawing as SVG within the page: sharp at any size, in the page's own colours and fonts.

Only numbers and words of ours go in. Drawings are `WIDTH` units wide, which is about the width of a phone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from tasks.report.wording import short

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 36


def rank_frequency(curves: Sequence[tuple[str, Sequence[Sequence[int]]]]) -> str:
    """Curves of (rank, occurrences) on two log axes; each has the CSS class that it is named with."""
    points = [point for _, curve in curves for point in curve]
    if not points:
        return ""
    right, high = max(10, *(p[0] for p in points)) * 1.1, max(10, *(p[1] for p in points)) * 1.3
    low = 0.8

    def place(x: float, y: float) -> tuple[float, float]:
        across = math.log(x / low) / math.log(right / low)
        return _x(across), _y(math.log(max(y, low) / low) / math.log(high / low))

    parts = []
    for exponent in range(int(math.log10(high)) + 1):
        parts.append(_rule_y(place(1, 10**exponent)[1], _decade(exponent)))
    for exponent in range(int(math.log10(right)) + 1):
        parts.append(_rule_x(place(10**exponent, 1)[0], _decade(exponent)))
    for name, curve in curves:
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in curve))
        parts.append(f'<polyline class="{name}" points="{line}"/>')
        if len(curve) == 1:
            x, y = place(*curve[0])
            parts.append(f'<circle class="{name}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>')
    return _drawing("Occurrences of concepts by rank, on log axes", parts, "rank of the concept", "occurrences")


def histogram(
    edges: Sequence[float],
    before: Sequence[int],
    after: Sequence[int],
    cuts: Sequence[float],
    *,
    title: str = "Distribution of the score in the input and in the mix",
    across: str = "score",
    up: str = "share of rows",
) -> str:
    """Two distributions, each as shares of its own rows, and vertical marks; the first filled, the second outlined."""
    if len(edges) < 2:
        return ""
    shares = [[n / max(1, sum(counts)) for n in counts] for counts in (before, after)]
    high = max(*shares[0], *shares[1], 1e-9) * 1.05
    low, width = edges[0], edges[-1] - edges[0]
    parts = [_rule_y(_y(tick / high), f"{100 * tick:.3g} %") for tick in ticks(0, high, 4)]
    parts += [_rule_x(_x((tick - low) / width), _value(tick)) for tick in ticks(edges[0], edges[-1], 5)]
    for name, share in zip(("before", "after"), shares, strict=True):
        if not sum(share):
            continue
        steps = [(edges[0], 0.0)]
        for i, value in enumerate(share):
            steps += [(edges[i], value), (edges[i + 1], value)]
        steps.append((edges[-1], 0.0))
        line = " ".join(f"{_x((x - low) / width):.1f},{_y(y / high):.1f}" for x, y in steps)
        parts.append(f'<polygon class="{name}" points="{line}"/>')
    for cut in cuts:
        if edges[0] <= cut <= edges[-1]:
            x = _x((cut - low) / width)
            parts.append(f'<line class="cut" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    return _drawing(title, parts, across, up)


def kept_by_cut(points: Sequence[Sequence[float]], cut: float | None, kept: int) -> str:
    """Steps of the rows kept by cut, each level from its point to the next, and where the cut and the rows are now.

    Args:
        points: Cut and rows, cuts ascending, the last one being the end; two or more.
        cut: The present one; None where there is not one for all.
        kept: Rows that are kept now.
    """
    left, right = points[0][0], points[-1][0]
    if cut is not None:
        left, right = min(left, cut), max(right, cut)
    low, high = min(kept, *(p[1] for p in points)), max(kept, *(p[1] for p in points))
    low, high = (0, high) if low < high / 2 else (low, high)  # a small part is not seen on an axis from zero
    low, high = (low, high) if high > low else (low - 1, high + 1)
    low, high = max(0, low - 0.04 * (high - low)), high + 0.04 * (high - low)

    def place(x: float, rows: float) -> tuple[float, float]:
        return _x((x - left) / ((right - left) or 1)), _y((rows - low) / (high - low))

    parts = [_rule_y(place(left, tick)[1], short(int(tick))) for tick in ticks(low, high, 4) if tick == int(tick)]
    parts += [_rule_x(place(tick, low)[0], f"{tick:.4g}") for tick in ticks(left, right, 5)]
    steps = [points[0]]
    for before, here in pairwise(points):
        steps += [(here[0], before[1]), here]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*step) for step in steps))
    parts.append(f'<polyline class="after" points="{line}"/>')
    at = place(left if cut is None else cut, kept)
    parts.append(f'<line class="cut" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at[1]:.1f}" y2="{at[1]:.1f}"/>')
    if cut is not None:
        parts.append(f'<line class="cut" x1="{at[0]:.1f}" x2="{at[0]:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    return _drawing("Rows kept by cut, and how many are kept now", parts, "cut", "rows kept")


def errors_by_samples(
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]], marks: Sequence[tuple[float, float]], budget: float
) -> str:
    """Curves of (samples seen, error), samples on a log axis; dots, and a vertical mark.

    Args:
        lines: CSS class and points of each, samples above 0 and ascending, errors finite.
        marks: Where dots are.
        budget: Samples seen, where the mark is.
    """
    points = [point for _, line in lines for point in line]
    if not points:
        return ""
    left, right = math.log10(min(budget, *(x for x, _ in points))), math.log10(max(budget, *(x for x, _ in points)))
    low, high = min(y for _, y in points), max(y for _, y in points)
    low, high = low - 0.04 * ((high - low) or 1), high + 0.04 * ((high - low) or 1)

    def place(x: float, y: float) -> tuple[float, float]:
        return _x((math.log10(x) - left) / ((right - left) or 1)), _y((y - low) / (high - low))

    parts = [_rule_y(place(10**left, tick)[1], _value(tick)) for tick in ticks(low, high, 4)]
    decades = range(math.ceil(left - 1e-9), math.floor(right + 1e-9) + 1)
    every = max(1, len(decades) // 6)
    parts += [_rule_x(place(10.0**one, low)[0], _decade(one)) for one in decades if one % every == 0]
    for name, line in lines:
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        parts.append(f'<polyline class="line {name}" points="{drawn}"/>')
    at = place(budget, low)[0]
    parts.append(f'<line class="cut" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    for x, y in (place(*mark) for mark in marks):
        parts.append(f'<circle class="goal" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>')
    return _drawing("Predicted error of each pool by samples seen", parts, "samples seen", "predicted error")


def over_steps(
    told: Mapping[str, Any], lines: Sequence[tuple[str, str]], band: str, *, title: str, up: str, least: float = 1.0
) -> str:
    """Lines over the steps of the batch plan, from zero up, with the range of one of them behind it.

    Args:
        told: From `tasks.report.coverage.thinned`; values that are None are left out.
        lines: CSS class and series of each.
        band: The series of which the lowest and highest values are drawn.
        title: What is drawn.
        up: What is counted.
        least: What the axis reaches at the least.
    """
    first, last = told["first"], told["steps"] - 1
    middles = [(a + b) / 2 for a, b in zip(first, [*(step - 1 for step in first[1:]), last], strict=True)]
    values = [*told["high"][band], *(value for _, name in lines for value in told["bins"][name])]
    high = (max([least, *(value for value in values if value is not None)]) or 1.0) * 1.05

    def known(values: Sequence[float | None]) -> list[tuple[float, float]]:
        return [(step, value) for step, value in zip(middles, values, strict=True) if value is not None]

    def place(step: float, value: float) -> str:
        return f"{_x(step / last if last else 0.5):.1f},{_y(value / high):.1f}"

    parts = [_rule_y(_y(tick / high), _value(tick)) for tick in ticks(0, high, 4)]
    whole = [tick for tick in ticks(0, last, 5) if tick == int(tick)]
    parts += [_rule_x(_x(tick / last if last else 0.5), f"{tick:,.0f}") for tick in whole]
    if told["low"][band] != told["high"][band]:
        edge = [*known(told["low"][band]), *reversed(known(told["high"][band]))]
        parts.append(f'<polygon class="band" points="{" ".join(place(*point) for point in edge)}"/>')
    for name, series in lines:
        points = [place(*point) for point in known(told["bins"][series])]
        parts.append(f'<polyline class="{name}" points="{" ".join(points)}"/>')
        if len(points) == 1:
            x, y = points[0].split(",")
            parts.append(f'<circle class="{name}" cx="{x}" cy="{y}" r="3"/>')
    return _drawing(title, parts, "step", up)


def stacked(
    first: Sequence[int], steps: int, areas: Sequence[tuple[str, Sequence[int]]], *, title: str, across: str = "step"
) -> str:
    """Shares over the steps of the batch plan, one upon the other, the first at the bottom; level within each bin.

    Args:
        first: Of each bin its first step.
        steps: How many there are.
        areas: CSS class, and counts by bin. A bin in which all are 0 stays empty.
        title: What is drawn.
        across: What is counted from left to right.
    """
    ends = [*first[1:], steps]
    whole = [max(1, sum(values)) for values in zip(*(values for _, values in areas), strict=True)]
    below, parts = [0.0] * len(first), []
    for name, values in areas:
        above = [low + value / every for low, value, every in zip(below, values, whole, strict=True)]
        line = [(step, high) for begin, end, high in zip(first, ends, above, strict=True) for step in (begin, end)] + [
            (step, low)
            for begin, end, low in reversed([*zip(first, ends, below, strict=True)])
            for step in (end, begin)
        ]
        points = " ".join(f"{_x(step / steps):.1f},{_y(share):.1f}" for step, share in line)
        parts.append(f'<polygon class="area {name}" points="{points}"/>')
        below = above
    parts += [_rule_y(_y(tick), f"{100 * tick:.3g} %") for tick in (0, 0.25, 0.5, 0.75, 1)]
    parts += [_rule_x(_x(tick / steps), f"{tick:,.0f}") for tick in ticks(0, steps, 5) if tick == int(tick)]
    return _drawing(title, parts, across, "share")


def lines(series: Sequence[tuple[str, Sequence[tuple[float, float]]]], *, title: str, across: str, up: str) -> str:
    """Lines of (x, y), each with the CSS class that it is named with; the axes reach from the least to the most."""
    xs, ys = zip(*(point for _, points in series for point in points), strict=True)
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)

    def place(x: float, y: float) -> tuple[float, float]:
        return _x((x - left) / (right - left) if right > left else 0.5), _y((y - low) / (high - low))

    parts = [_rule_y(place(left, tick)[1], _value(tick)) for tick in ticks(low, high, 4)]
    parts += [_rule_x(place(tick, low)[0], _value(tick)) for tick in ticks(left, right, 5)]
    for name, points in series:
        placed = [place(*point) for point in points]
        parts.append(f'<polyline class="line {name}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in placed)}"/>')
        if len(placed) == 1:
            parts.append(f'<circle class="{name}" cx="{placed[0][0]:.1f}" cy="{placed[0][1]:.1f}" r="3"/>')
    return _drawing(title, parts, across, up)


def shares_by_rank(curves: Sequence[tuple[str, Sequence[Sequence[float]]]]) -> str:
    """Curves of (rank, share of all) on two log axes; each has the CSS class that it is named with."""
    points = [point for _, curve in curves for point in curve]
    if not points:
        return ""
    left, right = 0.8, max(10, *(p[0] for p in points)) * 1.1
    low = max(min(p[1] for p in points) / 1.3, 1e-7)
    high = max(max(p[1] for p in points) * 1.3, 20 * low)

    def place(rank: float, share: float) -> tuple[float, float]:
        across, upward = math.log(rank / left) / math.log(right / left), math.log(max(share, low) / low)
        return _x(across), _y(upward / math.log(high / low))

    parts = []
    for exponent in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1):
        parts.append(
            _rule_y(
                place(1, 10.0**exponent)[1],
                f"{100 * 10.0**exponent:.0e} %" if exponent < -5 else f"{100 * 10.0**exponent:.3g} %",
            )
        )
    for exponent in range(int(math.log10(right)) + 1):
        parts.append(_rule_x(place(10**exponent, 1)[0], _decade(exponent)))
    for name, curve in curves:
        placed = [place(rank, share) for rank, share in curve]
        parts.append(f'<polyline class="{name}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in placed)}"/>')
        if len(placed) == 1:
            parts.append(f'<circle class="{name}" cx="{placed[0][0]:.1f}" cy="{placed[0][1]:.1f}" r="3"/>')
    return _drawing("Share of all labels by rank of the concept, on log axes", parts, "rank of the concept", "")


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from `low` to `high`, at most about `most` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(scale * factor for factor in (1, 2, 2.5, 5, 10) if scale * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    found = [round(step * i, 12) for i in range(first, first + most + 2)]
    return [tick + 0.0 for tick in found if tick <= high + step * 1e-9]


def _decade(exponent: int) -> str:
    return f"{10**exponent:,}" if exponent < 6 else f"10^{exponent}"


def _value(tick: float) -> str:
    """2,500, 125k, 1.5M: few characters, there is little room beside a drawing."""
    if 10**4 <= abs(tick) < 10**10:
        unit, scale = ("M", 10**6) if abs(tick) >= 10**6 else ("k", 10**3)
        return f"{tick / scale:,.4g}{unit}"
    return f"{tick:,.4g}"


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _rule_y(y: float, label: str) -> str:
    line = f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{label}</text>'


def _rule_x(x: float, label: str) -> str:
    line = f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
    anchor = "end" if x > WIDTH - 3 * len(label) else "middle"  # or the page's edge would cut it
    return f'{line}<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 13}" text-anchor="{anchor}">{label}</text>'


def _drawing(title: str, parts: Sequence[str], across: str, up: str) -> str:
    middle = (LEFT + WIDTH - RIGHT) / 2
    names = f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle" class="name">{across}</text>'
    height = (TOP + HEIGHT - BOTTOM) / 2
    names += (
        f'<text x="9" y="{height}" text-anchor="middle" class="name" transform="rotate(-90 9 {height})">{up}</text>'
    )
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
    return f"{head}{''.join(parts)}{names}</svg>"
