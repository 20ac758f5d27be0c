"""The report of a mix: gathered from ledger, store and input when the mix is written or its settings change."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from configs.errors import RunFailed
from flows import kept_passports
from flows.run import Run
from flows.stages import timed
from storage import files, manifests, states
from storage.exchange import PARTITION_ROWS
from storage.fingerprints import fingerprint
from storage.ledger import DAMAGED_FILE
from storage.steps import Step
from storage.view import IMAGE, TEXT
from tasks.emit.layout import blocks
from tasks.groups import ItemsFailed
from tasks.report import concentration, gathering, mixed, pages, pools, sources
from tasks.report import cuts as decided
from tasks.report.costs import machine
from tasks.report.subject import Picking, Subject, Weighing
from tasks.report.task import (
    center_cells,
    choose_examples,
    choose_shown,
    collect_blocks,
    find_blocks,
    measure_blocks,
    survey_blocks,
    write_report,
)
from tasks.score import scores_of
from tasks.select import targets

if TYPE_CHECKING:
    from flows.emitting import Plan

MAX_PIXELS = 64_000_000
"""Of pictures in galleries where no embedder says what it decodes."""


def report(run: Run, plan: Plan, subject: Subject, manifest: dict[str, Any], earlier: dict[str, Any]) -> str:
    """Write the report of a mix; returns its short form in Markdown. The caller removes what `subject.step` holds.

    Args:
        run: The run.
        plan: What the mix was made by.
        subject: As `subject_of` gives it.
        manifest: Of the mix.
        earlier: What an earlier report said of the run that wrote the mix, or nothing.
    """
    cut, cuts = list(enumerate(blocks(plan.entries))), cuts_of(plan)
    with timed(run, "report"):
        gathering.lay_out(subject, cut)
        if subject.weighing.cells in concentration.EMBEDDINGS:
            run.once(center_cells, subject=subject, shards=plan.every)
        run.each(survey_blocks, "blocks", cut, subject=subject)
        run.each(measure_blocks, "blocks", cut, subject=subject, block_count=len(cut))
        values = {name: [one["value"] for one in cuts if one["score"] == name] for name in subject.scores}
        chosen = run.once(choose_shown, subject=subject, block_count=len(cut), cuts=values)
        for kind, warning in chosen["warnings"]:
            run.warn(kind, warning)
        if chosen["more"] or chosen["less"] or chosen["groups"]:
            run.each(find_blocks, "blocks", cut, subject=subject)
        run.once(choose_examples, subject=subject, block_count=len(cut))
        run.each(collect_blocks, "blocks", cut, subject=subject)
        surveys = [subject.step.facts(f"survey-{number:05d}") for number, _ in cut]
        summary = summarise(run, plan, manifest, surveys, earlier) | {"cuts": cuts}
        steps = [("ingest", plan.ingest), *((one.label, one.step) for one in plan.planned)]
        steps += [("mix", plan.mix), ("sample", plan.sample)]
        common = {"block_count": len(cut), "steps": steps, "digests": [shard.digest for shard in plan.every]}
        return str(run.once(write_report, subject=subject, summary=summary, **common))


def report_again(run: Run, plan: Plan, url: str, manifest: dict[str, Any]) -> str:
    """Write the report of an existing mix anew if its settings have changed; returns its card, empty if they have not.

    Raises:
        RunFailed: Some of the work failed.
    """
    if _is_current(run, url):
        return ""
    run.log("report: written anew, its settings have changed")
    subject = subject_of(run, plan, url)
    try:
        card = report(run, plan, subject, manifest, pages.facts(url))
    except (ItemsFailed, OSError) as error:
        if _is_current(run, url):  # another run wrote the same and dropped what this one was reading
            return ""
        raise RunFailed(f"the report failed: {error}") from error
    files.remove(subject.step.url)
    return card


def _is_current(run: Run, url: str) -> bool:
    return pages.facts(url).get("settings") == run.config.report.model_dump(mode="json")


def redraw(mix: str, settings: dict[str, Any]) -> str:
    """Draw the report of `mix` once more from its own facts; returns where it is.

    For a mix that was moved, or whose store or input is gone; `settings` can only show less than was gathered.
    """
    folder = manifests.resolve(mix)
    pages.draw_again(folder, settings)
    return files.join(folder, "report", "index.html")


def subject_of(run: Run, plan: Plan, url: str) -> Subject:
    """What the report's tasks need to know."""
    settings, sampler = run.config.report, run.config.sample
    made = {"version": plan.version, "mix": files.absolute(url), "settings": settings.model_dump(mode="json")}
    scored = [name for one in plan.planned if one.step.stage == "score" for name in scores_of(one.method)]
    judged = [one.config.score for one in plan.planned if one.config.kind == "threshold"]
    return Subject(
        step=Step(run.config.store, "report", "html", fingerprint(made)),
        mix=url,
        view=plan.view,
        repeated=frozenset(plan.keeper_of),
        damaged=frozenset(plan.damaged),
        scores=tuple(dict.fromkeys([*scored, *judged])),
        selects=tuple((one.label, one.step) for one in plan.planned if one.step.stage == "select"),
        sample=plan.sample,
        parts=tuple(plan.sampled["parts"]),
        steps=plan.sampled["steps"],
        picking=picking_of(run, plan),
        weighing=weighing_of(plan),
        capped=sampler.kind == "cabs_dm" and sampler.variant == "released" and sampler.cap is not None,
        settings=settings,
        max_pixels=getattr(run.config.embed, "max_pixels", MAX_PIXELS),
    )


