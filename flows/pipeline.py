"""Curation as one plain function: raw shards in; embedded, annotated, scored, selected, mixed, batched; a mix out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from configs.curate import Curate
from configs.errors import ConfigError, PlaceError, StageError, TooMuchQuarantined
from flows import clusters, kept_passports, selecting, stages
from flows.emitting import Plan, emit
from flows.losses import Made, check_made, check_taken, losses_told
from flows.nights import reused, tell_changes
from flows.planning import (
    Planned,
    annotate_step,
    embed_step,
    emit_step,
    ingest_step,
    input_view,
    mix_step,
    sample_step,
    score_steps,
    select_steps,
    version_of,
)
from flows.reaching import reaching
from flows.run import Run
from flows.runners import IdleRunner, Runner
from flows.scanning import Scan, check_schemas, scan
from flows.stages import timed
from flows.taking import Known, convert, known_shards, take_in
from flows.watching import Watch
from storage import files, together
from storage.leases import Lease
from storage.ledger import DAMAGED_FILE
from storage.shards import Shard
from storage.view import View
from tasks.annotate import vocabularies
from tasks.ingest import PROVIDES
from tasks.score import scores_of


@dataclass(frozen=True)
class Mix:
    """The outcome of a run."""

    url: str
    manifest: dict[str, Any]
    card: str
    """The mix card in Markdown; empty if the mix was there before."""
    seconds: dict[str, float]
    task_runs: int

    @property
    def emitted(self) -> int:
        """Rows in the mix."""
        return int(self.manifest["counts"]["emitted"])

    @property
    def message(self) -> str:
        """One sentence about the mix."""
        facts, batches = self.manifest["counts"], self.manifest["batches"]
        told = (
            f"of {facts['rows_in']:,} rows in, {facts['kept']:,} were kept, {facts['dropped']:,} dropped and "
            f"{facts['quarantined']:,} quarantined{self._damaged}"
        )
        if not self.emitted:
            return f"the mix is empty: {told}. {self._why_empty()} See {self.url}/report/index.html"
        size = batches["batch_size"]
        return f"{self.emitted:,} rows in {batches['steps']:,} batches of {size:,}; {told}: {self.url}"

    @property
    def _damaged(self) -> str:
        """What to say of files that are quarantined as a whole."""
        found = self.manifest.get("damaged", [])
        if not found:
            return ""
        return f"; {len(found)} damaged files are quarantined as a whole, first {found[0]['file']}: {found[0]['why']}"

    def _why_empty(self) -> str:
        facts, batches = self.manifest["counts"], self.manifest["batches"]
        if not facts["rows_in"]:
            damaged = self.manifest.get("damaged")
            return "No file with rows could be read." if damaged else "The input has no rows."
        if not facts["dropped"]:
            return "Every row was quarantined."
        return (
            f"No whole superbatch of {batches['superbatch']:,} draws came together: keep more rows in `select`, raise "
            "`mix.budget`, or lower `sample.batch_size`."
        )


def plan_per_shard(config: Curate, state: str | None, every: list[Shard]) -> tuple[list[Planned], View]:
    """Every per-shard step and the view behind them; `state` is the digest of the annotator's frozen state."""
    view = input_view(config).after(ingest_step(config), PROVIDES)
    planned: list[Planned] = []
    if config.embed:
        one, view = embed_step(config, view)
        planned.append(one)
    if config.annotate:
        one, view = annotate_step(config, view, state)
        planned.append(one)
    scores, view = score_steps(config, view, every)
    return [*planned, *scores], view


def score_columns(config: Curate, planned: list[Planned]) -> list[str]:
    """The scores that the mix carries.

    Raises:
        ValueError: `emit.scores` names one that nothing makes.
    """
    made = sorted({name for one in planned if one.step.stage == "score" for name in scores_of(one.method)})
    if config.emit.concepts and not config.annotate:
        raise StageError("`emit.concepts` asks for concepts, which nothing makes; add the section `annotate`")
    for name in config.emit.scores or []:
        if name not in made:
            raise ConfigError(f"`emit.scores` names {name!r}; `score` makes {', '.join(made) or 'nothing'}")
    return made if config.emit.scores is None else config.emit.scores


