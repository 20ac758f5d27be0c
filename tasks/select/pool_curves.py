"""QQT: utilities and half-lives by experiment: a small proxy is trained on each bucket's sample alone, over and over.

A reconstruction in three respects. The paper's error is 1 - accuracy of a CLIP model; here it is the validation loss
in nats over that of the proxy before any training: such a ratio begins at 1, as an error does, while nats may be far
above, where the law would hold the steepest exponent for the worst. Scale and floor are then tried on a grid of ours,
for the code's are those of 128 M samples. And buckets are samples of some thousand rows: what is fitted there is
carried over to buckets of any size, utilities by samples seen and half-lives by passes.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import ColumnError, ConfigError, InputError, RunFailed
from configs.methods.learned import LanguageMixProxy, Learned
from configs.methods.pools import Curves, Pools
from storage import files
from storage.fingerprints import digest
from storage.states import Checkpoint
from tasks.embed.device import device_slot, resolve_device
from tasks.mix.course import Course, Diverged
from tasks.mix.lowest import firsts
from tasks.mix.proxy_pairs import PairSource
from tasks.mix.proxy_texts import TextSource
from tasks.select.pool_buckets import buckets_of, coins_of
from tasks.select.pool_fit import EXPONENTS, HALF_LIVES, POINTS, Fits, fit_together
from tasks.select.pool_law import NORMALISER

if TYPE_CHECKING:
    from tasks.mix.proxy import Proxy

LEAST_ROWS = 16
"""Distinct readable rows of a bucket's sample, at least."""
STRETCHES = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 50.0)
"""Scales to try, as scaled samples at the end of the first pass over a sample; the paper's are about 2.6."""
FLOOR_SHARES = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
"""Floors to try, as shares of the lowest error that was measured."""
FLAT = 0.01
"""What of the untrained loss a bucket's training must take away at the least, lest its curve count as flat."""
RISEN = 0.02
"""What the last error may be above the lowest, over it, before it is told of: the law knows no overfitting."""


class CurveLaw(NamedTuple):
    """The law's constants, and where they are from."""

    scale: float
    floor: float
    utilities: np.ndarray
    """float64 `(B,)`, best bucket first, as `half_lives`."""
    half_lives: np.ndarray
    samples: np.ndarray = np.zeros(0)
    """float64 `(T,)`: samples seen when errors were measured; empty where the constants were given."""
    errors: np.ndarray = np.zeros((0, 0))
    """float64 `(B, T)`: validation loss over that of the untrained proxy."""
    remarks: tuple[str, ...] = ()


