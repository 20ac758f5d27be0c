"""Report tasks: survey blocks of files, choose what is shown, collect it, write the pages."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc

from storage import files
from storage.shards import Shard
from storage.steps import Step
from tasks.emit.layout import Block
from tasks.groups import each, stage_task
from tasks.report import changes, concentration, coverage, findings, gathering, mixed
from tasks.report.subject import Subject


@stage_task(name="center", task_run_name="report: center of the embeddings")
def center_cells(subject: Subject, shards: list[Shard]) -> int:
    """Find the middle of the embeddings, by some of some shards; returns how many shards there are."""
    concentration.leave_center(subject, shards)
    return len(shards)


@stage_task(name="survey", task_run_name="report: survey {label}")
def survey_blocks(subject: Subject, blocks: list[Block], label: str) -> dict[str, Any]:
    """Count concepts, find the ranges of scores and candidates for the galleries in blocks of files."""
    return each(blocks, lambda block: gathering.survey(subject, block))


@stage_task(name="measure groups", task_run_name="report: measure groups of {label}")
def measure_blocks(subject: Subject, blocks: list[Block], block_count: int, label: str) -> dict[str, Any]:
    """Find out how many rows stand behind each keeper in blocks of files."""
    return each(blocks, lambda block: gathering.measure(subject, block, block_count))


@stage_task(name="choose", task_run_name="report: choose")
def choose_shown(subject: Subject, block_count: int, cuts: dict[str, list[float]]) -> dict[str, Any]:
    """Choose what all blocks are to show; `cuts` are the thresholds by score. Returns sizes, and warnings by kind."""
    chosen = gathering.choose(subject, block_count, cuts)
    files.write_json(subject.step.file("chosen.json"), chosen)
    sizes = {name: len(chosen[name]) for name in ("galleries", "groups", "more", "less")}
    told = [("batches", warning) for warning in coverage.warnings(chosen["coverage"], subject.capped)]
    told += mixed.warnings(chosen["mixed"], subject.settings.model_dump())
    return sizes | {"warnings": told}


@stage_task(name="find", task_run_name="report: find in {label}")
def find_blocks(subject: Subject, blocks: list[Block], label: str) -> dict[str, Any]:
    """Find rows that show the chosen groups and the most changed concepts in blocks of files."""
    return each(blocks, lambda block: gathering.find(subject, block))


@stage_task(name="choose", task_run_name="report: choose examples")
def choose_examples(subject: Subject, block_count: int) -> dict[str, Any]:
    """Choose the rows that show groups and the most changed concepts from what all blocks have found."""
    chosen = gathering.choose_examples(subject, block_count)
    # In a file of its own: another run that writes the same report may be at any step before.
    files.write_json(subject.step.file("shown.json"), chosen)
    return {"concepts": len(chosen["examples"]), "groups": len(chosen["groups"])}


@stage_task(name="collect", task_run_name="report: collect from {label}")
def collect_blocks(subject: Subject, blocks: list[Block], label: str) -> dict[str, Any]:
    """Make the histograms of scores and the pictures of chosen rows in blocks of files."""
    return each(blocks, lambda block: gathering.collect(subject, block))


@stage_task(name="compare", task_run_name="report: compare {label}")
def compare_parts(subject: Subject, before: str, parts: list[int], label: str) -> dict[str, Any]:
    """Find out what became of the rows of an older mix, part by part of its ledger."""
    joined = subject.step.read("compared")

    def work(part: int) -> None:
        shards = joined.filter(pc.equal(joined["part"], part))
        subject.step.commit(f"compared-{part:05d}", tally=changes.compare(before, subject.mix, shards))

    return each(parts, work)


@stage_task(name="write report", task_run_name="report: write")
def write_report(
    subject: Subject, summary: dict[str, Any], block_count: int, steps: list[tuple[str, Step]], digests: list[str]
) -> str:
    """Write the report beside the mix; returns its short form in Markdown."""
    from tasks.report import pages

    found, thumbnails = findings.found(subject, block_count, summary)
    before = summary.pop("concepts_before")
    if summary["changes"]:
        found["changes"] = summary["changes"] | changes.concepts_told(before, found["concepts"])
    costs = findings.costs(summary, steps, digests)
    return pages.publish(subject.mix, summary | found | {"stages": costs}, thumbnails)
