"""The stages of a run, each a plain function that hands groups of work to tasks; what is finished is skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from prefect import Task

from configs.errors import RunFailed
from flows.freezing import frozen_state
from flows.planning import Planned, annotate_step, group_column, learns_from_rows, planned_budget
from flows.run import HEAVY, Run
from storage import files
from storage.exchange import PARTITION_ROWS, spilled
from storage.fingerprints import digest
from storage.shards import Shard
from storage.steps import Step
from storage.view import View
from tasks.annotate.numbers import with_matches
from tasks.annotate.task import annotate_shards
from tasks.embed.task import embed_shards
from tasks.groups import ItemsFailed
from tasks.mix.lists import plan_facts
from tasks.mix.task import count_shards, draw_shards, order_draws, plan_mix, summarise_mixed
from tasks.sample import coverage
from tasks.sample.task import attach_shards, pick_in_order, pick_parts
from tasks.score.task import fit_score, score_shards, summarise_scored
from tasks.summaries import summarised


@contextmanager
def timed(run: Run, stage: str) -> Iterator[None]:
    """Add the block's wall time to the stage, and tell who looks on where the run is."""
    started, run.stage = perf_counter(), stage
    try:
        yield
        run.watch.progress(stage, "", 0, 0)
    finally:
        run.seconds[stage] = run.seconds.get(stage, 0.0) + perf_counter() - started


# ----------------------------------------------------------------------------------------------------------- per shard
def run_per_shard(run: Run, task: Task[..., Any], planned: Planned, every: list[Shard], **arguments: Any) -> None:
    """Make the sidecars that are missing; a shard that fails does not stop the others."""
    step = planned.step
    files.sweep(step.url)
    committed = step.committed()
    todo = [shard for shard in every if shard.digest not in committed and shard.file not in run.failed]
    if not todo:
        run.log(f"{planned.label}: all {len(every)} shards are done")
        return
    if hasattr(planned.method, "check"):
        planned.method.check()
    run.log(f"{planned.label}: {len(todo)} of {len(every)} shards to do")
    common = {"step": step, "view": planned.view, "config": planned.config, **arguments}
    try:
        run.each(task, "shards", todo, HEAVY, **common)
    except ItemsFailed as error:
        run.failed |= dict(error.failed)


def embed(run: Run, planned: Planned, every: list[Shard]) -> None:
    """Embed every shard."""
    with timed(run, "embed"):
        run_per_shard(run, embed_shards, planned, every)


def score(run: Run, planned: list[Planned], every: list[Shard]) -> None:
    """Score every shard."""
    for one in planned:
        with timed(run, one.label):
            run_per_shard(run, score_shards, one, every, **fitted(run, one, every))


def fitted(run: Run, planned: Planned, every: list[Shard]) -> dict[str, str]:
    """Have a scorer learn from all shards, or without them, where it does and has not yet; returns where that is."""
    step = planned.step
    if not hasattr(planned.method, "fit"):
        return {}
    state = {"state": step.file("state.npz")}
    if files.exists(state["state"]):
        for left_by_crash in ("checkpoint.npz", "spill"):
            files.remove(step.file(left_by_crash))
        return state
    read = every if learns_from_rows(planned.method) else []
    if read:
        run.stop_if_failed()
    if hasattr(planned.method, "check"):
        planned.method.check()
    run.log(f"{planned.label}: learning from {len(read)} shards" if read else f"{planned.label}: learning")
    done = summarised(step)
    left = [shard for shard in read if shard.digest not in done]
    common: dict[str, Any] = {"step": step, "config": planned.config}
    try:
        run.each(summarise_scored, "shards", left, view=planned.view, **common)
        run.once(fit_score, shards=read, **common)
    except (ItemsFailed, FileNotFoundError) as error:
        if not files.exists(state["state"]):  # else another run has learned the same and dropped its summaries
            raise RunFailed(f"{planned.label} cannot learn: {error}") from error
    return state


def annotate_all(run: Run, view: View, every: list[Shard]) -> tuple[Planned, View]:
    """Annotate every shard, after a vocabulary has been mined or read where the method wants one."""
    with timed(run, "annotate"):
        state = frozen_state(run, view, every)
        found = digest(files.read_bytes(state)) if state else None
        planned, behind = annotate_step(run.config, view, found)
        run.notes += getattr(planned.method, "notes", [])
        run_per_shard(run, annotate_shards, planned, every, state=state)
    return planned, behind


