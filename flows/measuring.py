"""Seconds and stored bytes of every stage, from runs over samples: a fixed part, one a shard, one a row.

Four runs: one in a fresh process, whose stages also load libraries and models, as those of the real run will; the same
again; the same rows in more shards; more rows. Shortened trainings are timed by themselves and made whole again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.curate import Curate
from flows.run import LIGHT, Run
from flows.runners import IdleRunner
from flows.sampled import Piece, rows_of, thinned, write
from flows.sampling_run import Child, Ran, child
from flows.scanning import Scan
from flows.shrinking import factors, shrunk, with_batches

TRAININGS = ("fit", "plan")
"""Tasks that shortened sections train in."""
BOUNDED = ("choose", "collect", "write report")
"""Tasks of the report whose galleries and charts hold no more, however many rows there are."""
TASK_SECONDS, STAGE_SECONDS = 0.02, 0.03
"""What Prefect takes for a task run and for a stage with its artifact, with a server on the same machine: measured with
idle task runs, see `tests/benchmarks/bench_passport.py --idle`."""
SHARDS = 8


@dataclass
class Cost:
    """Seconds or bytes of one stage."""

    fixed: float = 0.0
    shard: float = 0.0
    row: float = 0.0
    apart: float = 0.0
    """Of tasks that take their time whatever the rows: trainings, the drawing of the report."""

    def of(self, shards: int, rows: int) -> float:
        """What so many shards with so many rows take."""
        return self.fixed + self.shard * shards + self.row * rows + self.apart


@dataclass
class Measured:
    """What the runs over samples have shown."""

    seconds: dict[str, Cost] = field(default_factory=dict)
    cpu: dict[str, Cost] = field(default_factory=dict)
    """CPU seconds: other work on the machine makes them little more."""
    bytes: dict[str, Cost] = field(default_factory=dict)
    cold: dict[str, float] = field(default_factory=dict)
    """Seconds in which a fresh process loads libraries and models, by the stage that does."""
    cold_cpu: dict[str, float] = field(default_factory=dict)
    """The same in CPU seconds."""
    calls: dict[str, list[list[Any]]] = field(default_factory=dict)
    """Tasks of each stage: name, items, calls, seconds; of the largest run."""
    kept: dict[str, float] = field(default_factory=dict)
    """Share of the rows that each select kept, of those that it saw."""
    survivors: dict[str, int] = field(default_factory=dict)
    """Sampled rows of each group that are left for the mix."""
    rows: int = 0
    shards: int = 0
    batch_size: int = 0
    """Of the largest run."""


@dataclass(frozen=True)
class Sizes:
    """Rows and shards of a run over a sample."""

    rows: int
    shards: int


def measured(
    config: Curate, found: Scan, pieces: list[Piece], done: Collection[str], say: Callable[[str], None]
) -> Measured:
    """Run the plain pipeline over samples in a temporary folder; neither store nor mixes are touched.

    Args:
        config: The user's configuration.
        found: The input.
        pieces: The sample.
        done: Stages that the store has done before: libraries that they would load are loaded by those behind them.
        say: Is told how far it is.

    Raises:
        RunFailed: A run over the sample failed.
    """
    real = len(found.entries)
    workers = max(1, min(config.runner.workers, real))
    rows = rows_of(pieces)
    few, many = min(real, workers), min(real, max(SHARDS, 2 * workers))
    small = max(1, rows // 4)
    sizes = [Sizes(small, few), Sizes(small, few), *([Sizes(small, many)] if many > few else []), Sizes(rows, many)]
    with tempfile.TemporaryDirectory(prefix="mixwright-check-") as folder:
        runs = Samples(config, pieces, sum(found.rows.values()), workers, folder)
        with child(folder) as one:
            say(f"run 1 of {len(sizes) + bool(done)} over a sample: {small:,} rows")
            cold = runs.run(one, sizes[0], "cold", learn=True)
            runs.survivors = sum(cold["groups"].values())
            found_: list[tuple[Sizes, Ran]] = []
            for number, size in enumerate(sizes[1:], 1):
                say(f"run {number + 1} of {len(sizes) + bool(done)} over a sample: {size.rows:,} rows")
                learn = number == len(sizes) - 1
                found_.append((Sizes(size.rows, runs.shards), runs.run(one, size, f"{number}", learn=learn)))
        if done:
            say(f"run {len(sizes) + 1} of {len(sizes) + 1} over a sample: what a new process takes to load")
            with child(folder) as fresh:
                cold = runs.run(fresh, sizes[0], "1", learn=True, again=done)
        return fitted(config, cold, found_, sum(found.rows.values()), runs.batch_size)


class Samples:
    """Runs over one sample in one folder."""

    def __init__(self, config: Curate, pieces: list[Piece], rows: int, workers: int, folder: str) -> None:
        self._config, self._pieces, self._folder = config, pieces, folder
        self._rows, self._workers = rows, workers
        self._inputs: dict[str, list[dict[str, Any]]] = {}
        self.survivors = 0
        """Rows of the smallest run that selection kept; 0: not known yet."""
        self.batch_size = config.sample.batch_size
        self.shards = 0
        """Files of the last run."""

    def run(self, one: Child, size: Sizes, name: str, *, learn: bool, again: Collection[str] = ()) -> Ran:
        """Run one size, in a store of its own; `again`: in the one that is there, all stages but these anew."""
        folder = Path(self._folder, name)
        if again:
            self._forget(folder, again)
        else:
            thin = thinned(self._pieces, size.rows)
            self._inputs[name], self.shards = write(self._config, thin, size.shards, str(folder))
        ratio = size.rows / max(1, self._rows)
        values = shrunk(self._config, self._inputs[name], str(folder), ratio, learn=learn)
        values["runner"]["workers"] = self._workers
        values = with_batches(values, self.survivors or size.rows)
        self.batch_size = values["sample"]["batch_size"]
        return one.run(values)

    def _forget(self, folder: Path, done: Collection[str]) -> None:
        """Remove what stages that are not done made, so that they are to be done."""
        shutil.rmtree(folder / "out", ignore_errors=True)
        for place in [*(folder / "store").glob("[!_]*/*")]:
            stage = place.parent.name if place.parent.name in ("ingest", "embed", "annotate", "mix", "sample") else ""
            if (stage or f"{place.parent.name}/{place.name}") not in done:
                shutil.rmtree(place)


def fitted(config: Curate, cold: Ran, runs: list[tuple[Sizes, Ran]], rows: int, batch_size: int) -> Measured:
    """The costs that explain what was measured; `runs` are warm, the first small, the last of the most rows."""
    (small, first), (large, last) = runs[0], runs[-1]
    between = runs[1] if len(runs) > 2 else runs[0]
    told = Measured(rows=large.rows, shards=large.shards, batch_size=batch_size)
    whole = factors(config)
    for stage, facts in last["stages"].items():
        apart = TRAININGS if stage in whole else BOUNDED if stage == "report" else ()
        factor = whole[stage] * _growth(config, stage, large.rows, rows) if stage in whole else 1.0
        for name, kept in (("seconds", told.seconds), ("cpu", told.cpu), ("bytes", told.bytes)):
            seen = [_value(run, stage, name) for run in (first, between[1], last)]
            if apart and name == "bytes":
                kept[stage] = Cost(fixed=seen[-1])
                continue
            alone = [_of_tasks(run, stage, apart, name) for run in (first, between[1], last)]
            kept[stage] = _line([v - part for v, part in zip(seen, alone, strict=True)], small, between[0], large)
            kept[stage].apart = alone[-1] * factor
        # The cold run trains what a learned mix trains, the first warm one does not.
        for name, loads in (("seconds", told.cold), ("cpu", told.cold_cpu)):
            loading = _value(cold, stage, name) - _value(first, stage, name)
            loads[stage] = max(0.0, loading - (_of_tasks(last, stage, apart, name) if stage == "mix" else 0.0))
        told.calls[stage] = facts["calls"]
    told.kept = {row["stage"]: row["kept"] / row["rows_in"] for row in last["funnel"] if row["rows_in"]}
    told.survivors = last["groups"]
    return told


def _value(run: Ran, stage: str, name: str) -> float:
    return float(run["stages"].get(stage, {}).get(name, 0.0))


def _of_tasks(run: Ran, stage: str, names: Collection[str], measure: str) -> float:
    """Seconds of some tasks of a stage; of CPU seconds the same part of the stage's."""
    calls = run["stages"].get(stage, {}).get("calls", [])
    seconds = float(sum(took for task, _, _, took in calls if task in names))
    return seconds * _value(run, stage, measure) / (_value(run, stage, "seconds") or 1.0)


