"""The passport of a run: what it will mix, and what every stage will take, before anything runs.

Kept in the store, so that the run's report can compare: see `flows.kept_passports`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from configs.curate import Curate
from configs.errors import RunFailed
from configs.section import Section
from flows import group_fit, group_table
from flows.ahead import Ahead, ahead
from flows.kept_passports import Passport, url_of
from flows.measuring import STAGE_SECONDS, TASK_SECONDS, Measured, measured, task_runs
from flows.planning import planned_draws
from flows.reaching import reaching
from flows.sampled import Piece, rows_of, take
from flows.scanning import Scan
from storage import files
from tasks.report.costs import machine

ROWS = 1024
"""Rows of a sample, if nobody says otherwise."""
LOOKED_AT = 512
"""Rows that bytes and tokens are known from where nothing is measured."""


@dataclass(frozen=True)
class Looked:
    """What a look into the input has shown."""

    pieces: list[Piece]
    """The sample."""
    counts: dict[str, int]
    """Rows by group; empty where the run makes the groups."""
    exact: bool
    """Whether they are counted."""


@reaching
def look(config: Curate, found: Scan, rows: int) -> Looked:
    """Take a sample of about so many rows, and count the groups.

    Raises:
        ConfigError: The mixing law does not fit the groups.
        OSError: An input file cannot be read now.
    """
    pieces = take(found, min(sum(found.rows.values()), rows or LOOKED_AT))
    counts, exact = group_table.counted(config, found, pieces)
    group_fit.refuse_unfit(config, counts, exact)
    return Looked(pieces, counts, exact)


@reaching
def passport(config: Curate, found: Scan, looked: Looked, rows: int, say: Callable[[str], None]) -> Passport:
    """Make the passport and, if something was measured, keep it in the store.

    Args:
        config: A configuration that `examine` has let pass.
        found: The input, as `examine` found it.
        looked: As `look` gives it.
        rows: Rows of the sample; 0: nothing is measured, the groups alone are shown.
        say: Is told how far it is.
    """
    started = perf_counter()
    total, pieces, counts, exact = sum(found.rows.values()), looked.pieces, looked.counts, looked.exact
    stages = ahead(config, found)
    notes: list[str] = []
    shown = _measured(config, found, pieces, stages, say, notes) if rows and pieces else None
    sizes = group_table.sizes(config, pieces)
    lines = group_table.table(counts, sizes, shown.survivors if shown else {})
    kept = sum(shown.survivors.values()) / shown.rows if shown and shown.rows else 1.0
    lines, mixture = group_table.planned(config, lines, total, kept, sizes)
    whole = total <= rows_of(pieces)
    told: Passport = {
        "name": config.name,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "workers": config.runner.workers,
        "input": _input(found, sizes, total),
        "groups": {"by": group_table.group_name(config), "counted": exact, "lines": lines, "whole": whole},
        "tokens": group_table.tokenizer_of(config).tokenizer,
        "mix": mixture | _batches(config, mixture),
        "sample": {"rows": shown.rows, "batch_size": shown.batch_size} if shown else None,
        "kept": shown.kept if shown else {},
        "stages": _stages(config, stages, shown),
        "notes": [*notes, *_notes(config, found, shown, whole)],
    }
    told["total"] = {key: _sum(told["stages"], key) for key in ("seconds", "bytes")} if shown else None
    told["took"] = round(perf_counter() - started, 1)
    if shown and shown.rows:  # a passport that says nothing is no reason to lose one that did
        files.write_json(url_of(config), told)
    return told


def _measured(
    config: Curate, found: Scan, pieces: list[Piece], stages: list[Ahead], say: Callable[[str], None], notes: list[str]
) -> Measured | None:
    """What runs over the sample have shown; None if they failed, or if nothing is left to do."""
    done = [one.stage for one in stages if one.done]
    if len(done) == len(stages):
        return Measured()
    try:
        return measured(config, found, pieces, done, say)
    except RunFailed as error:  # perhaps of the sample alone: no reason to refuse the configuration
        notes.append(f"nothing is measured: a run over a sample of {rows_of(pieces):,} rows failed: {error}")
        return None


def _input(found: Scan, sizes: group_table.Sizes, total: int) -> dict[str, Any]:
    """Files, rows and bytes, and by the sample what is in the rows."""
    every = sizes.get(None) or {}
    part = total / every["rows"] if every.get("rows") else 0.0
    facts = {"files": len(found.entries), "rows": total, "bytes": sum(entry.size for entry in found.entries)}
    facts |= {"waiting": len(found.waiting), "waiting_bytes": sum(unit.size for unit in found.waiting)}
    return facts | {
        "content_bytes": round(every.get("bytes", 0) * part),
        "tokens": round(every.get("tokens", 0) * part),
    }


def _batches(config: Curate, mixture: dict[str, Any]) -> dict[str, Any]:
    """Whole batches, and the rows in them."""
    sampler, draws = config.sample, mixture["draws"]
    if draws is None and mixture.get("learned"):
        draws = planned_draws(config)
    steps = None if draws is None else draws // sampler.superbatch
    return {"batches": steps, "batch_size": sampler.batch_size, "emitted": steps and steps * sampler.batch_size}


def _stages(config: Curate, stages: list[Ahead], shown: Measured | None) -> list[dict[str, Any]]:
    """What is said of each stage, None being what is not known.

    {stage, kinds, shards, rows, done, seconds, cpu, bytes, loading, orchestration, tasks}; `seconds` has the other two
    in it: what a new process takes to load libraries and models, and what Prefect takes.
    """
    found = []
    for one in stages:
        line: dict[str, Any] = {"stage": one.stage, "kinds": one.kinds, "shards": one.shards, "rows": one.rows}
        line |= {"done": one.done, "seconds": 0.0, "cpu": 0.0, "bytes": 0, "loading": 0.0, "tasks": 0}
        if not one.done and (shown is None or one.stage not in shown.seconds):
            line |= dict.fromkeys(("seconds", "cpu", "bytes", "loading", "tasks"), None)
        elif not one.done and shown is not None:
            tasks = task_runs(config, shown.calls[one.stage], shown.shards, one.shards)
            loading = shown.cold[one.stage]
            seconds = shown.seconds[one.stage].of(one.shards, one.rows) + loading
            around = STAGE_SECONDS + TASK_SECONDS * tasks
            line |= {"seconds": seconds + around, "loading": loading, "tasks": tasks, "orchestration": around}
            line["cpu"] = shown.cpu[one.stage].of(one.shards, one.rows) + shown.cold_cpu[one.stage]
            line["bytes"] = round(shown.bytes[one.stage].of(one.shards, one.rows))
        found.append(line)
    return found


def _sum(stages: list[dict[str, Any]], key: str) -> float:
    return sum(one[key] or 0 for one in stages)


def _notes(config: Curate, found: Scan, shown: Measured | None, whole: bool) -> list[str]:
    """What the reader of the figures should know."""
    notes = []
    if found.waiting:
        notes.append(
            f"{len(found.waiting):,} files or folders are converted first: what is in them, and what their rows take, "
            "is not known before conversion"
        )
    if shown is None or not shown.rows:
        return notes
    if isinstance(config.mix.groups, Section):
        notes.append(
            "the groups are made of the sample here; the run makes its own, which may be others of the same names"
        )
    if not whole:
        notes.append(
            "duplicates are looked for among the sampled rows alone: of the whole input there are more, so fewer rows "
            "are kept than is said here"
        )
    if shown.batch_size != config.sample.batch_size:
        notes.append(f"the sampler was measured with batches of {shown.batch_size:,}, which the sample can fill")
    if config.runner.kind != "threads":
        notes.append(
            f"measured on threads of this machine, not on the {config.runner.kind} cluster, whose start and whose "
            "GPUs are not in these figures"
        )
    return notes