# -------------------------------------------------------------------------------------------------------------- global
def run_global(run: Run, step: Step, label: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do a global step, or return at once if it is done. Returns what its commit point says.

    Another run may do the same step in the same store at the same time. Both write the same bytes; the one that ends
    first drops the spills, so an error that finds the step done is no error.
    """
    stage = label.split("#")[0]
    with timed(run, stage):
        if step.is_done():
            run.log(f"{label}: done before")
            files.remove(step.file("spill"))  # a crash between commit point and clean-up leaves it
            return step.done()
        files.sweep(step.url)
        try:
            facts = work()
        except (ItemsFailed, OSError) as error:
            if not step.is_done():
                raise RunFailed(f"{label} failed: {error}") from error
            run.log(f"{label}: finished by another run")
            return step.done()
        step.finish(**facts)
        return step.done()


def mix(run: Run, planned: Planned, every: list[Shard]) -> dict[str, Any]:
    """Plan the mix and write the draw list."""
    facts = run_global(run, planned.step, planned.label, lambda: draw_all(run, planned, every))
    for note in facts.get("notes", []):
        run.log(f"mix: {note}")
        run.notes.append(f"mix: {note}")
    for warning in facts.get("warnings", []):
        run.warn("mix", f"mix: {warning}")
    return facts


def draw_all(run: Run, planned: Planned, every: list[Shard]) -> dict[str, Any]:
    """Count groups, plan, let shards find their draws, order them."""
    step, config = planned.step, run.config
    group = group_column(config, planned.view)
    common: dict[str, Any] = {"step": step, "view": planned.view, "group": group}
    planning: dict[str, Any] = {"config": planned.config, "seed": config.seed}
    if not plan_facts(step):
        run.each(count_shards, "shards", every, sizes=planned.config.size_columns, **common)
        if hasattr(planned.method, "learn"):
            planned.method.check()
            done = summarised(step)
            left = [shard for shard in every if shard.digest not in done]
            run.each(summarise_mixed, "shards", left, **common, **planning)
    plan = run.once(plan_mix, step=step, budget=planned_budget(config), shards=every, **planning)
    run.each(draw_shards, "shards", every, part_rows=PARTITION_ROWS, **common)
    parts = list(range(-(-plan["draws"] // PARTITION_ROWS)))
    run.each(order_draws, "parts", parts, step=step, every=every)
    return plan | {"parts": len(parts)}


def sample(run: Run, planned: Planned, mixed: Step, draws: int, every: list[Shard]) -> dict[str, Any]:
    """Pick the batches."""
    facts = run_global(run, planned.step, planned.label, lambda: pick_all(run, planned, mixed, draws, every))
    if facts["unseen"]:
        run.warn("targets", f"`sample.targets` names what is in no superbatch: {facts['unseen']}")
    return facts


def pick_all(run: Run, planned: Planned, mixed: Step, draws: int, every: list[Shard]) -> dict[str, Any]:
    """Attach what the sampler needs to the draws, then pick part by part."""
    step, config = planned.step, planned.config
    most = min(PARTITION_ROWS, getattr(planned.method, "part_rows", PARTITION_ROWS))
    part_rows = max(1, most // config.superbatch) * config.superbatch
    parts = list(range(-(-draws // part_rows)))
    ready = spilled(step, "draws")
    left = [shard for shard in every if shard.digest not in ready]
    common = {"step": step, "config": config, "part_rows": part_rows}
    run.each(attach_shards, "shards", left, mix=mixed, view=planned.view, **common)
    if planned.method.independent:
        done = step.committed()
        todo = [part for part in parts if f"part-{part:05d}" not in done]
        run.each(pick_parts, "parts", todo, HEAVY, seed=run.config.seed, every=every, **common)
    else:
        # Here the state behind a part, saved after its plan, is what makes the part done.
        for part in (part for part in parts if not files.exists(step.file(f"state-{part:05d}.npz"))):
            run.once(pick_in_order, seed=run.config.seed, every=every, part=part, **common)
    facts = [step.facts(f"part-{part:05d}") for part in parts]
    groups: dict[str, int] = {}
    for one in facts:
        for group, rows in one["groups"].items():
            groups[group] = groups.get(group, 0) + rows
    steps = sum(one["steps"] for one in facts)
    files.write_json(step.file(coverage.SECTION), config.model_dump(mode="json"))
    return {
        "parts": [one["rows"] for one in facts],
        "rows": sum(one["rows"] for one in facts),
        "steps": steps,
        "whole_draws": steps * config.superbatch,
        "groups": groups,
        "unseen": unseen(planned, len(parts)),
    }


def unseen(planned: Planned, parts: int) -> str:
    """Concepts that the sampler's configuration names and no superbatch held, misspelt as a rule, in words."""
    named = getattr(planned.method, "named", [])
    seen = coverage.read_concepts(planned.step, parts)["concept"].to_pylist() if named else []
    unknown = sorted({*named} - {*seen})
    more = f"; and {len(unknown) - 3} more of {len(named)}" if len(unknown) > 3 else ""
    return "; ".join(with_matches(concept, seen) for concept in unknown[:3]) + more
