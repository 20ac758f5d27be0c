"""The groups of the mix before anything runs: rows, bytes and tokens of each, and what the mixing law makes of them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.curate import Curate
from configs.errors import ConfigError
from configs.methods.score import Tokens as TokensSection
from configs.section import Section
from flows.group_fit import doubts
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
from tasks.mix.static import NAMED, some
from tasks.score.tokens import Tokens

COUNTED_FILES, COUNTED_ROWS = 512, 20_000_000
"""Inputs up to this size are counted by group; the shares of larger ones are those of the sample."""
Line: TypeAlias = dict[str, Any]
Sizes: TypeAlias = dict[str | None, dict[str, float]]


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


def sizes(config: Curate, pieces: list[Piece]) -> Sizes:
    """Of the sampled rows by group, of all as None: {rows, bytes, tokens}; tokens are 0 where there are no texts."""
    roles, column = config.roles, group_name(config)
    column = None if isinstance(config.mix.groups, Section) else column
    counter = Tokens(tokenizer_of(config))
    found: Sizes = {}
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
        for name in [None, *np.unique(labels).tolist()]:
            mine = np.ones(n, bool) if name is None else labels == name
            sums = found.setdefault(name, dict.fromkeys(measures, 0.0))
            for measure, values in measures.items():
                sums[measure] += float(values[mine].sum())
    return found


def _lengths(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(pc.fill_null(pc.binary_length(column), 0).to_numpy(), np.float64)


def table(rows: dict[str, int], measures: Sizes, survivors: dict[str, int]) -> list[Line]:
    """A line a group: {group, rows, bytes, tokens, kept}; None is what is not known.

    Args:
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
        of = measures.get(name) or measures.get(None) or {}
        sampled = of.get("rows", 0)
        line: Line = {"group": name, "rows": n}
        line |= {key: round(of[key] / sampled * n) if sampled else None for key in ("bytes", "tokens")}
        seen = measures.get(name, {}).get("rows", 0)
        found.append(line | {"kept": survivors.get(name, 0) / seen if survivors and seen else None})
    return found


def planned(
    config: Curate, lines: list[Line], total: int, overall: float, measures: Sizes
) -> tuple[list[Line], dict[str, Any]]:
    """The groups with proportion, draws and epochs, and what is to be said of all of them together.

    What rests on a sample refuses nothing: a law that does not fit the groups as they are expected to be is a note.
    `mean` is bytes or tokens of a draw, where the budget counts them.

    Args:
        config: The run's.
        lines: As `table` makes them.
        total: Rows of the input.
        overall: Share of them that selection is expected to keep; of groups of which nothing else is known.
        measures: As `sizes` tells them.
    """
    told: dict[str, Any] = dict.fromkeys(("draws", "rho", "ess", "short", "mean"))
    told |= {"law": config.mix.kind, "unit": unit_of(config), "notes": [], "warnings": []}
    method = load(mix.METHODS, config.mix, seed=config.seed)
    if hasattr(method, "learn"):
        notes = doubts(config, method, {line["group"]: line["rows"] for line in lines})
        return lines, told | {"learned": learned(config), "notes": notes}
    if not lines or not overall:
        return lines, told | {"notes": ["no sampled row is kept: nothing is planned"] if lines else []}
    notes = _unseen(lines)
    left = [_left(line, measures, total, overall) for line in lines]
    groups = [Group(line["group"], n, _size(config, line, n, measures)) for line, n in zip(lines, left, strict=True)]
    try:
        drawn, short, said = _drawn(config, method, groups)
    except ConfigError as error:
        notes.append(f"no proportions are planned: by the sample's groups the mix would be refused: {error}")
        return lines, told | {"notes": notes}
    rows = np.array([group.rows for group in groups], np.int64)
    told |= {"draws": int(drawn.sum()), "rho": mix_efficiency(drawn, rows) if drawn.any() else 0.0, "short": short}
    told |= {"ess": told["rho"] * int(rows.sum()), "notes": [*notes, *said]}
    if told["unit"] != "rows" and drawn.any():
        told["mean"] = float(drawn @ (np.array([group.size for group in groups]) / rows)) / told["draws"]
    found = []
    for line, n, draws in zip(lines, left, drawn.tolist(), strict=True):
        found.append(line | {"proportion": draws / max(1, told["draws"]), "draws": draws, "epochs": draws / n})
    return found, told | {"warnings": _uneven(config, found, told["rho"])}


