"""Ranked selects between methods and the store: ranks are kept, the cut is found, and rows are settled by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.methods.targets import Target
from storage import files, states
from storage.exchange import ROW, SHARD
from storage.states import State
from storage.steps import Step, parquet_bytes
from tasks.select import Decisions
from tasks.select.ranking import Cut, Ranks, find, keys, totals

CUT = "_cut.npz"
CUT_TOLD = "_cut.json"
"""What was wanted and what stays; of selects by group, each group's rows."""
SIZES = {"rows": (), "fraction": (), "bytes": ("image_bytes", "text_bytes"), "tokens": ("tokens",)}
SHOWN_GROUPS = 1000
LOADED_ROWS = 1 << 22
"""Rows whose ranks are loaded together, about 120 bytes each, where a cut is searched for."""
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
OVER = "over_target"


def needs(method: Any, config: Any) -> tuple[str, ...]:
    """Columns that a select reads: its method's, and what its target counts."""
    target = config.target
    return tuple(dict.fromkeys([*method.needs, *(SIZES[target.unit] if target else ())]))


def is_ranked(method: Any) -> bool:
    """Whether a select works towards a size."""
    return bool(getattr(method, "ranked", False))


# ---------------------------------------------------------------------------------------------------------------- ranks
def write_ranks(step: Step, method: Any, config: Any, source: str, rows: pa.Table, decisions: Decisions) -> None:
    """Keep the decisions on the rows of one bucket or shard until the cut is known."""
    n = rows.num_rows
    if decisions.rank is None or hasattr(method, "quotas") != (decisions.group is not None):
        raise RuntimeError(f"select {step.kind}: a ranked select gives ranks, and groups if it has quotas")
    rank = decisions.rank if decisions.rank.ndim == 2 else decisions.rank[:, None]
    group = np.zeros(n, np.int64) if decisions.group is None else decisions.group
    size, most = _sizes(rows, config), _most(config)
    fits = size <= most  # one that does not would end the order at once
    reason = np.where(decisions.keep & ~fits, OVER, decisions.reason)
    columns = {SHARD: rows[SHARD], ROW: rows[ROW], "keep": pa.array(decisions.keep & fits)}
    columns |= {"reason": pa.array(reason, pa.string()), "score": pa.array(decisions.score, pa.float32())}
    columns |= {"keeper": pa.array(decisions.keeper), "group": pa.array(group), "size": pa.array(size)}
    columns |= {f"rank{i}": pa.array(rank[:, i], pa.float32()) for i in range(rank.shape[1])}
    files.write_bytes(step.file(f"spill/ranked/{source}.parquet"), parquet_bytes(pa.table(columns)))


def _sizes(rows: pa.Table, config: Any) -> np.ndarray:
    target = config.target
    names = SIZES[target.unit] if target else ()
    if not names:
        return np.ones(rows.num_rows, np.int64)
    return sum(pc.fill_null(rows[name], 0).to_numpy().astype(np.int64) for name in names)


def _most(config: Any) -> float:
    """What one row may have: a target's bytes or tokens."""
    target = config.target
    return target.amount if target and SIZES[target.unit] else np.inf


def ranked(step: Step) -> set[str]:
    """Buckets and shards whose ranks are written."""
    return {name[:-8] for name in files.names(step.file("spill/ranked"))}


class _Parts:
    """The ranks of all rows that may stay, part by part, at every iteration."""

    def __init__(self, step: Step, sources: list[str], *, counted: bool = False) -> None:
        self._step, self._sources, self._counted = step, sources, counted

    def __iter__(self) -> Iterator[Ranks]:
        for source in self._sources:
            table = self._step.read(f"spill/ranked/{source}")
            yield _ranks(table.filter(table["keep"]), self._counted)


def _ranks(table: pa.Table, counted: bool) -> Ranks:
    rank = np.column_stack([table[name].to_numpy() for name in table.column_names if name.startswith("rank")])
    key = keys(rank, table[SHARD].to_numpy(), table[ROW].to_numpy())
    size = np.ones(table.num_rows, np.int64) if counted else table["size"].to_numpy()
    return Ranks(key, table["group"].to_numpy(), size)


