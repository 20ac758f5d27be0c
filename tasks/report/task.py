"""Report tasks: count concepts by block, then write the report."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from storage import files
from storage.shards import Shard
from storage.steps import Step, parquet_bytes
from storage.view import View
from tasks.emit.layout import Block
from tasks.groups import each, stage_task
from tasks.report import concepts


@stage_task(name="count concepts", task_run_name="report: count concepts in {label}")
def count_concepts(
    step: Step, view: View, mix: str, repeated: list[str], blocks: list[Block], label: str
) -> dict[str, Any]:
    """Count the concepts of blocks of files before and after; `repeated` files are left out."""

    def work(block: Block) -> None:
        number, entries = block
        uses = files.read_table(files.join(mix, "ledger", f"part-{number:05d}.parquet"), ["file", "times_used"])
        tables = [_count(view, uses, shard) for shard in entries if shard.file not in repeated]
        files.write_bytes(step.file(f"concepts-{number:05d}.parquet"), parquet_bytes(concepts.merge(tables)))

    return each(blocks, work)


def _count(view: View, uses: pa.Table, shard: Shard) -> pa.Table:
    mine = uses.filter(pa.compute.equal(uses["file"], shard.file))
    return concepts.count(view.table(shard, ("concepts",))["concepts"], mine["times_used"].to_numpy())


@stage_task(name="write report", task_run_name="report: write")
def write_report(step: Step, mix: str, summary: dict[str, Any], block_count: int, top: int) -> str:
    """Render the report beside the mix; returns its short form in Markdown."""
    from tasks.report import charts, html

    if block_count:
        counted = concepts.merge(step.read(f"concepts-{number:05d}") for number in range(block_count))
        shown = counted.slice(0, max(top, 2000)).to_pydict()
    if block_count and counted.num_rows:
        summary = summary | {
            "concepts": {
                "names": shown["concept"],
                "before": shown["before"],
                "after": shown["after"],
                "distinct_before": counted.num_rows,
                "distinct_after": int(pa.compute.sum(pa.compute.greater(counted["after"], 0)).as_py() or 0),
            }
        }
    pages = {"index.html": html.render(summary, top=top).encode(), "funnel.png": charts.funnel_png(summary)}
    if summary["concepts"]:
        pages["concepts.png"] = charts.concepts_png(summary, top=top)
    for name, data in pages.items():
        files.write_bytes(files.join(mix, "report", name), data)
    files.write_json(files.join(mix, "report", "report.json"), summary)
    return html.markdown(summary)
