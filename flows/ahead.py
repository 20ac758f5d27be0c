"""What a run would have to do of every stage, as the store is now."""

from __future__ import annotations

from dataclasses import dataclass

from configs.curate import Curate
from flows.emitting import is_whole
from flows.forecast import global_steps, vocabulary_digest
from flows.pipeline import plan_per_shard
from flows.planning import ingest_step, learns_from_rows
from flows.scanning import Scan
from flows.taking import known_shards
from storage import files
from storage.steps import Step


@dataclass
class Ahead:
    """What is left of one stage."""

    stage: str
    kinds: list[str]
    shards: int
    rows: int

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return not self.shards


def ahead(config: Curate, found: Scan) -> list[Ahead]:
    """Every stage but the conversion, in order; selects of one kind are one stage, as times are measured by it."""
    known, total = known_shards(found), sum(found.rows.values())
    every, vocabulary = known.every, vocabulary_digest(config)
    new = [entry for entry in found.entries if entry.file not in found.facts and entry.file not in found.unreadable]
    unknown = bool(new or found.waiting)
    new_rows = sum(found.rows.get(entry.file, 0) for entry in new)
    stages: dict[str, Ahead] = {}

    def add(stage: str, kind: str, shards: int, rows: int) -> None:
        one = stages.setdefault(stage, Ahead(stage, [], 0, 0))
        one.kinds.append(kind)
        one.shards, one.rows = max(one.shards, shards), max(one.rows, rows)

    def left(step: Step, anew: bool = False) -> tuple[int, int]:
        committed = set() if anew else step.committed()
        todo = [shard for shard in every if shard.digest not in committed]
        return len(todo) + len(new), sum(shard.rows for shard in todo) + new_rows

    add("ingest", "parquet", *left(ingest_step(config)))
    for one in plan_per_shard(config, vocabulary, every)[0]:
        mined = one.step.stage == "annotate" and vocabulary is None and _mines(config)
        anew = (unknown and learns_from_rows(one.method)) or mined
        add(one.label, one.step.kind, *left(one.step, anew))
    steps, version = global_steps(config, every, known.entries, unknown)
    whole = version is not None and is_whole(files.join(config.emit.out, config.name, version))
    everything = (len(every) + len(new), total)
    for label, step in steps:
        finished = whole or (step is not None and step.is_done())
        kind = {"mix": config.mix.kind, "sample": config.sample.kind}.get(label, label.split("/")[-1])
        add(label, kind, *((0, 0) if finished else everything))
    for label, kind in (("emit", "parquet"), ("report", "html")):
        add(label, kind, *((0, 0) if whole else everything))
    return list(stages.values())


def _mines(config: Curate) -> bool:
    """Whether the annotator has a state that a run makes first."""
    from flows.freezing import frozen_url

    return bool(config.annotate and frozen_url(config))