class Measuring:
    """What is read of each shard, and the curves that come of it."""

    def __init__(self, config: Curves) -> None:
        self._config = config
        proxy = config.proxy
        self._source = TextSource(proxy) if isinstance(proxy, LanguageMixProxy) else PairSource(proxy)
        self.needs: tuple[str, ...] = self._source.needs
        self.input_columns: tuple[str, ...] = self._source.input_columns
        self.libraries: tuple[str, ...] = (*self._source.libraries, "scipy")

    def check(self) -> None:
        """Raise ModelError if the device is not there, InputError if the file of validation rows is not."""
        resolve_device(self._config.device)
        self._digest()

    def check_columns(self, schema: pa.Schema) -> None:
        """Raise ColumnError if the column of texts holds none."""
        self._source.check_columns(schema)

    def depends_on(self) -> dict[str, Any]:
        """The device class, and the file of validation rows."""
        return {"device": resolve_device(self._config.device), "validation": self._digest()}

    def _digest(self) -> str | None:
        url = self._config.validation
        if url is None:
            return None
        if not files.exists(url):
            raise InputError(f"select pools: `curves.validation` is {url}, and there is no such file")
        return digest(files.read_bytes(url))

    # ---------------------------------------------------------------------------------------------------------- sample
    def sampled(self, keys: pa.Table, rows: pa.Table, buckets: int) -> pa.Table:
        """`keys` with the rows of the lowest coins that the proxy can read beside theirs, null elsewhere.

        Args:
            keys: `key: uint64`.
            rows: The same rows with the columns of `needs`.
            buckets: There will be so many, of this shard's rows in any shares.
        """
        turned, wanted = _by_coin(keys["key"].to_numpy()), self._wanted(buckets)
        distinct, place, found = np.unique(turned), np.full(keys.num_rows, -1, np.int64), 0
        parts = [self._source.payload(rows.slice(0, 0))[0]]
        for at in range(0, len(distinct), wanted):  # one turn, unless there are rows that cannot be read
            low, high = distinct[at], distinct[at : at + wanted][-1]
            near = np.flatnonzero((turned >= low) & (turned <= high))
            payload, usable = self._source.payload(rows.take(pa.array(near)))
            near = near[usable]
            chosen = firsts(np.zeros(len(near)), turned[near], payload)[: wanted - found]
            place[near[chosen]] = found + np.arange(len(chosen))
            parts.append(payload.take(pa.array(chosen)))
            found += len(chosen)
            if found == wanted:
                break
        return _beside(keys, pa.concat_tables(parts), place)

    def _wanted(self, buckets: int) -> int:
        """Rows of the sample: drawn from all rows alike, so that hardly a bucket has fewer than are wanted of each."""
        each = self._config.train_rows + -(-self._config.validation_rows // buckets)
        return buckets * (each + 4 * int(each**0.5) + 16)

    def _gathered(self, summaries: Iterable[pa.Table], lowest: np.ndarray) -> list[pa.Table]:
        """The sample of each bucket, in the order of coins, one row of each key (see `firsts`); all of one size."""
        kept: pa.Table | None = None
        most = self._wanted(len(lowest))
        for table in summaries:
            read = table.filter(table["sampled"]).drop_columns("sampled")
            kept = read if kept is None else pa.concat_tables([kept, read])
            first = firsts(np.zeros(len(kept)), _by_coin(kept["key"].to_numpy()), kept.drop_columns("key"))
            kept = kept.take(pa.array(first[:most])).combine_chunks()
        if kept is None:
            raise ConfigError("select pools: there are no rows to measure curves on")
        bucket = buckets_of(kept["key"].to_numpy(), lowest)
        counts = np.bincount(bucket, minlength=len(lowest))
        if counts.min() < LEAST_ROWS:
            raise ConfigError(
                f"select pools: bucket {int(counts.argmin()) + 1} of {len(lowest)} has {int(counts.min())} distinct "
                f"rows that the proxy can read, and curves need {LEAST_ROWS}; take fewer `buckets`"
            )
        return [kept.filter(pa.array(bucket == b)).drop_columns("key")[: counts.min()] for b in range(len(lowest))]

    def _divided(self, parts: list[pa.Table]) -> tuple[list[pa.Table], list[pa.Table]]:
        """Rows of each bucket to learn from, equally many, and rows that errors are measured on, in as many parts."""
        config, rows = self._config, parts[0].num_rows
        if config.validation is not None:
            given = self._given(config.validation)
            ends = np.arange(len(parts) + 1) * given.num_rows // len(parts)
            held = [given[start:end] for start, end in pairwise(ends.tolist())]
            return [part[: config.train_rows] for part in parts], held
        each = min(-(-config.validation_rows // len(parts)), rows // 4)
        return [part[each : each + config.train_rows] for part in parts], [part[:each] for part in parts]

    def _given(self, url: str) -> pa.Table:
        """The first rows of a file that the proxy can read."""
        found: list[pa.Table] = []
        with files.reading(url) as source:
            stored = pq.ParquetFile(source)
            missing = [name for name in self.needs if name not in stored.schema_arrow.names]
            if missing:
                raise ColumnError(
                    f"{url} has no column {missing[0]!r}, which `curves.proxy` reads; it has "
                    f"{', '.join(stored.schema_arrow.names[:20])}"
                )
            for batch in stored.iter_batches(columns=list(self.needs)):
                found.append(self._source.payload(pa.table(batch))[0])
                if sum(part.num_rows for part in found) >= self._config.validation_rows:
                    break
        rows = pa.concat_tables(found)[: self._config.validation_rows] if found else None
        if rows is None or not rows.num_rows:
            raise InputError(f"{url} has no row that the proxy can read; `curves.validation` needs one")
        return rows

    # ---------------------------------------------------------------------------------------------------------- curves
    def law(self, summaries: Iterable[pa.Table], lowest: np.ndarray, config: Pools, checkpoint: Checkpoint) -> CurveLaw:
        """Train on every bucket, and fit the law to what was measured.

        Raises:
            ConfigError: A bucket has too few rows.
            RunFailed: The training on a bucket diverged, or its error does not fall.
        """
        from tasks.mix.group_proxy import GroupProxy

        device = resolve_device(self._config.device)
        train, held = self._divided(self._gathered(summaries, lowest))
        rows = train[0].num_rows
        batch = min(self._config.batch_size, rows)
        with device_slot(device):
            corpus = self._source.corpus(train, [part for part in held if part.num_rows], self._config.seed, device)
            proxy = GroupProxy(corpus, self._learning(batch), device)
            samples, errors = measured(proxy, rows, batch, self._config.passes, checkpoint)
        refuse_unsound(errors)
        fits = fitted(samples, errors, rows, config)
        found = CurveLaw(fits.scale, fits.floor, *_columns(fits), samples, errors)
        return found._replace(remarks=(*remarks(found, rows), f"a is {fits.scale:.4g}, d {fits.floor:.3g}"))

    def _learning(self, batch: int) -> Learned:
        """What a proxy reads of a learned mix's configuration."""
        own = self._config
        given = own.model_dump(include={"train_rows", "validation_rows", "learning_rate", "device"})
        return Learned(proxy=own.proxy, batch_size=batch, proxy_seed=own.seed, steps=1, rounds=1, **given)


def _by_coin(keys: np.ndarray) -> np.ndarray:
    """A number of each key, uint64 `(n,)`, in the order of their coins, and of the scores where these are equal."""
    return coins_of(keys) << np.uint64(32) | keys >> np.uint64(32)


def _beside(keys: pa.Table, payload: pa.Table, place: np.ndarray) -> pa.Table:
    """`keys` with the payload's columns, row `place` of them, null where it is -1; and `sampled`, whether it is not."""
    there = pa.array(place >= 0)
    at = pa.array(place, mask=place < 0)
    columns = {name: payload[name].take(at) for name in payload.column_names}
    return pa.table({"key": keys["key"], "sampled": there, **columns})


def measured(proxy: Proxy, rows: int, batch: int, passes: int, checkpoint: Checkpoint) -> tuple[np.ndarray, np.ndarray]:
    """Samples seen, float64 `(T,)`, and errors, float64 `(B, T)`, of a proxy trained on each of its groups alone.

    The error is measured after each other pass, and after the last; it is the mean validation loss of the groups over
    that before any training. A training that broke off goes on from the last state that was saved.

    Args:
        proxy: Of B groups, with as many rows to learn from.
        rows: Of each group.
        batch: Rows of a step, at most `rows`.
        passes: Over these rows, 2 or more.
        checkpoint: Where states are saved, at most every minute or so.

    Raises:
        RunFailed: The training on a bucket diverged.
    """
    stops = sorted({*range(2, passes + 1, 2), passes})
    steps = [max(1, round(one * rows / batch)) for one in stops]
    course = Course(proxy, "pools", 0, checkpoint)
    if "errors" not in course.values:
        course.values |= {"errors": np.full((proxy.groups, len(steps)), np.nan), "untrained": course.losses().mean()}
    for bucket in range(max(0, int(course.values["run"])), proxy.groups):
        course.begin(bucket, steps[-1])
        alone = np.eye(proxy.groups)[bucket]
        for number, step in enumerate(steps):
            if not np.isnan(course.values["errors"][bucket, number]):
                continue
            try:
                course.train(alone, step)
                loss = course.losses().mean()
            except Diverged as error:
                raise RunFailed(
                    f"select pools: training on bucket {bucket + 1} alone: {error}; lower `curves.learning_rate`, "
                    "or give `utilities` and `half_lives`"
                ) from None
            course.values["errors"][bucket, number] = loss / course.values["untrained"]
            course.save()
        last = course.values["errors"][bucket]
        checkpoint.tell(f"pools: bucket {bucket + 1} of {proxy.groups}: error {last[0]:.4f}, then {last[-1]:.4f}")
    return np.array(steps, np.float64) * batch, course.values["errors"]


def refuse_unsound(errors: np.ndarray) -> None:
    """Raise RunFailed if the error of a bucket, a row of `errors` `(B, T)`, does not fall below the untrained one."""
    for bucket, curve in enumerate(errors):
        if not np.isfinite(curve).all() or curve.min() > 1 - FLAT:
            raise RunFailed(
                f"select pools: the curve of bucket {bucket + 1} is flat: its errors are "
                f"{', '.join(f'{one:.4f}' for one in curve)} of the untrained one, so no utility can be fitted; "
                "raise `curves.passes`, `train_rows` or `learning_rate`, or give `utilities` and `half_lives`"
            )


def fitted(samples: np.ndarray, errors: np.ndarray, rows: int, config: Pools) -> Fits:
    """The law's constants for all buckets, of scales and floors as given, or of those on our grid."""
    scales = [config.scale] if config.scale is not None else [x * NORMALISER / rows for x in STRETCHES]
    floors = [config.floor] if config.floor is not None else [share * errors.min() for share in FLOOR_SHARES]
    return fit_together(samples, errors, rows, scales=scales, floors=floors, variant=config.variant)


def _columns(fits: Fits) -> tuple[np.ndarray, np.ndarray]:
    return np.array([one.exponent for one in fits.buckets]), np.array([one.half_life for one in fits.buckets])


def remarks(found: CurveLaw, rows: int) -> tuple[str, ...]:
    """What to know of curves and fits: errors that rise again, constants at the end of the grid, how good they are."""
    told = [f"utilities and half-lives are fitted to {len(found.samples)} errors on {rows:,} rows of each bucket"]
    low = found.errors.min(axis=1)
    risen = np.flatnonzero(found.errors[:, -1] > (1 + RISEN) * low)
    if len(risen):
        told.append(f"the error of {_buckets(risen)} rises again, which the law cannot: fewer `passes` fit better")
    ends = _at_end(found.half_lives, HALF_LIVES) | _at_end(found.utilities, EXPONENTS)
    if ends.any():
        told.append(f"the fit of {_buckets(np.flatnonzero(ends))} is at the end of the grid")
    return tuple(told)


def _at_end(values: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """Which values are within a hundredth of the grid of one of its ends, bool `(n,)`."""
    return np.abs(values[:, None] - np.array(ends)).min(axis=1) < (ends[1] - ends[0]) / POINTS


def _buckets(which: np.ndarray) -> str:
    numbers = ", ".join(str(i + 1) for i in which[:10].tolist()) + (", …" if len(which) > 10 else "")
    return f"bucket {numbers}" if len(which) == 1 else f"buckets {numbers}"