def picking_of(run: Run, plan: Plan) -> Picking:
    """How the batches were picked."""
    sampler, names = run.config.sample, plan.mixed["groups"]
    whole = sampler.superbatch // sampler.world_size, sampler.batch_size // sampler.world_size
    micro_batch, taken = getattr(sampler, "share", whole)
    drawn = np.array(plan.mixed["counts"]).sum(axis=0).tolist()
    return Picking(
        kind=sampler.kind,
        mixed=plan.mix,
        superbatch=sampler.superbatch,
        micro_batch=micro_batch,
        taken=taken,
        alpha=getattr(sampler, "alpha", None) if sampler.kind == "uds" else None,
        groups=len(names),
        sources=tuple((one, names[one]) for one in sources.largest(drawn, names)) if len(names) > 1 else (),
    )


def weighing_of(plan: Plan) -> Weighing:
    """How the weights of rows are to be summed."""
    most = min(plan.sampled["rows"], sum(plan.mixed["rows"]))
    return Weighing(
        sizes=tuple(size for size, names in concentration.SIZES.items() if {*names} & {*plan.view.sidecars}),
        cells=concentration.cell_column(plan.view),
        bits=concentration.cell_bits(most),
        buckets=max(1, -(-most // PARTITION_ROWS)),
    )


def cuts_of(plan: Plan) -> list[dict[str, Any]]:
    """Where threshold selects cut: {stage, score, value}."""
    found = []
    for one in plan.planned:
        if one.config.kind == "threshold" and not targets.is_ranked(one.method):
            value = float(states.load(one.step.file("state.npz"))["cut"])
            if math.isfinite(value):
                found.append({"stage": one.label, "score": one.config.score, "value": value})
    return found


def summarise(
    run: Run, plan: Plan, manifest: dict[str, Any], surveys: list[dict[str, Any]], earlier: dict[str, Any]
) -> dict[str, Any]:
    """What the report shows, as far as the run knows it without looking at rows; `earlier` as in `report`."""
    tally: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for one in surveys:
        tally.update(one["tally"])
        sizes.update(one["sizes"])
    if 2 * sizes["bare"] > sizes["annotated"]:
        run.warn(
            "no-concepts",
            f"{sizes['bare']:,} of {sizes['annotated']:,} annotated rows have no concept: what goes by concepts "
            "(`select: balance`, `sample: cabs_dm`) takes them last or not at all; see `annotate`",
        )
    changed = manifest.get("changes")
    counts, seconds = manifest["counts"], {stage: round(seconds, 3) for stage, seconds in run.seconds.items()}
    return {
        **{key: manifest[key] for key in ("name", "version", "seed", "batches", "versions")},
        "created": f"{manifest['created'][:16].replace('T', ' ')} UTC",
        "rows_in": counts["rows_in"],
        "funnel": funnel(run, plan, tally, counts["rows_in"]),
        "outcomes": {outcome: counts[outcome] for outcome in ("kept", "dropped", "quarantined")},
        "emitted": counts["emitted"],
        "emitted_bytes": sum(facts["bytes"] for facts in manifest["files"].values()),
        "files": [{"file": f, "reason": DAMAGED_FILE, "detail": why} for f, why in sorted(plan.damaged.items())],
        "groups": groups(plan),
        "selects": selects(plan),
        "pictured": IMAGE in plan.view.inputs,
        "changes": changed,
        "concepts_before": changed and concepts_of(run, changed["parent"]),
        "notes": list(dict.fromkeys([*mixed.lasting(earlier), *run.notes])),
        "seconds": earlier.get("seconds") or seconds,
        "estimates": earlier["estimates"] if "estimates" in earlier else kept_passports.compared(run),
        "read": bytes_read(plan, sizes),
        "annotated": {"rows": sizes["annotated"], "bare": sizes["bare"]},
        "machine": earlier.get("machine") or machine(),
        "settings": run.config.report.model_dump(mode="json"),
        "config_yaml": yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False),
    }


def funnel(run: Run, plan: Plan, tally: Counter[str], rows_in: int) -> list[dict[str, Any]]:
    """Stage by stage what became of the rows: {stage, kind, rows_in, kept, dropped, quarantined, reasons}."""
    left, found = rows_in, []
    steps = [("ingest", "parquet"), *((one.label, one.config.kind) for one in plan.planned)]
    for stage, kind in [*steps, ("mix", run.config.mix.kind), ("sample", run.config.sample.kind)]:
        lost, reasons = {"dropped": 0, "quarantined": 0}, Counter[str]()
        for key, rows in sorted(tally.items()):
            outcome, where, reason = key.split("|", 2) if "|" in key else (key, "", "")
            if where == stage and outcome in lost:
                lost[outcome] += rows
                reasons[reason] += rows
        kept = left - sum(lost.values())
        found.append({"stage": stage, "kind": kind, "rows_in": left, "kept": kept, **lost, "reasons": dict(reasons)})
        left = kept
    return found


def selects(plan: Plan) -> list[dict[str, Any]]:
    """What each select says of itself: {stage, kind, rows, kept, cut, met, classes, pools}, see `tasks.report.cuts`."""
    found = []
    for one in plan.planned:
        if one.step.stage == "select":
            done = one.step.done()
            cut = done.get("cut")
            told = {"stage": one.label, "kind": one.step.kind, "rows": done["rows"], "kept": done["kept"], "cut": cut}
            law = pools.facts(states.load(one.step.file("state.npz"))) if one.step.kind == pools.KIND else None
            told |= {"met": decided.met(cut) or pools.met(law), "classes": decided.classes(cut), "pools": law}
            found.append(told)
    return found


def concepts_of(run: Run, version: str) -> dict[str, Any] | None:
    """What the report of an older version says of concepts; None where it cannot be read."""
    try:
        found = pages.facts(files.join(run.config.emit.out, run.config.name, version)).get("concepts")
        return found and {name: found[name] for name in ("names", "after", "distinct_before")}
    except (ValueError, KeyError, OSError):
        return None


def groups(plan: Plan) -> list[dict[str, Any]]:
    """Intended and achieved share of each group: {group, rows, intended, achieved}."""
    drawn = np.array(plan.mixed["counts"]).sum(axis=0)
    used = [plan.sampled["groups"].get(str(i), 0) for i in range(len(plan.mixed["groups"]))]
    return [
        {"group": name, "rows": rows, "intended": int(n) / max(1, drawn.sum()), "achieved": u / max(1, sum(used))}
        for name, rows, n, u in zip(plan.mixed["groups"], plan.mixed["rows"], drawn, used, strict=True)
    ]


def bytes_read(plan: Plan, sizes: Counter[str]) -> dict[str, int]:
    """Bytes of pictures and characters of captions that each stage read of the input, by stage."""
    known = {IMAGE: sizes["pictures"], TEXT: sizes["captions"]}
    found = {"ingest": sum(known.values())}
    for one in plan.planned:
        roles = [name for name in one.method.needs if name in known and name not in one.view.sidecars]
        if roles:
            found[one.label] = sum(known[name] for name in roles)
    return found