def stop_if_too_much_is_quarantined(run: Run, view: View, known: Known) -> None:
    """End the run if more rows failed than `max_quarantine_fraction` allows.

    The sum over the stages is a cheap upper bound; rows are looked at only where that is above the limit.

    Raises:
        TooMuchQuarantined: With the share, the limit, and the commonest reasons.
    """
    limit = run.config.max_quarantine_fraction * sum(shard.rows for shard in known.entries)
    lost = sum(shard.rows for shard in known.entries if shard.file in known.damaged)
    failing: Counter[Shard] = Counter()
    for step in view.failing:
        facts = together.facts(step, [shard.digest for shard in known.every])
        failing.update({s: one["failures"] for s, one in zip(known.every, facts, strict=True) if one["failures"]})
    if lost + sum(failing.values()) <= limit:
        return
    reasons: Counter[str] = Counter({DAMAGED_FILE: lost} if lost else {})
    for shard in failing:
        lost += shard.rows - int(np.count_nonzero(view.alive(shard)))
        for step in view.failing:
            reasons.update(step.failures(shard.digest)["reason"].to_pylist())
    if lost > limit:
        told = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common(4))
        raise TooMuchQuarantined(
            f"{lost:,} of {sum(shard.rows for shard in known.entries):,} rows would be quarantined, more than "
            f"`max_quarantine_fraction` {run.config.max_quarantine_fraction:g} allows ({told}); mend the input, or "
            "raise the limit: nothing that is done is done again"
        )


@reaching
def examine(config: Curate) -> tuple[Scan, list[Planned]]:
    """Everything that can be refused before work: the configuration against itself and against the input.

    Raises:
        MixwrightError: Of the kind that says what is wrong: `StageError`, `ColumnError`, `PlaceError`, …
    """
    clusters.check(config)
    planned, view = plan_per_shard(config, None, [])
    selects, view = select_steps(config, view, [])
    mixing = mix_step(config, view, [])
    for one in [*(one for one in planned if one.step.stage == "score"), *selects, mixing]:
        if hasattr(one.method, "check"):
            one.method.check()
    planned += [*selects, mixing, sample_step(config, view, ingest_step(config))]
    vocabulary = getattr(config.annotate, "vocabulary", None)
    if vocabulary:
        vocabularies.check(vocabulary, config.annotate.cleaning)  # type: ignore[union-attr]
    for setting, url in (("store", config.store), ("emit.out", config.emit.out)):
        try:
            files.try_writing(url)
        except OSError as error:
            raise PlaceError(f"`{setting}` is {url!r}; nothing can be written there: {error}") from None
    found = scan(config)
    check_schemas(config, found, planned, score_columns(config, planned))
    return found, planned


@reaching
def curate(config: Curate, runner: Runner, log: Callable[[str], None], watch: Watch | None = None) -> Mix:
    """Curate one mix; `watch` is told how far it is.

    Raises:
        MixwrightError: The configuration or the input is refused; nothing was done.
        RunFailed: Some work failed; what was finished stays, a rerun goes on from there.
    """
    made: Made = []
    with lease_of(config, runner, log) as lease, losses_told(config, made):
        return _curate(Run(config, runner, log, watch), made, lease)


def lease_of(config: Curate, runner: Runner, log: Callable[[str], None]) -> Lease:
    """The right to use the store, not yet taken; who only looks whether there is work does not wait for it."""
    return Lease(config.store, config.name, log, wait=not isinstance(runner, IdleRunner))


