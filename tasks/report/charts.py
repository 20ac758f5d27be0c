"""The report's charts as PNG bytes: drawn with matplotlib's own Figure on Agg, so no display, no global state.

About the width of a phone, transparent, in two sets of colours. Text is drawn as it is (`$` starts no formula), and
what the bundled font lacks becomes a box.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH = 4.7
"""Inches, at 9 points of text: legible at 360 CSS pixels."""


class Colours(NamedTuple):
    """One set, for a light page or a dark one; the first three are the page's own for the outcomes."""

    kept: str
    dropped: str
    quarantined: str
    ink: str
    line: str


LIGHT = Colours("#2f6fb3", "#a3acba", "#c4501b", "#1d2330", "#dfe3ea")
DARK = Colours("#6ea8e6", "#77829a", "#f08a52", "#e6e9ef", "#343b48")


def funnel_png(summary: Mapping[str, Any], *, dark: bool = False) -> bytes:
    """Horizontal bars, one a stage, of the rows that were kept, dropped and quarantined there."""
    colours, funnel = DARK if dark else LIGHT, summary["funnel"]
    figure, (axes,) = _figure([0.42 * len(funnel) + 0.75])
    places = range(len(funnel))
    left = [0] * len(funnel)
    for outcome in ("kept", "dropped", "quarantined"):
        values = [row[outcome] for row in funnel]
        axes.barh(places, values, left=left, height=0.62, color=getattr(colours, outcome), label=outcome)
        left = [a + b for a, b in zip(left, values, strict=True)]
    for place, row in zip(places, funnel, strict=True):
        told = _short(row["kept"]) if row["kept"] == left[place] else f"{_short(row['kept'])} of {_short(left[place])}"
        axes.text(left[place], place, f"  {told}", va="center", color=colours.ink, fontsize=9)
    axes.set_yticks(places, labels=[_label(row["stage"], 26) for row in funnel], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, max(1, *left) * 1.4)
    axes.set_xticks([])
    _dress(axes, colours)
    axes.spines["bottom"].set_visible(False)
    _legend(figure, axes, colours)
    return _png(figure)


def concepts_png(summary: Mapping[str, Any], *, top: int = 40, dark: bool = False) -> bytes:
    """Rank-frequency curves of the input and the mix, and histograms of the `top` concepts, all on log axes."""
    colours, concepts = DARK if dark else LIGHT, summary["concepts"]
    rows = top_concepts(concepts, top)
    most = max([10, *concepts["before"], *concepts["after"]])
    figure, (curve, bars) = _figure([2.6, 0.2 * len(rows) + 0.6])
    for key, label, colour in (("before", "input", colours.dropped), ("after", "mix", colours.kept)):
        counts = sorted((count for count in concepts[key] if count > 0), reverse=True)
        curve.plot(range(1, len(counts) + 1), counts, color=colour, label=label, linewidth=2, marker=".", markersize=3)
    curve.set(xscale="log", yscale="log", xlabel="rank of the concept", ylabel="occurrences")
    curve.set(xlim=(0.8, 1.25 * max(10, len(concepts["names"]))), ylim=(0.7, 1.5 * most))
    _count_axis(curve.xaxis)
    _count_axis(curve.yaxis)
    places = range(len(rows))
    for column, height, colour in ((1, 0.8, colours.dropped), (2, 0.4, colours.kept)):
        bars.barh(places, [row[column] for row in rows], height=height, color=colour)
    bars.set_yticks(places, labels=[_label(row[0], 24) for row in rows], parse_math=False)
    bars.set_ylim(len(rows) - 0.4, -0.6)
    bars.set(xscale="log", xlabel="occurrences", xlim=(0.7, 1.5 * most))
    _count_axis(bars.xaxis)
    for axes in (curve, bars):
        _dress(axes, colours)
        axes.grid(axis="x" if axes is bars else "both", color=colours.line, linewidth=0.7)
        axes.set_axisbelow(True)
    _legend(figure, curve, colours)
    return _png(figure)


def top_concepts(concepts: Mapping[str, Any], top: int) -> list[tuple[str, int, int]]:
    """(concept, before, after) of the `top` concepts by their count in the input, then in the mix, then by name."""
    rows = zip(concepts["names"], concepts["before"], concepts["after"], strict=True)
    return sorted(rows, key=lambda row: (-row[1], -row[2], row[0]))[:top]


def _figure(heights: list[float]) -> tuple[Figure, list[Axes]]:
    """A figure with one axes a height, in inches, one below the other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, sum(heights)), dpi=180, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)
    return figure, list(grid[:, 0])


def _count_axis(axis: Axis) -> None:
    """Write decades as 1,000 rather than as a power."""
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.set_minor_formatter(NullFormatter())


def _dress(axes: Axes, colours: Colours) -> None:
    axes.patch.set_alpha(0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(colours.line)
    axes.tick_params(which="both", color=colours.line, labelcolor=colours.ink, labelsize=9)
    axes.xaxis.label.set_color(colours.ink)
    axes.yaxis.label.set_color(colours.ink)


def _legend(figure: Figure, axes: Axes, colours: Colours) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False, labelcolor=colours.ink, fontsize=9)


def _short(number: int) -> str:
    """12,345 as it is, 4,981,477,845 as 4.98 G: the table has the digits."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= max(size, 10**5):
            return f"{number / size:,.2f} {unit}"
    return f"{number:,}"


def _label(text: str, length: int) -> str:
    """One line of at most `length` characters that DejaVu Sans, matplotlib's own font, can draw."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    drawable = get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap()
    line = " ".join(unicodedata.normalize("NFC", str(text)).split())
    line = line if len(line) <= length else f"{line[: length - 1]}…"
    return "".join(char if ord(char) in drawable else "▯" for char in line)


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", transparent=True, metadata={"Software": None})
    return out.getvalue()
