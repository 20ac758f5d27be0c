"""The report beside a mix: one HTML file that needs nothing else and runs nothing.

A pure function from a plain summary to text. Names, reasons, captions and concepts come from data that strangers
wrote: Jinja escapes all of them, `wording.clean` takes out what is not seen, and the page's own policy allows no
script, no style from elsewhere and no picture but those inside it.

A summary has `name, version, created, seed, rows_in, emitted, notes, config_yaml, machine, versions, settings`;
`outcomes` {kept, dropped, quarantined}; `batches` {steps, batch_size, world_size, superbatch}; `funnel`, a list of
{stage, kind, rows_in, kept, dropped, quarantined, reasons: {reason: rows}}; `files`, a list of {file, reason, detail}
that are quarantined as a whole; `groups`, a list of {group, rows, intended, achieved}, the last two being shares of
one; and what `tasks.report.findings` adds: `stages`, `concepts`, `coverage`, `utility`, `sources` and `mixed` (or
None), `scores`, `galleries`, `duplicates`, `selects`; and `changes` since the mix before, as `flows.comparing` tells
them, or None. Summaries of older versions have no `coverage`, no `utility`, no `sources`, no `mixed`, no `changes`, no
`selects` and no `examples` of their changed concepts.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.report import coverage, estimates, mixed, selections, svg, valued, wording

if TYPE_CHECKING:
    from markupsafe import Markup

HERE = Path(__file__).parent
MOST_GROUPS = 60
MOST_FILES = 50
CAPTION = 120
CURVES = {"offered": "before", "wanted": "goal", "achieved": "after"}
"""CSS classes of the distributions of labels."""


def render(summary: Mapping[str, Any], thumbnails: Mapping[str, bytes]) -> str:
    """The report as self-contained HTML, in light or dark as the reader prefers.

    Args:
        summary: See above; of its `settings` `top_concepts` and `gallery_rows` are looked at.
        thumbnails: WebP pictures by `file:row`.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = "average count percent size duration times figure number by_count clean sentence"
    environment.filters.update({name: getattr(wording, name) for name in words.split()})
    environment.filters.update(breakable=_breakable, ticked=_ticked, hexdump=_hexdump)
    concepts = summary["concepts"] if summary["concepts"] and summary["concepts"]["names"] else None
    curves = [(name, concepts[f"curve_{name}"]) for name in ("before", "after")] if concepts else []
    return environment.get_template("report.html.j2").render(
        s=summary,
        css=Markup((HERE / "report.css").read_text("utf-8")),
        reasons=wording.REASONS,
        most_files=MOST_FILES,
        caption=CAPTION,
        pictures={name: base64.b64encode(data).decode() for name, data in thumbnails.items()},
        shares=_shares(summary["groups"]),
        curve=Markup(svg.rank_frequency(curves)),
        top=_top(concepts, summary["settings"]["top_concepts"]) if concepts else [],
        changed=_changed(concepts, summary["settings"]["gallery_rows"]) if concepts else [],
        changes=summary.get("changes"),
        selects=selections.shown(summary),
        met=_met(summary),
        coverage=_coverage(summary),
        utility=valued.shown(summary),
        sources=valued.sources(summary),
        mixed=mixed.shown(summary),
        estimates=estimates.shown(summary),
        scores=[(one, Markup(_histogram(one))) for one in summary["scores"]],
        galleries=_ordered(summary),
    )


def _met(summary: Mapping[str, Any]) -> dict[str, str]:
    """What was met of the target, by stage; empty for stages without one."""
    told = {one["stage"]: one["met"] for one in summary.get("selects", [])}
    return {row["stage"]: told.get(row["stage"], "") for row in summary["funnel"]}


def _histogram(score: Mapping[str, Any]) -> str:
    return svg.histogram(score["edges"], score["before"], score["after"], [cut["value"] for cut in score["cuts"]])


def _top(concepts: Mapping[str, Any], top: int) -> list[dict[str, Any]]:
    """The commonest concepts with their shares of all occurrences and the widths of their bars, on a log axis."""
    rows = list(zip(concepts["names"], concepts["before"], concepts["after"], strict=True))[:top]
    most = math.log10(max([10, *(max(before, after) for _, before, after in rows)]) / 0.7)
    widths = [[100 * math.log10(n / 0.7) / most if n else 0 for n in (before, after)] for _, before, after in rows]
    return [
        {"name": name, "before": before, "after": after, "widths": [f"{width:.2f}" for width in pair]}
        for (name, before, after), pair in zip(rows, widths, strict=True)
    ]