def _take_in(run: Run, made: Made, lease: Lease) -> tuple[Scan, Known, pa.Schema]:
    """Take the store, then in what there is: the inputs, their shards, and the schema of the mix."""
    config = run.config
    lease.take_if_there()  # before the first listing; else after what may be refused
    found, planned = examine(config)
    lease.take()
    with timed(run, "ingest"):
        if found.pending:
            found = convert(run, found)
            # Before the shards are read: a column of a wrong type is told, never taken for damage.
            check_schemas(config, found, planned, score_columns(config, planned))
        take_in(run, found)
    check_taken(run, found)
    schema = check_schemas(config, found, planned, score_columns(config, planned))
    known = known_shards(found)
    made.append((ingest_step(config), {shard.digest for shard in known.every}))
    return found, known, schema


def _curate(run: Run, made: Made, lease: Lease) -> Mix:
    """See `curate`; `made` grows by what is finished."""
    config = run.config
    found, known, schema = _take_in(run, made, lease)
    every = known.every
    tell_changes(run, known)
    view = input_view(config).after(ingest_step(config), PROVIDES)
    done: list[Planned] = []
    if config.embed:
        one, view = embed_step(config, view)
        stages.embed(run, one, every)
        done.append(one)
        run.notes += getattr(one.method, "notes", [])
    if config.annotate:
        one, view = stages.annotate_all(run, view, every)
        done.append(one)
    scores, view = score_steps(config, view, every)
    stages.score(run, scores, every)
    run.stop_if_failed()
    made += [(one.step, {shard.digest for shard in every}) for one in [*done, *scores]]
    check_made(config.store, made)
    stop_if_too_much_is_quarantined(run, view, known)

    selects, view = select_steps(config, view, every)
    selecting.select(run, selects, every)
    mixing = mix_step(config, view, every)
    mixed = stages.mix(run, mixing, every)
    sampling = sample_step(config, view, mixing.step)
    sampled = stages.sample(run, sampling, mixing.step, mixed["draws"], every)
    survivors = sum(mixed["rows"])
    if survivors and mixed["draws"] > survivors:
        run.warn("repeats", f"{mixed['draws']:,} draws from {survivors:,} rows: rows repeat")

    writing = emit_step(config, view, sampling.step, known.entries, ingest_step(config))
    plan = Plan(
        version=version_of(writing),
        schema=schema,
        scores=tuple(score_columns(config, scores)),
        view=view,
        entries=known.entries,
        every=every,
        keeper_of=known.keeper_of,
        damaged=known.damaged,
        planned=[*done, *scores, *selects],
        ingest=ingest_step(config),
        mix=mixing.step,
        sample=sampling.step,
        mixed=mixed,
        sampled=sampled,
        reuses=reused(config, found),
    )
    url, manifest, card = emit(run, plan)
    kept_passports.tell(run)
    return Mix(url, manifest, card, run.seconds, run.task_runs)


@reaching
def embed(config: Curate, runner: Runner, log: Callable[[str], None], watch: Watch | None = None) -> str:
    """Take in and embed what `curate` of the same configuration would, and stop there; returns one sentence about it.

    Raises:
        MixwrightError: The configuration or the input is refused; nothing was done.
        RunFailed: Some work failed; what was finished stays, a rerun goes on from there.
    """
    if not config.embed:
        raise StageError("the configuration has no section `embed`, so there is nothing to embed ahead of a curation")
    made: Made = []
    with lease_of(config, runner, log) as lease, losses_told(config, made):
        return _embed(Run(config, runner, log, watch), made, lease)


def _embed(run: Run, made: Made, lease: Lease) -> str:
    """See `embed`."""
    config = run.config
    every = _take_in(run, made, lease)[1].every
    one, _ = embed_step(config, input_view(config).after(ingest_step(config), PROVIDES))
    digests = {shard.digest for shard in every}
    waiting = len(digests - one.step.committed())
    stages.embed(run, one, every)
    run.stop_if_failed()
    made.append((one.step, digests))
    check_made(config.store, made)
    rows = sum(shard.rows for shard in every)
    return f"{waiting} of {len(every)} shards embedded, the others were before: {rows:,} rows in {config.store}"