# ------------------------------------------------------------------------------------------------------------------ cut
def cut(step: Step, method: Any, config: Any, state: State, sources: list[str]) -> dict[str, Any]:
    """Find the cut, save it, and say what was wanted and what stays."""
    target: Target | None = config.target
    sized, counted = _Parts(step, sources), _Parts(step, sources, counted=True)
    group, rows, size = totals(sized)
    by_rows = target is None or target.unit in ("rows", "fraction")
    wanted = target.wanted(_given(step, sources) if target.unit == "fraction" else 0) if target else None
    if not hasattr(method, "quotas"):
        # One quota for all: what is left of `wanted` in the unit of the target.
        limit = np.array([wanted if wanted is not None else int(size.sum())] * len(group), np.int64)
        found = find(sized, group, limit, rows, size)
    elif by_rows:
        found = _by_quotas(counted, method, group, rows, wanted)
    else:
        found = _searched(sized, counted, method, (group, rows, size), int(wanted or 0))
    states.save(step.file(CUT), {"group": found.group, "key": found.key, "whole": found.whole})
    return _told(step, method, state, found, sources, target, wanted)


def _given(step: Step, sources: list[str]) -> int:
    """Rows that the select was given, those that go whatever the target with them."""
    return sum(step.read(f"spill/ranked/{source}", ["keep"]).num_rows for source in sources)


def _by_quotas(parts: Iterable[Ranks], method: Any, group: np.ndarray, rows: np.ndarray, wanted: int | None) -> Cut:
    return find(parts, group, _quotas(method, group, rows, wanted), rows, rows)


def _quotas(method: Any, group: np.ndarray, rows: np.ndarray, wanted: int | None) -> np.ndarray:
    """Rows to keep of each group, int64 `(G,)`, as many as there are at most."""
    return np.minimum(np.asarray(method.quotas(group, rows, wanted), np.int64), rows)


def _searched(sized: _Parts, counted: _Parts, method: Any, known: tuple[np.ndarray, ...], wanted: int) -> Cut:
    """The cut by quotas whose rows together do not exceed a size: a monotone search over their number."""
    group, rows, size = known
    low, high = 0, int(rows.sum())
    if int(size.sum()) <= wanted:
        return _by_quotas(counted, method, group, rows, high)
    size_of = _sizes_once(sized, group) if high <= LOADED_ROWS else _sizes_by_reading(sized, counted, group, rows)
    low_size, high_size, straight = 0, int(size.sum()), True
    while high - low > 1:  # `low` rows fit, `high` do not
        # Sizes are about even, so a straight line nearly meets the number; every other step halves what is left.
        line = low + (high - low) * (wanted - low_size) // max(1, high_size - low_size)
        middle = min(max(line, low + 1), high - 1) if straight else (low + high) // 2
        straight = not straight
        found = size_of(_quotas(method, group, rows, middle))
        if found <= wanted:
            low, low_size = middle, found
        else:
            high, high_size = middle, found
    return _by_quotas(counted, method, group, rows, low)


def _sizes_once(sized: _Parts, group: np.ndarray) -> Callable[[np.ndarray], int]:
    """What the first rows of each group amount to, by quotas int64 `(G,)`: all rows are sorted once, in memory."""
    key, groups, size = (np.concatenate(columns) for columns in zip(*sized, strict=True))
    at = np.searchsorted(group, groups)
    order = np.lexsort((*key.T[::-1], at))
    before = np.concatenate([[0], np.cumsum(size[order])])
    starts = np.searchsorted(at[order], np.arange(len(group)))
    return lambda quota: int((before[starts + quota] - before[starts]).sum())


def _sizes_by_reading(
    sized: _Parts, counted: _Parts, group: np.ndarray, rows: np.ndarray
) -> Callable[[np.ndarray], int]:
    """The same with memory bounded by one part: every call reads all ranks several times."""

    def size_of(quota: np.ndarray) -> int:
        found = find(counted, group, quota, rows, rows)
        return sum(int(part.size[found.stays(part.key, part.group)].sum()) for part in sized)

    return size_of


