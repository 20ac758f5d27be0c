"""The report's charts as PNG files, for slides: drawn with matplotlib's own Figure on Agg, no display, no global state.

On white. Text is drawn as it is (`$` starts no formula), and what the bundled font lacks becomes a box.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tasks.report.wording import clean, cut, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH = 6.4
"""Inches."""

COLOURS = {"kept": "#2f6fb3", "dropped": "#a3acba", "quarantined": "#c4501b"}
INK, LINE, BEFORE, CUT = "#1d2330", "#dfe3ea", "#c3cad4", "#b3261e"
MOST_SCORES = 8
LABELS = {"offered": "offered", "wanted": "target", "achieved": "achieved"}


def funnel_png(summary: Mapping[str, Any]) -> bytes:
    """Horizontal bars, one a stage, of the rows that were kept, dropped and quarantined there."""
    funnel = summary["funnel"]
    figure, (axes,) = _figure([0.34 * len(funnel) + 0.75])
    places = range(len(funnel))
    left = [0] * len(funnel)
    for outcome, colour in COLOURS.items():
        values = [row[outcome] for row in funnel]
        axes.barh(places, values, left=left, height=0.62, color=colour, label=outcome)
        left = [a + b for a, b in zip(left, values, strict=True)]
    for place, row in zip(places, funnel, strict=True):
        told = short(row["kept"]) if row["kept"] == left[place] else f"{short(row['kept'])} of {short(left[place])}"
        axes.text(left[place], place, f"  {told}", va="center", color=INK, fontsize=9)
    axes.set_yticks(places, labels=[_label(row["stage"], 34) for row in funnel], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, max(1, *left) * 1.3 if left else 1)
    axes.set_xticks([])
    _dress(axes)
    axes.spines["bottom"].set_visible(False)
    _legend(figure, axes)
    return _png(figure)


def concepts_png(summary: Mapping[str, Any], *, top: int = 40) -> bytes:
    """Rank-frequency curves of the input and the mix, and bars of the `top` concepts, all on log axes."""
    concepts = summary["concepts"]
    rows = list(zip(concepts["names"], concepts["before"], concepts["after"], strict=True))[:top]
    curves = {
        "input": (concepts["curve_before"], COLOURS["dropped"]),
        "mix": (concepts["curve_after"], COLOURS["kept"]),
    }
    most = max([10, *(n for points, _ in curves.values() for _, n in points)])
    figure, (curve, bars) = _figure([2.8, 0.18 * len(rows) + 0.6])
    for label, (points, colour) in curves.items():
        ranks, counts = [rank for rank, _ in points], [n for _, n in points]
        curve.plot(ranks, counts, color=colour, label=label, linewidth=2, marker=".", markersize=3)
    curve.set(xscale="log", yscale="log", xlabel="rank of the concept", ylabel="occurrences")
    curve.set(xlim=(0.8, 1.25 * max(10, concepts["distinct_before"])), ylim=(0.7, 1.5 * most))
    _count_axis(curve.xaxis)
    _count_axis(curve.yaxis)
    places = range(len(rows))
    for column, height, colour in ((1, 0.8, COLOURS["dropped"]), (2, 0.4, COLOURS["kept"])):
        bars.barh(places, [row[column] for row in rows], height=height, color=colour)
    bars.set_yticks(places, labels=[_label(row[0], 30) for row in rows], parse_math=False)
    bars.set_ylim(len(rows) - 0.4, -0.6)
    bars.set(xscale="log", xlabel="occurrences", xlim=(0.7, 1.5 * most))
    _count_axis(bars.xaxis)
    for axes in (curve, bars):
        _dress(axes)
        axes.grid(axis="x" if axes is bars else "both", color=LINE, linewidth=0.7)
        axes.set_axisbelow(True)
    _legend(figure, curve)
    return _png(figure)


def coverage_png(summary: Mapping[str, Any]) -> bytes:
    """Distinct and rare concepts per batch over the steps, and the shares of the labels by rank."""
    from matplotlib.ticker import MaxNLocator

    told = summary["coverage"]
    series = [name for name in ("concepts", "rare") if told["mean"][f"offered_{name}"]]
    figure, panels = _figure([2.4] * len(series) + [2.8])
    last = told["steps"] - 1
    ends = [*(step - 1 for step in told["first"][1:]), last]
    middles = [(a + b) / 2 for a, b in zip(told["first"], ends, strict=True)]
    for axes, name in zip(panels, series, strict=False):
        lines = (("offered_", "superbatch", INK, ":"), ("iid_", "IID batch", COLOURS["dropped"], "-"))
        for prefix, label, colour, style in (*lines, ("", "batch", COLOURS["kept"], "-")):
            values, marker = told["bins"][prefix + name], "." if len(middles) == 1 else ""
            axes.plot(middles, values, color=colour, linestyle=style, label=label, linewidth=1.8, marker=marker)
        axes.fill_between(middles, told["low"][name], told["high"][name], color=COLOURS["kept"], alpha=0.2, linewidth=0)
        axes.set(xlabel="step", ylabel="distinct concepts" if name == "concepts" else "rare concepts")
        axes.set_ylim(0, 1.05 * max(1, *told["high"][name], *told["bins"][f"offered_{name}"]))
        axes.set_xlim(*((0, last) if last else (-1, 1)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(axis="y", color=LINE, linewidth=0.7)
    colours = {"offered": COLOURS["dropped"], "wanted": INK, "achieved": COLOURS["kept"]}
    for kind in (kind for kind in LABELS if kind in told["labels"]["curves"]):
        points = told["labels"]["curves"][kind]
        ranks, values, style = [rank for rank, _ in points], [n for _, n in points], "--" if kind == "wanted" else "-"
        panels[-1].plot(ranks, values, color=colours[kind], label=LABELS[kind], linestyle=style, linewidth=1.8)
    panels[-1].set(xscale="log", yscale="log", xlabel="rank of the concept", ylabel="share of all labels")
    panels[-1].legend(frameon=False, labelcolor=INK, fontsize=9)
    _count_axis(panels[-1].xaxis)
    panels[-1].yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    for axes in panels:
        _dress(axes)
        axes.set_axisbelow(True)
    _legend(figure, panels[0])
    return _png(figure)


def scores_png(summary: Mapping[str, Any]) -> bytes:
    """The distribution of each score (`MOST_SCORES` at most) in the input and the mix, as shares of their rows."""
    scores = summary["scores"][:MOST_SCORES]
    figure, panels = _figure([2.2] * len(scores))
    for axes, score in zip(panels, scores, strict=True):
        before, after = ([n / max(1, sum(score[key])) for n in score[key]] for key in ("before", "after"))
        axes.stairs(before, score["edges"], fill=True, color=BEFORE, label="input")
        axes.stairs(after, score["edges"], color=COLOURS["kept"], linewidth=1.6, label="mix")
        for cut_ in score["cuts"]:
            if score["edges"][0] <= cut_["value"] <= score["edges"][-1]:
                axes.axvline(cut_["value"], color=CUT, linestyle="--", linewidth=1.2)
        axes.set_xlabel(_label(score["name"], 60), parse_math=False)
        axes.set_ylabel("share of rows")
        axes.set_xlim(score["edges"][0], score["edges"][-1])
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        _dress(axes)
    _legend(figure, panels[0])
    return _png(figure)


def _figure(heights: list[float]) -> tuple[Figure, list[Axes]]:
    """A figure with one axes a height, in inches, one below the other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, sum(heights)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)
    return figure, list(grid[:, 0])


def _count_axis(axis: Axis) -> None:
    """Write decades as 1,000 rather than as a power."""
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.set_minor_formatter(NullFormatter())


def _dress(axes: Axes) -> None:
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(LINE)
    axes.tick_params(which="both", color=LINE, labelcolor=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False, labelcolor=INK, fontsize=9)


def _label(text: str, length: int) -> str:
    """One line of at most `length` characters that DejaVu Sans, matplotlib's own font, can draw."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    drawable = get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap()
    line = cut(unicodedata.normalize("NFC", clean(text)), length)
    return "".join(char if ord(char) in drawable else "▯" for char in line)


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", facecolor="white", metadata={"Software": None})
    return out.getvalue()
