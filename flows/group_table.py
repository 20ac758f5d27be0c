"""The groups of the mix before anything runs: rows, bytes and tokens of each, and what the mixing law makes of them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.curate import Curate
from configs.methods.score import Tokens as TokensSection
from configs.section import Section
from flows.planning import planned_budget
from flows.sampled import Piece, named, usable
from flows.scanning import Scan
from storage import objects, shards
from storage.broken import BrokenFile, parquet_errors
from storage.shards import InputFile
from storage.states import Checkpoint
from storage.view import TEXT
from tasks import load, mix
from tasks.mix import Group, Proportions
from tasks.mix.allotting import allot
from tasks.mix.budgets import draws_within
from tasks.mix.ess import mix_efficiency
from tasks.mix.lists import EVERYTHING, NOTHING
from tasks.score.tokens import Tokens

COUNTED_FILES, COUNTED_ROWS = 512, 20_000_000
"""Inputs up to this size are counted by group; the shares of larger ones are those of the sample."""
Line = dict[str, Any]


def group_name(config: Curate) -> str | None:
    """The column whose values are the groups, or the kind that makes them; None: there is one group."""
    groups = config.mix.groups
    return groups.kind if isinstance(groups, Section) else groups or config.roles.get("source")


def counted(config: Curate, found: Scan, pieces: list[Piece]) -> tuple[dict[str, int], bool]:
    """Rows by group, and whether they are counted or estimated; nothing where the groups are made in the run."""
    entries, total = usable(found), sum(found.rows.values())
    column = group_name(config)
    if isinstance(config.mix.groups, Section) or not entries:
        return {}, not entries
    if column is None:
        return {EVERYTHING: total}, True
    exact = len(entries) <= COUNTED_FILES and total <= COUNTED_ROWS
    if exact:
        with objects.threads(8) as pool:
            parts = list(pool.map(lambda entry: _counted(entry, column), entries))
    else:
        parts = [_tally(_labels(named(piece, [column])[column])) for piece in pieces]
    rows: dict[str, int] = {}
    for part in parts:
        for name, count in part.items():
            rows[name] = rows.get(name, 0) + count
    seen = sum(rows.values())
    return {name: rows[name] if exact else round(rows[name] * total / max(1, seen)) for name in sorted(rows)}, exact


def _counted(entry: InputFile, column: str) -> dict[str, int]:
    """Rows by group of one file; nothing of one whose content is damaged, which the run will quarantine."""
    with suppress(BrokenFile), parquet_errors(entry.size):
        return _tally(_labels(shards.read(entry, (column,))[column]))
    return {}


def _labels(column: pa.ChunkedArray) -> pa.Array:
    labels = pc.fill_null(shards.as_label(column), NOTHING)
    return labels.combine_chunks() if isinstance(labels, pa.ChunkedArray) else labels


def _tally(labels: pa.Array) -> dict[str, int]:
    found = labels.value_counts()
    return dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True))


def tokenizer_of(config: Curate) -> TokensSection:
    """What tokens are: as a listed score `tokens` has it, or words."""
    return next((one for one in config.score if isinstance(one, TokensSection)), TokensSection())


def sizes(config: Curate, pieces: list[Piece]) -> dict[str, dict[str, float]]:
    """Of the sampled rows by group, and of all as "": {rows, bytes, tokens}; tokens are 0 where there are no texts."""
    roles, column = config.roles, group_name(config)
    column = None if isinstance(config.mix.groups, Section) else column
    counter = Tokens(tokenizer_of(config))
    found: dict[str, dict[str, float]] = {}
    for piece in pieces:
        n = piece.table.num_rows
        measures = {"rows": np.ones(n), "bytes": np.zeros(n), "tokens": np.zeros(n)}
        if "image" in roles:
            measures["bytes"] += _lengths(shards.as_binary(named(piece, [roles["image"]])[roles["image"]]))
        if "text" in roles:
            text = shards.as_text(named(piece, [roles["text"]])[roles["text"]])
            measures["bytes"] += _lengths(text.cast(pa.large_binary()))
            tokens = counter.run(pa.table({TEXT: text})).table["tokens"]
            measures["tokens"] += pc.fill_null(tokens, 0).to_numpy()
        labels = np.array(_labels(named(piece, [column])[column]).to_pylist() if column else [EVERYTHING] * n, object)
        for name in ["", *np.unique(labels).tolist()]:
            mine = labels == name if name else np.ones(n, bool)
            sums = found.setdefault(name, dict.fromkeys(measures, 0.0))
            for measure, values in measures.items():
                sums[measure] += float(values[mine].sum())
    return found


def _lengths(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(pc.fill_null(pc.binary_length(column), 0).to_numpy(), np.float64)


def table(
    config: Curate, rows: dict[str, int], measures: dict[str, dict[str, float]], survivors: dict[str, int]
) -> list[Line]:
    """A line a group: {group, rows, bytes, tokens, kept}; None is what is not known.

    Args:
        config: The run's.
        rows: Of each group; empty where the run makes the groups.
        measures: As `sizes` tells them.
        survivors: Sampled rows of each group that selection kept; empty if nothing was run.
    """
    if not rows:
        kept = sum(survivors.values())
        blank: Line = {"rows": None, "bytes": None, "tokens": None, "kept": None}
        return [{"group": name, **blank, "share": n / max(1, kept)} for name, n in sorted(survivors.items())]
    found: list[Line] = []
    for name, n in rows.items():
        of = measures.get(name) or measures.get("") or {}
        sampled = of.get("rows", 0)
        line: Line = {"group": name, "rows": n}
        line |= {key: round(of[key] / sampled * n) if sampled else None for key in ("bytes", "tokens")}
        seen = measures.get(name, {}).get("rows", 0)
        found.append(line | {"kept": survivors.get(name, 0) / seen if survivors and seen else None})
    return found


def planned(config: Curate, lines: list[Line], total: int, overall: float) -> tuple[list[Line], dict[str, Any]]:
    """The groups with proportion, draws and epochs, and what is to be said of all of them together.

    Args:
        config: The run's.
        lines: As `table` makes them.
        total: Rows of the input.
        overall: Share of them that selection is expected to keep; of groups of which nothing else is known.

    Raises:
        ConfigError: The mixing law does not fit the groups.
    """
    told: dict[str, Any] = {"law": config.mix.kind, "draws": None, "rho": None, "ess": None, "notes": [], "short": None}
    left = [_left(line, total, overall) for line in lines]
    groups = [Group(line["group"], n, _size(config, line, n)) for line, n in zip(lines, left, strict=True) if n > 0]
    method = load(mix.METHODS, config.mix, seed=config.seed)
    if hasattr(method, "learn"):
        return lines, told | {"learned": learned(config)}
    if not groups:
        return lines, told
    names, rows = [group.name for group in groups], np.array([group.rows for group in groups], np.int64)
    budget = planned_budget(config)
    draws = int(rows.sum()) if budget.draws is None else budget.draws
    said: Proportions = method.plan(groups, draws, Checkpoint("", lambda line: None))
    if budget.size is not None:
        draws = draws_within(budget, said, groups, config.mix.max_epochs)
    counts, facts = allot(said, names, rows, draws, config.mix.max_epochs)
    drawn = counts.sum(axis=0)
    shares = {name: (int(n), float(n) / max(1, int(drawn.sum()))) for name, n in zip(names, drawn, strict=True)}
    told |= {"draws": int(drawn.sum()), "rho": mix_efficiency(drawn, rows) if drawn.any() else 0.0}
    told |= {"ess": told["rho"] * int(rows.sum()), "notes": [*facts["notes"], *facts["warnings"]]}
    if int(drawn.sum()) < draws:
        told["short"] = draws - int(drawn.sum())
    found = []
    for line, n in zip(lines, left, strict=True):
        draws_, share = shares.get(line["group"], (0, 0.0))
        found.append(line | {"proportion": share, "draws": draws_, "epochs": draws_ / n if n else None})
    return found, told


def _left(line: Line, total: int, overall: float) -> int:
    if line["rows"] is None:
        return round(line["share"] * overall * total)
    return round(line["rows"] * (overall if line["kept"] is None else line["kept"]))


def _size(config: Curate, line: Line, left: int) -> int:
    """Bytes or tokens of the rows that are left, as the budget counts them."""
    key = "bytes" if config.mix.budget_bytes else "tokens"
    return round((line[key] or 0) / max(1, line["rows"] or 0) * left)


def learned(config: Curate) -> str:
    """What is said of proportions that nobody knows before."""
    section: Any = config.mix
    how = f"{section.steps:,} steps of a small {section.proxy.kind} model in {section.rounds} rounds"
    return f"learned in the run, by {how}"


def refuse_unfit(config: Curate, rows: dict[str, int], exact: bool) -> None:
    """Raise ConfigError if the mixing law cannot do with the groups that there are, whatever selection keeps."""
    if exact and rows:
        lines: list[Line] = [{"group": n, "rows": r, "bytes": r, "tokens": r, "kept": 1.0} for n, r in rows.items()]
        planned(config, lines, sum(rows.values()), 1.0)
