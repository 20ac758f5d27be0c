"""The last stage: the mix, its ledger, its report and, written last, its manifest."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from configs.errors import Defect, RunFailed
from flows import losses
from flows.comparing import changes_since, parent_of
from flows.planning import Planned
from flows.reporting import report, report_again, subject_of
from flows.run import HEAVY, Run
from flows.stages import timed
from flows.watching import PUBLISHED
from storage import files, manifests, mixes
from storage.exchange import spilled
from storage.fingerprints import fingerprint, versions
from storage.shards import Shard
from storage.steps import Step
from storage.view import View
from tasks.emit.accounts import Sources
from tasks.emit.card import card
from tasks.emit.layout import Layout, blocks
from tasks.emit.task import (
    account_blocks,
    lay_out,
    locate_passed_over,
    locate_rows,
    measure_blocks,
    scatter_shards,
    write_parts,
)
from tasks.groups import ItemsFailed


@dataclass(frozen=True)
class Plan:
    """All that the last stage needs to know of the stages before it."""

    version: str
    schema: pa.Schema
    scores: tuple[str, ...]
    view: View
    entries: list[Shard]
    every: list[Shard]
    keeper_of: dict[str, str]
    damaged: dict[str, str]
    """File that is quarantined as a whole -> why."""
    planned: list[Planned]
    """Per-shard steps and selects in order."""
    ingest: Step
    mix: Step
    sample: Step
    mixed: dict[str, Any]
    sampled: dict[str, Any]
    reuses: dict[str, Any]
    """What else of the store a rerun would use, see `flows.nights.reused`."""


def emit(run: Run, plan: Plan) -> tuple[str, dict[str, Any], str]:
    """Write the mix, or return the one that is there.

    Returns:
        Its folder, its manifest, and its card in Markdown (empty if mix and report were there before).
    """
    url = files.join(run.config.emit.out, run.config.name, plan.version)
    step = Step(run.config.store, "emit", "parquet", fingerprint({"version": plan.version, "out": files.absolute(url)}))
    if is_whole(url):
        run.log(f"emit: version {plan.version} is there already")
        manifest = manifests.read(url)
        mixes.register(run.config.store, url, run.config.name, plan.version)
        announce(run, url, manifest)
        files.remove(step.url)  # a crash behind `mix.json` leaves it
        return url, manifest, report_again(run, plan, url, manifest)
    files.sweep(files.join(url, "data"))
    try:
        with timed(run, "emit"):
            counts = write_all(run, plan, step, layout_of(run, plan, url))
        return publish(run, plan, step, url, counts)
    except (ItemsFailed, OSError) as error:
        if is_whole(url):  # another run wrote the same mix and dropped the spills that this one was reading
            run.log("emit: finished by another run")
            return url, manifests.read(url), ""
        raise RunFailed(f"emit failed: {error}") from error


def is_whole(url: str) -> bool:
    """Whether a mix stands at `url` with all its files at their sizes."""
    found = files.exists(files.join(url, manifests.MANIFEST))
    return found and next(manifests.discrepancies(url, hashes=False), None) is None


def layout_of(run: Run, plan: Plan, url: str) -> Layout:
    """How the mix is laid out."""
    config = run.config
    rows = config.emit.row_group_rows or (100 if config.roles.get("image") else 10_000)
    return Layout(
        url=url,
        schema_bytes=plan.schema.serialize().to_pybytes(),
        image=config.roles.get("image"),
        scores=plan.scores,
        part_bytes=config.emit.part_bytes,
        row_group_rows=rows,
    )


def write_all(run: Run, plan: Plan, step: Step, layout: Layout) -> Counter[str]:
    """Both passes and the ledger; returns the ledger's tally over all blocks."""
    cut = list(enumerate(blocks(plan.entries)))
    unique = {shard.file for shard in plan.every}
    block_of = {e.index: number for number, block in cut for e in block if e.file in unique}
    lengths = plan.sampled["parts"]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(int).tolist()
    names = [f"part-{number:05d}" for number, rows in enumerate(lengths) if rows]
    starts = [(f"part-{number:05d}", offsets[number]) for number, rows in enumerate(lengths) if rows]
    order = [block_of[index] for index in range(len(plan.every))]
    run.each(locate_rows, "parts", starts, step=step, plan=plan.sample, block_of=order)
    valued = [name.replace("part", "values") for name in names]
    if not valued or not files.exists(plan.sample.file(f"{valued[0]}.parquet")):  # most samplers tell none
        valued = []
    run.each(locate_passed_over, "parts", valued, step=step, plan=plan.sample, block_of=order)
    common: dict[str, Any] = {"step": step, "layout": layout, "parts": names}
    total: Counter[str] = Counter()
    parts = 0
    if plan.sampled["rows"]:
        kept = [(number, [e for e in block if e.file in unique]) for number, block in cut]
        run.each(measure_blocks, "blocks", kept, view=plan.view, **common)
        parts = run.once(lay_out, step=step, layout=layout, block_count=len(cut), rows=plan.sampled["rows"])["parts"]
        ready = spilled(step, "rows")
        pairs = [(number, shard) for number, block in kept for shard in block if shard.digest not in ready]
        run.each(scatter_shards, "shards", pairs, HEAVY, view=plan.view, **common)
        done = step.committed()
        todo = [n for n in range(parts) if f"part-{n:05d}" not in done or not stands(step, layout, n)]
        run.each(write_parts, "parts", todo, HEAVY, step=step, layout=layout, every=plan.every)
    total["parts"] = parts
    labels = {plan.ingest.fingerprint: "ingest"} | {one.step.fingerprint: one.label for one in plan.planned}
    sources = Sources(plan.view, labels, plan.mix, plan.sampled["whole_draws"], plan.keeper_of, plan.damaged)
    run.each(account_blocks, "blocks", cut, sources=sources, valued=valued, **common)
    for number, _ in cut:
        total.update(step.facts(f"block-{number:05d}")["tally"])
    return total