def _uneven(config: Curate, lines: list[Line], rho: float) -> list[str]:
    """What the report would warn of, by the same limits, while there is still time."""
    limits, found = config.report, []
    if len(lines) > 1 and rho < limits.efficiency_warning:
        found.append(
            f"the shares of the groups are far from the natural ones: rho {rho:.2g}, below "
            f"`report.efficiency_warning` ({limits.efficiency_warning:g}): the mix will be worth few of its rows"
        )
    most = limits.epochs_warning
    over = [line for line in lines if most is not None and line["epochs"] > most]
    if over:
        worst = max(over, key=lambda line: line["epochs"])
        found.append(
            f"{len(over):,} of {len(lines):,} groups will be repeated more than {most:g} times "
            f"(`report.epochs_warning`), most {worst['group']!r}: {worst['epochs']:,.0f} times; set `mix.max_epochs`, "
            "or lower the budget"
        )
    return found


def _drawn(config: Curate, method: Any, groups: list[Group]) -> tuple[np.ndarray, int | None, list[str]]:
    """Draws of each group, int64 `(groups,)`; how many the budget is short of, or None; and what is said of them.

    Raises:
        ConfigError: The mixing law does not fit the groups.
    """
    names, rows = [group.name for group in groups], np.array([group.rows for group in groups], np.int64)
    budget = planned_budget(config)
    draws, warned = int(rows.sum()) if budget.draws is None else budget.draws, list[str]()
    said: Proportions = method.plan(groups, draws, Checkpoint("", lambda line: None))
    if budget.size is not None:
        draws, warned = draws_within(budget, said, groups, config.mix.max_epochs)
    counts, facts = allot(said, names, rows, draws, config.mix.max_epochs)
    drawn = counts.sum(axis=0)
    return drawn, draws - int(drawn.sum()) or None, [*facts["notes"], *facts["warnings"], *warned]


def _unseen(lines: list[Line]) -> list[str]:
    """A note on the groups of whose sampled rows none is kept."""
    names = [line["group"] or "''" for line in lines if line["kept"] == 0]
    if not names:
        return []
    return [
        f"no sampled row is kept of {some(names, NAMED)}: what is said of {'them' if len(names) > 1 else 'it'} is a "
        "guess, unless the run drops all of the group's rows too, and has no such group"
    ]


def _left(line: Line, measures: Sizes, total: int, overall: float) -> int:
    """Rows that selection is expected to leave of a group; of one that is there at least 1, whatever a sample says.

    Where no sampled row of it is kept, one more such row is taken to be kept as likely as any.
    """
    if line["rows"] is None:
        return max(1, round(line["share"] * overall * total))
    kept = line["kept"]
    if kept == 0:
        kept = overall / (measures[line["group"]]["rows"] + 1)
    return max(1, round(line["rows"] * (overall if kept is None else kept)))


def _size(config: Curate, line: Line, left: int, measures: Sizes) -> int:
    """Bytes or tokens of the rows that are left, as the budget counts them; of groups made in the run by the mean."""
    key = "bytes" if config.mix.budget_bytes else "tokens"
    if line["rows"] is None or line[key] is None:
        every = measures.get(None) or {}
        return round(every.get(key, 0.0) / max(1.0, every.get("rows", 0.0)) * left)
    return round(line[key] / max(1, line["rows"]) * left)


def unit_of(config: Curate) -> str:
    """What the budget counts: rows, bytes, words or tokens."""
    if config.mix.budget_tokens:
        return "words" if tokenizer_of(config).tokenizer == "words" else "tokens"
    return "bytes" if config.mix.budget_bytes else "rows"


def learned(config: Curate) -> str:
    """What is said of proportions that nobody knows before."""
    section: Any = config.mix
    how = f"{section.steps:,} steps of a small {section.proxy.kind} model in {section.rounds} rounds"
    return f"learned in the run, by {how}"
