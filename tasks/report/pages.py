"""The files of a report beside its mix: the page, charts for slides, and the facts from which it can be drawn again.

None of them is part of the mix's identity: `mix.json` does not list them, and a report may be written again later.
"""

from __future__ import annotations

import base64
from typing import Any

import pyarrow as pa

from configs.errors import MixError
from storage import files
from storage.steps import parquet_bytes
from tasks.report import mixed

FACTS = "report.json"
"""Everything the page says, written last."""
THUMBNAILS = "thumbnails.parquet"
PLOT_BYTES = 400_000
SCHEMA = pa.schema([("name", pa.string()), ("picture", pa.binary())])


def publish(mix: str, summary: dict[str, Any], thumbnails: dict[str, bytes]) -> str:
    """Write `report/` of the mix at `mix`; returns its short form in Markdown.

    Args:
        mix: Folder of the mix.
        summary: See `tasks.report.html`.
        thumbnails: WebP pictures by `file:row`.
    """
    from tasks.report import charts, html, markdown

    folder, top = files.join(mix, "report"), summary["settings"]["top_concepts"]
    data = {"index.html": html.render(summary, thumbnails).encode(), "funnel.png": charts.funnel_png(summary)}
    if summary["concepts"] and summary["concepts"]["names"]:
        data["concepts.png"] = charts.concepts_png(summary, top=top)
    if summary.get("coverage") and summary["coverage"]["mean"]["offered_concepts"]:
        data["coverage.png"] = charts.coverage_png(summary)
    if summary["scores"]:
        data["scores.png"] = charts.scores_png(summary)
    table = pa.table([list(thumbnails), list(thumbnails.values())], schema=SCHEMA)
    files.write_bytes(files.join(folder, THUMBNAILS), parquet_bytes(table))
    for name, content in data.items():
        files.write_bytes(files.join(folder, name), content)
    files.write_json(files.join(folder, FACTS), summary)
    return markdown.card(summary)


def plots(mix: str) -> str:
    """The charts of a mix's report as pictures inside Markdown: the funnel, and what there is of coverage and concepts.

    The server keeps them with the run: those that would take them above `PLOT_BYTES` together are left out.
    """
    left, found = PLOT_BYTES, []
    for name in ("funnel", "coverage", "concepts"):
        url = files.join(mix, "report", f"{name}.png")
        if files.exists(url) and files.size(url) <= left:
            data = files.read_bytes(url)
            left -= len(data)
            found.append(f"![{name}](data:image/png;base64,{base64.b64encode(data).decode()})\n")
    return "\n".join(found)


def facts(mix: str) -> dict[str, Any]:
    """What the report of a mix was drawn from; empty if there is none, or if an older version wrote it."""
    url = files.join(mix, "report", FACTS)
    told = dict(files.read_json(url)) if files.exists(url) else {}
    return told if "settings" in told else {}


def draw_again(mix: str, settings: dict[str, Any]) -> str:
    """Draw the report of a mix once more from its own facts, as this version of the program draws it.

    Neither the store nor the input is needed. Returns its short form in Markdown.

    Args:
        mix: Folder of the mix.
        settings: Changed settings of the report. More concepts, rows or pixels than were gathered need a run.

    Raises:
        MixError: The mix has no report that can be drawn again.
    """
    summary = facts(mix)
    if not summary:
        raise MixError(f"{mix} has no report/{FACTS} to draw from; run `mixwright curate` with its configuration")
    table = files.read_table(files.join(mix, "report", THUMBNAILS))
    thumbnails = dict(zip(table["name"].to_pylist(), table["picture"].to_pylist(), strict=True))
    return publish(mix, mixed.renewed(summary, settings), thumbnails)
