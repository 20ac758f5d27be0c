"""A dry run: what a run would do, what is done already, and about how long and large the rest is."""

from __future__ import annotations

from dataclasses import dataclass

from configs.curate import Curate
from flows import kept_passports
from flows.emitting import is_whole
from flows.freezing import frozen_url
from flows.nights import changes_ahead
from flows.pipeline import examine, plan_per_shard
from flows.planning import emit_step, ingest_step, mix_step, planned_draws, sample_step, version_of
from flows.planning import select_steps as plan_selects
from flows.reaching import reaching
from flows.scanning import Scan
from flows.taking import known_shards
from storage import files
from storage.fingerprints import digest
from storage.shards import Shard
from storage.steps import Step

SAMPLED_COMMITS = 20
"""Commit points read for an estimate: enough for a mean, few enough for 100,000 shards."""


Row = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class Forecast:
    """What `--dry-run` prints."""

    rows: list[Row]
    """Stage, kind, to do, done, estimate."""
    lines: list[str]


@reaching
def forecast(config: Curate) -> Forecast:
    """The plan of a run against the store as it is. Reads listings and footers, computes nothing."""
    found, _ = examine(config)
    known = known_shards(found)
    every = known.every
    total = sum(found.rows.values())
    new = [entry for entry in found.entries if entry.file not in found.facts]
    new_rows = sum(found.rows.get(entry.file, 0) for entry in new)
    told = kept_passports.read(config)
    table = [_shard_row("ingest", ingest_step(config), every, found, new_rows)]
    for one in plan_per_shard(config, vocabulary_digest(config), every)[0]:
        table.append(_shard_row(one.label, one.step, every, found, new_rows))
    unknown = bool(new or found.waiting)
    steps_ahead, version = global_steps(config, every, known.entries, unknown)
    whole = version is not None and is_whole(files.join(config.emit.out, config.name, version))
    table += [_global_row(label, step, done=whole) for label, step in steps_ahead]
    table.append(("emit", "parquet", *(("-", "done") if whole else ("all", "-")), "-"))
    size = sum(entry.size for entry in found.entries)
    steps = _most_draws(config, most_kept(config, total)) // config.sample.superbatch
    emitted = steps * config.sample.batch_size
    folder = files.join(config.emit.out, config.name)
    lines = [
        f"{len(found.entries)} files, {total:,} rows, {in_bytes(size)}; {len(new)} files are new or have changed",
        *_waiting(found),
        f"version {version} is there already, in {folder}"
        if whole
        else f"at most {emitted:,} rows emitted, about {in_bytes(round(size / max(1, total) * emitted))}, in {folder}; "
        f"emitting needs as much again in {config.store} for a while",
    ]
    lines += [*changes_ahead(config, found), *emptiness(config, found)]
    lines += [f"cannot be read: {name}: {why}" for name, why in sorted(found.unreadable.items())]
    lines += [f"damaged, will be quarantined as a whole: {name}: {why}" for name, why in sorted(found.damaged.items())]
    return Forecast([_by_passport(row, told) for row in table], lines)


def _by_passport(row: Row, told: kept_passports.Passport | None) -> Row:
    """The row with the time that the passport of the configuration says, if there is one and something is to do."""
    seconds = {one["stage"]: one["seconds"] for one in (told or {}).get("stages", [])}.get(row[0])
    return row if row[2] == "-" or not seconds else (*row[:4], f"{seconds:,.1f} s by the passport")


def emptiness(config: Curate, found: Scan) -> list[str]:
    """A line if no batch can come together, however many rows are kept."""
    rows = _most_draws(config, most_kept(config, sum(found.rows.values())))
    if found.waiting or rows >= config.sample.superbatch:
        return []
    return [
        f"the mix would be empty: a batch needs a superbatch of {config.sample.superbatch:,} draws, of {rows:,}; "
        "lower `sample.batch_size` or `sample.filter_ratio`, or set `mix.budget`"
    ]


def most_kept(config: Curate, rows: int) -> int:
    """Rows that the selects' targets leave of so many."""
    for section in config.select:
        if (target := section.target) and target.unit in ("rows", "fraction"):
            rows = min(rows, target.wanted(rows))
    return rows


def _most_draws(config: Curate, rows: int) -> int:
    """Draws of a mix if all of these rows are kept."""
    draws = planned_draws(config)
    return rows if draws is None else draws


def _waiting(found: Scan) -> list[str]:
    """A line on what has to be converted first; how many rows that has nobody knows before."""
    units = found.waiting
    if not units:
        return []
    size = in_bytes(sum(unit.size for unit in units))
    return [f"{len(units)} units, {size}, are converted to Parquet first; their rows are not in these figures"]


def vocabulary_digest(config: Curate) -> str | None:
    """Digest of the annotator's frozen state; None if it has none, or none yet."""
    url = frozen_url(config) if config.annotate else None
    return digest(files.read_bytes(url)) if url and files.exists(url) else None


def _shard_row(label: str, step: Step, every: list[Shard], found: Scan, new_rows: int) -> Row:
    committed = step.committed()
    done = [shard for shard in every if shard.digest in committed]
    todo_rows = sum(s.rows for s in every if s.digest not in committed) + new_rows
    new = {e.file for e in found.entries if e.file not in found.facts} - {*found.unreadable} - {*found.damaged}
    todo = len(every) - len(done) + len(new)
    left = f"{todo} shards, {todo_rows:,} rows" if todo > 0 else "-"
    return (label, step.kind, left, f"{len(done)} shards", _time(step, done, todo_rows))


def _time(step: Step, done: list[Shard], rows: int) -> str:
    """Seconds for `rows` more rows, at the pace of shards that this very step has done before."""
    if not rows:
        return "-"
    facts = [step.facts(shard.digest) for shard in done[:SAMPLED_COMMITS]]
    seen, seconds = sum(f["rows"] for f in facts), sum(f["seconds"] for f in facts)
    return f"{rows * seconds / seen:,.0f} s of one worker" if seen else "not measured yet"


def global_steps(
    config: Curate, every: list[Shard], entries: list[Shard], changed: bool
) -> tuple[list[tuple[str, Step | None]], str | None]:
    """Label and step of what goes over all rows, and the version of the mix; None where it is not known yet."""
    labels = [f"select/{section.kind}" for section in config.select] + ["mix", "sample"]
    if changed or (config.annotate and frozen_url(config) and vocabulary_digest(config) is None):
        return [(label, None) for label in labels], None
    _, view = plan_per_shard(config, vocabulary_digest(config), every)
    selects, view = plan_selects(config, view, every)
    mixing = mix_step(config, view, every)
    sampling = sample_step(config, view, mixing.step)
    steps = [*(one.step for one in selects), mixing.step, sampling.step]
    writing = emit_step(config, view, sampling.step, entries, ingest_step(config))
    return [*zip(labels, steps, strict=True)], version_of(writing)


def _global_row(label: str, step: Step | None, *, done: bool) -> Row:
    done = done or (step is not None and step.is_done())
    return (label, step.kind if step else "", "-" if done else "all", "done" if done else "-", "-")


def in_bytes(size: float) -> str:
    """Bytes in a unit that suits them."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