def publish(run: Run, plan: Plan, step: Step, url: str, tally: Counter[str]) -> tuple[str, dict[str, Any], str]:
    """Check the sums, write report, card and manifest, then drop what the emit step left in the store."""
    # Rows that were quarantined or dropped would be in the mix if what says so had been lost since.
    digests = {shard.digest for shard in plan.every}
    losses.check_made(run.config.store, [(one, digests) for one in (plan.ingest, *(p.step for p in plan.planned))])
    emitted, parts = tally.pop("used"), tally.pop("parts")
    counts = {o: sum(n for key, n in tally.items() if key.startswith(o)) for o in ("kept", "dropped", "quarantined")}
    counts |= {"rows_in": sum(entry.rows for entry in plan.entries), "emitted": emitted, "parts": parts}
    if counts["kept"] + counts["dropped"] + counts["quarantined"] != counts["rows_in"]:
        raise Defect(f"the ledger does not add up: {counts}; the mix is not published")
    if emitted != plan.sampled["rows"]:
        uses = f"{emitted} uses are in the ledger, {plan.sampled['rows']} in the batch plan"
        raise Defect(f"{uses}; the mix is not published")
    manifest = manifest_of(run, plan, step, url, counts)
    losses.check_written(run.config, url, manifest["files"])
    subject = subject_of(run, plan, url)
    before = parent_of(run, plan)
    manifest["parent"] = before and before["version"]
    manifest["changes"] = before and changes_since(run, plan, subject, before, manifest)
    markdown = report(run, plan, subject, manifest, {})
    files.write_bytes(files.join(url, "README.md"), card(manifest).encode())
    manifest["files"]["README.md"] = manifests.file_facts(files.join(url, "README.md"))
    mixes.register(run.config.store, url, run.config.name, plan.version)  # first: from then on cleaning knows of it
    manifests.publish(url, manifest)
    announce(run, url, manifest)
    for done in (step, subject.step):
        files.remove(done.url)
    return url, manifest, markdown


def stands(step: Step, layout: Layout, part: int) -> bool:
    """Whether a part that was written before is there in its size."""
    return files.has_size(layout.part_url(part), step.facts(f"part-{part:05d}")["bytes"])


def announce(run: Run, url: str, manifest: dict[str, Any]) -> None:
    """Make a mix that stands the newest of its name and say so, unless it is that, or is empty.

    The event comes first: a crash in between makes it come twice, never not at all.
    """
    name, version = manifest["name"], manifest["version"]
    folder = files.join(run.config.emit.out, name)
    if manifest["counts"]["emitted"] and manifests.latest(folder) != version:
        run.watch.event(PUBLISHED, published(url, manifest))
        manifests.point_latest(folder, version)


def published(url: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """What the event says of a mix: enough for a training job to begin."""
    facts = {key: manifest[key] for key in ("name", "version", "parent")}
    return {"url": files.absolute(url), **facts, **manifest["counts"], **manifest["batches"]}


def manifest_of(run: Run, plan: Plan, step: Step, url: str, counts: dict[str, int]) -> dict[str, Any]:
    """`mix.json`: what the mix is, what it was made from, and the digests of its files."""
    config, sampler, listed = run.config, run.config.sample, {}
    # By number, not by listing: a commit that is missing must be an error, not a shorter manifest.
    for name in (f"part-{number:05d}" for number in range(counts["parts"])):
        facts = step.facts(name)
        listed[f"data/{name}.parquet"] = {key: facts[key] for key in ("bytes", "digest", "rows")}
    for number in range(len(blocks(plan.entries))):
        for folder in step.facts(f"block-{number:05d}")["written"]:
            path = f"{folder}/part-{number:05d}.parquet"
            listed[path] = manifests.file_facts(files.join(url, path))
    return {
        "name": config.name,
        "version": plan.version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": config.seed,
        "config": config.model_dump(mode="json") | {"store": files.absolute(config.store)},
        "counts": counts,
        "batches": {
            "steps": plan.sampled["steps"],
            "batch_size": sampler.batch_size,
            "world_size": sampler.world_size,
            "superbatch": sampler.superbatch,
        },
        "columns": {role: config.roles.get(role) for role in ("image", "text", "key", "source")},
        "parents": [{"file": e.file, "digest": e.digest, "rows": e.rows} for e in plan.entries],
        "damaged": [{"file": file, "why": why} for file, why in sorted(plan.damaged.items())],
        "steps": [
            {"label": label, "stage": s.stage, "kind": s.kind, "fingerprint": s.fingerprint}
            for label, s in [
                ("ingest", plan.ingest),
                *((one.label, one.step) for one in plan.planned),
                ("mix", plan.mix),
                ("sample", plan.sample),
            ]
        ],
        "reuses": plan.reuses,
        "versions": versions(("mixwright", "numpy", "pyarrow", "torch", "open_clip_torch", "pillow")),
        "files": listed,
    }
