"""The report beside a mix: one HTML file that needs nothing else, and a short card for the run's page in the UI.

Pure functions from a plain summary to text and PNG bytes. Names, reasons and concepts come from data that strangers
wrote: Jinja escapes all of them, and the charts and the card take them as plain text.

A summary has `name, version, seed, rows_in, emitted, notes, config_yaml`; `outcomes` {kept, dropped, quarantined};
`batches` {steps, batch_size, world_size, superbatch}; `funnel`, a list of {stage, kind, rows_in, kept, dropped,
quarantined, reasons: {reason: rows}}; `groups`, a list of {group, rows, intended, achieved}, the last two being shares
of one; `seconds` and `rows_per_second` by stage; and `concepts`, None or {names, before, after, distinct_before,
distinct_after}, the first three being lists of one length.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tasks.report.charts import concepts_png, funnel_png, top_concepts

TEMPLATE = Path(__file__).with_name("report.html.j2")


def render(summary: Mapping[str, Any], *, top: int = 40) -> str:
    """The report as self-contained HTML: light or dark as the reader prefers; `top` concepts in the histogram."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(count=_count, percent=_percent, width=_width, by_count=_by_count, breakable=_breakable)
    concepts = summary["concepts"] if summary["concepts"] and summary["concepts"]["names"] else None
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        s=summary,
        widest=max((max(row["intended"], row["achieved"]) for row in summary["groups"]), default=0),
        funnel=_pair(lambda dark: funnel_png(summary, dark=dark)) if summary["funnel"] else None,
        concepts=_pair(lambda dark: concepts_png(summary, top=top, dark=dark)) if concepts else None,
        top=top_concepts(concepts, top) if concepts else [],
    )


def markdown(summary: Mapping[str, Any], *, reasons: int = 6) -> str:
    """A short card of the mix in Markdown, with the `reasons` commonest reasons."""
    batches = summary["batches"]
    lines = [
        f"# {_plain(summary['name'])} `{_plain(summary['version'])}`",
        f"{_count(summary['emitted'])} rows in {_count(batches['steps'])} batches of {_count(batches['batch_size'])}, "
        f"seed {summary['seed']}.",
        *(f"> {_plain(note)}" for note in summary["notes"]),
        _table(
            ("Outcome", "Rows", "Share"),
            [(name, _count(n), _percent(n, summary["rows_in"])) for name, n in summary["outcomes"].items()],
        ),
    ]
    lost: dict[str, int] = {}
    for row in summary["funnel"]:
        for reason, n in row["reasons"].items():
            lost[reason] = lost.get(reason, 0) + n
    if lost:
        lines.append(_table(("Reason", "Rows"), [(r, _count(n)) for r, n in _by_count(lost)[:reasons]]))
    if summary["groups"]:
        shares = [(g["group"], _percent(g["intended"]), _percent(g["achieved"])) for g in summary["groups"]]
        lines.append(_table(("Group", "Intended", "Achieved"), shares))
    if concepts := summary["concepts"]:
        lines.append(
            f"{_count(concepts['distinct_before'])} distinct concepts in the input, "
            f"{_count(concepts['distinct_after'])} in the mix."
        )
    return "\n\n".join(lines) + "\n"


def _pair(draw: Callable[[bool], bytes]) -> dict[str, str]:
    """A chart for light and for dark surroundings, base64."""
    return {name: base64.b64encode(draw(name == "dark")).decode() for name in ("light", "dark")}


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [head, ("---", *["---:"] * (len(head) - 1)), *(tuple(_plain(cell) for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: Any) -> str:
    """Text that Markdown shows as it is: no HTML, no table cell, no emphasis, no link, one line."""
    one_line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{char}" if char in "\\`*[]|#!~" else char for char in one_line)


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _percent(part: float, whole: float = 1) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _width(share: float, widest: float) -> str:
    """Percent of a bar's full length, which leaves room for the mark at its end."""
    return f"{98 * share / widest if widest else 0:.2f}"


def _breakable(name: str) -> str:
    """The name with a place to break the line after each slash and underscore."""
    return str(name).replace("/", "/\u200b").replace("_", "_\u200b")


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(((reason, n) for reason, n in counts.items() if n), key=lambda item: (-item[1], item[0]))