def _told(
    step: Step, method: Any, state: State, found: Cut, sources: list[str], target: Target | None, wanted: int | None
) -> dict[str, Any]:
    """Count what stays and tell it, by group where there are groups."""
    rows, kept = np.zeros(len(found.group), np.int64), np.zeros(len(found.group), np.int64)
    sizes, scores = 0, [_Sketch() for _ in found.group[:SHOWN_GROUPS]]
    for source in sources:
        table = step.read(f"spill/ranked/{source}")
        table = table.filter(table["keep"])
        ranks = _ranks(table, counted=False)
        stays, at = found.stays(ranks.key, ranks.group), np.searchsorted(found.group, ranks.group)
        rows += np.bincount(at, minlength=len(rows))
        kept += np.bincount(at[stays], minlength=len(rows))
        sizes += int(ranks.size[stays].sum())
        order = np.argsort(at, kind="stable")
        ends = np.searchsorted(at[order], np.arange(len(scores)), side="right")
        for sketch, found_scores in zip(scores, np.split(table["score"].to_numpy()[order], ends), strict=False):
            sketch.add(found_scores)
    facts: dict[str, Any] = {"kept": int(kept.sum()), "rows": int(rows.sum())}
    if target is not None:
        facts |= {"unit": target.unit, "amount": target.amount, "wanted": wanted, "size": sizes}
        facts["short"] = bool(found.whole.all()) and sizes < (wanted or 0)
    if hasattr(method, "quotas"):
        shown = found.group[:SHOWN_GROUPS]
        names = method.group_names(shown, state) if hasattr(method, "group_names") else [str(g) for g in shown]
        facts["group_count"] = len(found.group)
        facts["groups"] = [
            {"name": name, "rows": int(r), "kept": int(k), "score": sketch.quantiles()}
            for name, r, k, sketch in zip(names, rows, kept, scores, strict=False)
        ]
    files.write_json(step.file(CUT_TOLD), facts)
    return facts


def warnings(facts: dict[str, Any]) -> list[str]:
    """What to warn of, given what `cut` told."""
    if not facts.get("short"):
        return []
    unit = "rows" if facts["unit"] == "fraction" else facts["unit"]
    return [f"the target of {facts['wanted']:,} {unit} is not reached: there are {facts['size']:,}, all are kept"]


class _Sketch:
    """Quantiles of a stream of scores, of at most 2^16 of them, evenly thinned."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._count, self._every = 0, 1

    def add(self, scores: np.ndarray) -> None:
        """Take in scores; NaN is none."""
        found = scores[~np.isnan(scores)][:: self._every]
        self._parts.append(found)
        self._count += len(found)
        if self._count > 1 << 16:
            self._parts, self._every = [np.sort(np.concatenate(self._parts))[::2]], self._every * 2
            self._count = len(self._parts[0])

    def quantiles(self) -> list[float] | None:
        """Least, quartiles and largest; None without a score."""
        values = np.concatenate(self._parts) if self._parts else np.empty(0)
        return [round(float(q), 6) for q in np.quantile(values, QUANTILES)] if len(values) else None


# --------------------------------------------------------------------------------------------------------------- settle
def the_cut(step: Step) -> Cut:
    """What `cut` has found."""
    return Cut(**states.load(step.file(CUT)))


def settle(step: Step, found: Cut, source: str) -> tuple[pa.Table, Decisions]:
    """The rows of one bucket or shard, and what the cut decides on them."""
    table = step.read(f"spill/ranked/{source}")
    candidates = table["keep"].to_numpy(zero_copy_only=False)
    ranks = _ranks(table, counted=False)
    kept = candidates.copy()
    kept[candidates] = found.stays(ranks.key[candidates], ranks.group[candidates])
    named = table["keeper"].to_numpy()
    keeper = standing(named, kept)
    reason = np.array(table["reason"].to_pylist(), object)
    alone = candidates & ~kept & ((reason == "") | ((named >= 0) & (keeper < 0)))
    reason[alone], reason[kept] = OVER, ""
    return table, Decisions(kept, reason, table["score"].to_numpy(), np.where(kept | (reason == OVER), -1, keeper))


def standing(keeper: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The nearest kept row up each row's chain of keepers, -1 where there is none: int64 `(n,)`.

    Args:
        keeper: int64 `(n,)`, -1 at the end of a chain; chains have no circles.
        kept: bool `(n,)`
    """
    n = len(keeper)
    up = np.append(np.where(kept, np.arange(n), keeper), -1)  # index -1 leads to itself
    for _ in range(max(1, n.bit_length())):
        up = up[up]
    ends = up[:n]
    return np.where((ends >= 0) & kept[ends], ends, -1)