def _line(seen: list[float], small: Sizes, between: Sizes, large: Sizes) -> Cost:
    """Fixed part, part of a shard and of a row, from what was seen of the three sizes; none is below 0."""
    a, b, c = seen
    more = between.shards - small.shards
    shard = max(0.0, (b - a) / more) if more > 0 else 0.0
    rows = large.rows - between.rows
    row = max(0.0, (c - b - shard * (large.shards - between.shards)) / rows) if rows > 0 else 0.0
    return Cost(max(0.0, c - shard * large.shards - row * large.rows), shard, row)


def _growth(config: Curate, stage: str, sampled: int, rows: int) -> float:
    """How many times as many rows the real training has, where the sample has fewer than it takes.

    A mix trains for a number of steps, whatever the rows.
    """
    for one in config.select:
        if f"select/{one.kind}" == stage:
            most = getattr(getattr(one, "curves", None) or one, "train_rows", 0) * getattr(one, "buckets", 1)
            return min(most, rows) / max(1, min(most, sampled))
    return 1.0


def task_runs(config: Curate, calls: list[list[Any]], sampled: int, shards: int) -> int:
    """Task runs of a stage on so many shards, from those that it had on `sampled` ones."""
    run, count = Run(config, IdleRunner(), lambda line: None), 0
    for _, items, number, _ in calls:
        if not items or items != sampled:
            count += number
        else:
            heavy = number == items and items > LIGHT
            count += len(run.groups(range(shards), 16 if heavy else LIGHT))
    return count