def _changed(concepts: Mapping[str, Any], examples: int) -> list[tuple[str, list[dict[str, Any]]]]:
    """The most changed concepts under their titles, each with at most `examples` rows that show it."""
    kinds = (("More of", concepts["more"]), ("Less of", concepts["less"]))
    return [(title, [row | {"seen": row.get("examples", [])[:examples]} for row in rows]) for title, rows in kinds]


def _coverage(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page needs of the coverage of the batches; None where nothing is known of it."""
    from markupsafe import Markup

    told = summary.get("coverage")
    if not told:
        return None
    labels, mean = told["labels"], told["mean"]
    drawings = []
    for series, name in (("concepts", "distinct concepts in a batch"), ("rare", "rare concepts in a batch")):
        lines = [("ceiling", f"offered_{series}"), ("before", f"iid_{series}"), ("after", series)]
        drawing = svg.over_steps(told, lines, series, title=f"{name}, step by step".capitalize(), up=name)
        drawings += [Markup(drawing)] if mean[f"offered_{series}"] else []
    return {
        "lines": coverage.headlines(told),
        "tiles": _tiles(mean),
        "fill": told["fill"],
        "capped": told["capped"],
        "meaning": coverage.meaning_of_fill(told["capped"]),
        "warn": told["fill"] > coverage.MOST_FILL * told["rows"],
        "rows": told["rows"],
        "steps": told["steps"],
        "thinned": len(told["first"]) < told["steps"],
        "drawings": drawings,
        "has_target": "wanted" in labels["shares"],
        "curve": Markup(
            svg.shares_by_rank([(CURVES[kind], labels["curves"][kind]) for kind in CURVES if kind in labels["curves"]])
        ),
        "top": _label_shares(labels, summary["settings"]["top_concepts"]),
        "distance": labels["distance"],
        "distinct": labels["distinct"],
    }


def _tiles(mean: Mapping[str, float]) -> list[dict[str, Any]]:
    """Averages by series, of those of which there is something in the superbatches."""
    return [
        {"words": words, "value": mean[name], "iid": mean[f"iid_{name}"], "offered": mean[f"offered_{name}"]}
        for words, name in (("concepts per batch", "concepts"), ("rare concepts per batch", "rare"))
        if mean[f"offered_{name}"]
    ]


def _label_shares(labels: Mapping[str, Any], top: int) -> list[dict[str, Any]]:
    """The concepts offered most often, with their shares by kind and where these are on a log axis, in per cent."""
    shares = {kind: values[:top] for kind, values in labels["shares"].items()}
    some = [share for values in shares.values() for share in values if share]
    if not some:
        return []
    low, high = math.log(min(some) / 2), math.log(max(some))
    return [
        {"name": name}
        | {kind: values[i] for kind, values in shares.items()}
        | {"at": {k: f"{100 * (math.log(v[i]) - low) / (high - low):.2f}" if v[i] else "0" for k, v in shares.items()}}
        for i, name in enumerate(labels["names"][:top])
    ]


def _shares(groups: list[dict[str, Any]]) -> dict[str, Any]:
    """The largest groups with the widths of their bars, and how many are left out."""
    ordered = sorted(groups, key=lambda group: (-max(group["intended"], group["achieved"]), group["group"]))
    widest = max((max(group["intended"], group["achieved"]) for group in groups), default=0) or 1
    shown = [
        group | {key: f"{98 * group[name] / widest:.2f}" for key, name in (("bar", "achieved"), ("mark", "intended"))}
        for group in ordered[:MOST_GROUPS]
    ]
    return {"shown": shown, "left": len(groups) - len(shown)}


def _ordered(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the galleries show: first the kept rows, then stage by stage what was lost, the commonest reason first."""
    most = summary["settings"]["gallery_rows"]
    stages = [row["stage"] for row in summary["funnel"]]
    found = [gallery | {"items": gallery["items"][:most]} for gallery in summary["galleries"]]

    def place(gallery: dict[str, Any]) -> tuple[Any, ...]:
        stage = gallery["stage"]
        at = -1 if gallery["outcome"] == "kept" else stages.index(stage) if stage in stages else len(stages)
        return at, -gallery["rows"], gallery["reason"]

    return sorted((one for one in found if one["items"]), key=place)


def _breakable(name: Any) -> str:
    """The name with a place to break the line after each slash and underscore."""
    return wording.clean(name).replace("/", "/\u200b").replace("_", "_\u200b")


def _ticked(text: Any) -> Markup:
    """Text with what stands between backticks set as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(wording.clean(text)))))


def _hexdump(head: str) -> str:
    """The first bytes as a person reads them: printable ASCII as it is, the rest as dots."""
    return "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in bytes.fromhex(head))
