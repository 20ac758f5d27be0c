"""QQT: keep as many of the best buckets of a score as so many samples seen speak for (arXiv 2404.07177).

Rows are cut into buckets of equal size by their score. With a utility and a half-life for each, given or measured, the
law in `tasks.select.pool_law` says which pool of the best buckets leaves the least error after `samples_seen` samples:
few for a short training, more for a long one, which would repeat a small pool until it has nothing left to give.

Pools take buckets by utility, as the released code does: a bucket of lower score but steeper exponent goes first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import pyarrow as pa

from configs.errors import ColumnError, ConfigError
from configs.methods.pools import Pools as Config
from storage.states import Checkpoint, State
from tasks.by_column import only
from tasks.select import Decisions, keep_all
from tasks.select.coins import coins, uid_halves
from tasks.select.pool_buckets import buckets_of, edges, row_keys, sizes
from tasks.select.pool_curves import CurveLaw, Measuring
from tasks.select.pool_fit import fit, fit_together
from tasks.select.pool_law import NORMALISER, best_pool, effective_data, predicted_error
from tasks.select.pool_outlook import Law, Outlook, outlook

__all__ = ["Pools", "best_pool", "effective_data", "fit", "fit_together", "predicted_error"]


class Pools:
    """Rows without a score (null or NaN) are in no bucket and dropped.

    Buckets are exactly equal, but for one row: rows of one score that a bucket's border divides are divided by a coin
    made of their uid and the seed, so neither files nor shards matter. Copies (of one uid) stay or go together.
    """

    ranked = False

    def __init__(self, config: Config, *, seed: int) -> None:
        self._config, self._score = config, config.score
        self._keys = np.random.SeedSequence([seed, 59]).generate_state(2, np.uint64)
        self._measuring = Measuring(config.curves) if config.curves else None
        own = self._measuring
        self.needs: tuple[str, ...] = tuple(dict.fromkeys([config.score, "uid", *(own.needs if own else ())]))
        given = (config.score,) if config.from_input else ()
        self.input_columns: tuple[str, ...] = tuple(dict.fromkeys([*given, *(own.input_columns if own else ())]))
        self.libraries: tuple[str, ...] = own.libraries if own else ()

    def depends_on(self) -> dict[str, Any]:
        """What measured curves depend on besides the configuration."""
        return self._measuring.depends_on() if self._measuring else {}

    def check(self) -> None:
        """Raise a MixwrightError if something is missing that measuring needs."""
        if self._measuring:
            self._measuring.check()

    def check_columns(self, schema: pa.Schema) -> None:
        """Raise ColumnError if the column of scores holds no numbers, or the one that a proxy learns from no texts."""
        if self._config.from_input:
            kind = schema.field(self._score).type
            if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
                raise ColumnError(f"select pools: `score` names {self._score!r}, which is {kind}; it must be numbers")
        if self._measuring:
            self._measuring.check_columns(schema)

    # ------------------------------------------------------------------------------------------------------------- fit
    def summarise(self, rows: pa.Table) -> pa.Table:
        """`key: uint64` of every row with a score; where curves are measured a sample of the rows themselves beside."""
        score, key = self._scored(rows)
        table = pa.table({"key": key})
        if self._measuring is None:
            return table
        return self._measuring.sampled(table, rows.filter(pa.array(~np.isnan(score))), self._config.buckets)

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint) -> State:
        """The buckets' lowest keys, their rows and scores, which of them stay, and what the law says of all pools.

        Raises:
            ConfigError: There are fewer rows with a score than buckets.
            RunFailed: The error of a bucket could not be measured, or does not fall.
        """
        wanted = self._config.buckets
        keys = _Keys(summaries)
        rows = sum(len(part) for part in keys)
        if not rows:
            return {"lowest": np.zeros(0, np.uint64)}
        if rows < wanted:
            raise ConfigError(
                f"select pools: `buckets` is {wanted}, but there are {rows} rows with a score; take {rows} or fewer"
            )
        lowest = edges(keys, rows, wanted)
        known = self._law(summaries, lowest, checkpoint)
        law = Law(known.scale, known.utilities, known.half_lives, known.floor, rows / wanted, self._config.variant)
        found = outlook(law, self._config.samples_seen)
        kept = np.zeros(wanted, bool)
        kept[np.argsort(law.exponents, kind="stable")[: found.best]] = True
        state: State = {
            "lowest": lowest,
            "rows": sizes(rows, wanted),
            "high": _highest(keys, lowest),
            "low": _scores(lowest),
        }
        state |= {"kept": kept, "utilities": law.exponents, "half_lives": law.half_lives, "variant": _text(law.variant)}
        state |= {"scale": np.float64(law.scale), "floor": np.float64(law.floor)}
        state |= {"samples_seen": np.int64(self._config.samples_seen), "pool_size": np.float64(law.pool_size)}
        state |= {"measured_samples": known.samples, "measured_errors": known.errors, "remarks": _text(known.remarks)}
        return state | {name: np.asarray(value) for name, value in found._asdict().items()}

    def _law(self, summaries: Iterable[pa.Table], lowest: np.ndarray, checkpoint: Checkpoint) -> CurveLaw:
        """Utilities and half-lives as given, or measured."""
        config = self._config
        if self._measuring:
            return self._measuring.law(summaries, lowest, config, checkpoint)
        utilities, half_lives = (np.array(one, np.float64) for one in (config.utilities, config.half_lives))
        return CurveLaw(cast(float, config.scale), cast(float, config.floor), utilities, half_lives)

    # ---------------------------------------------------------------------------------------------------------- decide
    def forecast(self, rows: pa.Table, state: State) -> dict[str, float]:
        """Rows that stay, and rows without a score."""
        decisions = self.decide(rows, state)
        return {"kept": int(decisions.keep.sum()), "unscored": int(np.isnan(decisions.score).sum())}

    def told(self, state: State, sums: dict[str, float]) -> str:
        """Which pool it is, what is predicted of it, and where the next ones are."""
        missing = f"; {sums.get('unscored', 0):,.0f} rows have no score" if sums.get("unscored") else ""
        if not len(state["lowest"]):
            return f"no row has a score{missing}"
        return told_pool(state) + missing

    def decide(self, rows: pa.Table, state: State) -> Decisions:
        """Keep the rows of the pool's buckets; their score is the score."""
        decisions = keep_all(rows.num_rows)
        score, key = self._scored(rows)
        known = ~np.isnan(score)
        decisions.score[:] = score
        decisions.keep[:] = False
        decisions.reason[~known] = "no_pool_score"
        if not len(state["lowest"]):
            return decisions
        decisions.keep[known] = state["kept"][buckets_of(key, state["lowest"])]
        decisions.reason[known & ~decisions.keep] = "not_in_pool"
        early = float(state["scale"]) * float(state["samples_seen"]) < NORMALISER
        return decisions._replace(counts={"early": int(early)})

    def warnings(self, counts: dict[str, int]) -> list[str]:
        """That the law is asked about what lies before its beginning."""
        if not counts.get("early"):
            return []
        return [
            f"`samples_seen` is {self._config.samples_seen:,}, and the scale a times it is below {NORMALISER:,.0f}: "
            "there the law predicts errors above 1 and holds the steepest utility for the worst, so its choice means "
            "nothing; give a scale that fits your error, or more samples"
        ]

    def _scored(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """The scores, float32 `(n,)` with NaN for none, and the keys of rows that have one."""
        with np.errstate(over="ignore"):
            score = rows.column(self._score).to_numpy().astype(np.float32)
        known = ~np.isnan(score)
        uids = uid_halves(rows["uid"].filter(pa.array(known)))
        return score, row_keys(score[known], coins(uids, np.zeros(len(uids), np.int64), self._keys))


def told_pool(state: State) -> str:
    """One line about the pool that a fitted state stands for."""
    found = Outlook(*(state[name] for name in Outlook._fields))
    best, budget, errors = int(found.best), int(state["samples_seen"]), found.errors
    which = "the best" if state["kept"][:best].all() else f"those of steepest utility, {_named(state['kept'])}"
    several = f"{best} of {len(errors)} buckets ({which})" if best < len(errors) else f"all {best} buckets"
    line = f"the best pool for {budget:,} samples seen is {several} of {float(state['pool_size']):,.0f} rows"
    line += f"; predicted error {errors[best - 1]:.4g}, of one bucket {errors[0]:.4g}, of all {errors[-1]:.4g}"
    before = [pool for n, pool in found.crossings if n <= budget]
    if len(before):
        start = max(n for n, _ in found.crossings if n <= budget)
        line += f"; it is the best from {start:,.0f} samples on"
    later = [(n, pool) for n, pool in found.crossings if n > budget]
    if later:
        line += f", at {later[0][0]:,.0f} one of {later[0][1]:,.0f} takes over"
    else:
        line += f", no other is better up to {found.samples[-1]:,.0f}"
    return line + "".join(f"; {remark}" for remark in bytes(state["remarks"]).decode().split("\n") if remark)


def _named(kept: np.ndarray) -> str:
    return "numbers " + ", ".join(str(i + 1) for i in np.flatnonzero(kept)[:20].tolist()) + " by score"


def _text(words: Iterable[str] | str) -> np.ndarray:
    """Words as bytes, uint8: a state holds no objects."""
    lines = words if isinstance(words, str) else "\n".join(words)
    return np.frombuffer(lines.encode(), np.uint8)


def _scores(keys: np.ndarray) -> np.ndarray:
    """The scores in keys, float32."""
    bits = (keys >> np.uint64(32)).astype(np.uint32)
    return np.where(bits >> 31, bits & np.uint32(0x7FFFFFFF), ~bits).astype(np.uint32).view(np.float32)


def _highest(keys: Iterable[np.ndarray], lowest: np.ndarray) -> np.ndarray:
    """The highest score of each bucket, float32 `(B,)`."""
    found = np.zeros(len(lowest), np.uint64)
    for part in keys:
        np.maximum.at(found, buckets_of(part, lowest), part)
    return _scores(found)


class _Keys:
    """The keys of all shards, read at every iteration."""

    def __init__(self, summaries: Iterable[pa.Table]) -> None:
        self._summaries = only(summaries, "key")  # a sample of rows may lie beside

    def __iter__(self) -> Any:
        return (table["key"].to_numpy() for table in self._summaries)
