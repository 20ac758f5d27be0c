"""CABS: concept-aware batch sampling (Ghosh et al., arXiv 2511.20643). Picks a batch by the rows' concepts alone.

Diversity maximisation (DM) picks greedily the row whose concepts are furthest below their targets and rarest; frequency
maximisation (FM) takes the rows with the most concepts. The released code and the formula of the paper differ; both are
here, the latter as third parties restate it. Several workers share targets t and frequencies F of the whole superbatch,
but each counts and caps on its own.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from configs.methods import sample as methods
from tasks.arguments import at_least, whole_numbers
from tasks.mix.draws import seed_of
from tasks.sample.concepts import Concepts, Labels, encode, row_frequencies, split, without_repeats
from tasks.sample.coverage import Account, account
from tasks.sample.greedy import NO_CAP, Rule, pick_greedily
from tasks.sample.targets import Target, resolved, target_counts

WORTH_THREADS = 4096
"""Rows of a superbatch from which its ranks are picked at the same time."""


def select_diverse(
    concepts: Concepts,
    batch_size: int,
    *,
    maximum: int = 10,
    variant: Literal["released", "printed"] = "released",
    targets: ArrayLike | None = None,
    frequencies: ArrayLike | None = None,
    fill: bool = False,
    seed: int = 0,
) -> np.ndarray:
    """Returns the indices that CABS-DM picks, in order of selection: int64, at most `batch_size` of them.

    Each pick is the row with the largest mean of g_c over its concepts, the lowest index on ties; then its n_c rise.

    `released`, the authors' code: repeats in a row count; g_c = (t_c - n_c)/t_c + 1/F_c while n_c < t_c, then -0.5; a
    row that holds a concept with n_c >= `maximum` is void. When only void rows are left, rows without concepts follow
    at random, and the result may still be short.

    `printed`, the paper's formula at second hand: a row's concepts are a set; g_c = 0 once n_c >= t_c. The restatements
    disagree on whether a met target also voids the rows that hold it; here it does not, so `maximum` only bounds the
    default targets. Rows without concepts come last, in order, and the result is never short.

    `fill` makes it min(`batch_size`, n) indices with nothing random: once only void rows are left, each further pick is
    the row with the fewest labels of full concepts (n_c >= `maximum`; n_c goes on rising), on ties the larger mean of
    g_c, then the lower index; rows without concepts come last, in order.

    Args:
        concepts: Row by row strings (their vocabulary is what occurs, by code point) or ids (ranks already), or an
            Arrow list array of either, dictionary-encoded or not; a null row has no concepts.
        batch_size: Rows wanted out of these: the quota of one worker.
        maximum: Cap on n_c (`released`), and largest default target.
        variant: Whose rule.
        targets: `(V,)`, t by rank of the concept. Default: `target_counts` of the concepts that occur and `batch_size`.
            To share them among workers, pass ids ranked in the vocabulary of the whole superbatch.
        frequencies: `(V,)`, F: rows of the whole superbatch that hold the concept. Default: counted in these rows.
        fill: Never return short.
        seed: Of the random choice among rows without concepts.
    """
    at_least(batch_size=(batch_size, 1), maximum=(maximum, 1), seed=(seed, 0))
    if variant not in ("released", "printed"):
        raise ValueError(f"`variant` is {variant!r}; it must be 'released' or 'printed'")
    t = None if targets is None else whole_numbers("targets", targets)
    f = None if frequencies is None else whole_numbers("frequencies", frequencies)
    if t is not None and f is not None and len(t) != len(f):
        raise ValueError(f"`frequencies` has length {len(f)}; it must match `targets`, which has {len(t)}")
    labels = encode(concepts, next((len(array) for array in (t, f) if array is not None), None))
    own = row_frequencies(labels.offsets, labels.ids, labels.size)
    f = own if f is None else f
    if t is None:
        occurs = (f > 0) | (own > 0)
        t = np.zeros(labels.size, np.int64)
        t[occurs] = target_counts(int(occurs.sum()), batch_size, maximum=maximum)
    return _select(labels, int(batch_size), (t, f), _rule(variant, maximum, fill), None if fill else seed)[0]


def select_frequent(concepts: Concepts, batch_size: int) -> np.ndarray:
    """Returns the min(`batch_size`, n) rows with the most labels (CABS-FM): int64, most first, ties by lower index."""
    at_least(batch_size=(batch_size, 1))
    return _longest(split(concepts)[0], batch_size)


class CabsDm:
    """CABS diversity maximisation; filled to the quota, so that every rank gets exactly b/W rows, unless told not to.

    Targets t and frequencies F are those of the whole superbatch, counts and caps those of each rank.
    """

    needs: tuple[str, ...] = ("concepts",)
    independent: bool = True

    def __init__(self, config: methods.CabsDm, *, seed: int = 0) -> None:
        """`seed`: of the order of rows without concepts where `fill` is off; else nothing is random."""
        self.config, self.target, self._seed = config, Target(resolved(config)), seed
        cap = NO_CAP if config.cap is None else config.cap
        self._rule = _rule(config.variant, cap, config.fill)

    @property
    def named(self) -> list[str]:
        """Concepts that the configuration names: the data may know some of them not."""
        return self.target.named

    def pick(self, superbatch: pa.Table, step: int) -> list[np.ndarray]:
        """Returns one int64 array of row indices per rank; see `tasks.sample.Sampler`."""
        labels = encode(superbatch["concepts"])
        return self._pick(labels, self._goals(labels, step), step)[0]

    def pick_rank(self, superbatch: pa.Table, step: int, rank: int) -> np.ndarray:
        """Returns what `pick` returns for one rank, without the work of the others."""
        labels = encode(superbatch["concepts"])
        return self._pick_one(labels, self._goals(labels, step), step, rank)[0]

    def pick_and_account(self, superbatch: pa.Table, step: int) -> tuple[list[np.ndarray], Account]:
        """Returns what `pick` returns, and what it is held to account for."""
        labels = encode(superbatch["concepts"])
        targets, frequencies = self._goals(labels, step)
        picks, fill = self._pick(labels, (targets, frequencies), step)
        return picks, account(labels, frequencies, picks, self.config, targets=targets, fill=fill)

    def _goals(self, labels: Labels, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns t and F, int64 `(V,)` each."""
        turn = seed_of(self._seed, "targets", step) % max(1, labels.size)
        return self.target.counts(labels, turn), row_frequencies(labels.offsets, labels.ids, labels.size)

    def _pick(self, labels: Labels, goals: tuple[np.ndarray, np.ndarray], step: int) -> tuple[list[np.ndarray], int]:
        """Returns the rows of each rank, and how many of all of them are fill."""
        ranks = range(self.config.world_size)
        run = _threads().map if len(ranks) > 1 and self.config.superbatch >= WORTH_THREADS else map
        found = list(run(lambda rank: self._pick_one(labels, goals, step, rank), ranks))
        return [rows for rows, _ in found], sum(fill for _, fill in found)

    def _pick_one(
        self, labels: Labels, goals: tuple[np.ndarray, np.ndarray], step: int, rank: int
    ) -> tuple[np.ndarray, int]:
        config, share = self.config, _rank_rows(len(labels.offsets) - 1, self.config)
        mine = labels._replace(offsets=labels.offsets[rank * share : (rank + 1) * share + 1])
        seed = None if config.fill else (self._seed, step, rank)
        rows, fill = _select(mine, config.batch_size // config.world_size, goals, self._rule, seed)
        return rank * share + rows, fill


class CabsFm:
    """CABS frequency maximisation: the b/W rows with the most concepts on each rank."""

    needs: tuple[str, ...] = ("concepts",)
    independent: bool = True

    def __init__(self, config: methods.CabsFm, *, seed: int = 0) -> None:
        """`seed` is part of every sampler's signature; nothing is random here."""
        self.config = config

    def pick(self, superbatch: pa.Table, step: int) -> list[np.ndarray]:
        """Returns one int64 array of row indices per rank; see `tasks.sample.Sampler`."""
        return self._pick(split(superbatch["concepts"])[0])

    def pick_and_account(self, superbatch: pa.Table, step: int) -> tuple[list[np.ndarray], Account]:
        """Returns what `pick` returns, and what it is held to account for."""
        labels = encode(superbatch["concepts"])
        picks = self._pick(np.diff(labels.offsets))
        frequencies = row_frequencies(labels.offsets, labels.ids, labels.size)
        return picks, account(labels, frequencies, picks, self.config)

    def _pick(self, lengths: np.ndarray) -> list[np.ndarray]:
        share = _rank_rows(len(lengths), self.config)
        quota = self.config.batch_size // self.config.world_size
        return [rank * share + _longest(mine, quota) for rank, mine in enumerate(lengths.reshape(-1, share))]


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads for the ranks of a superbatch, which need nothing of one another: the greedy loop holds no lock."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="cabs")


def _rule(variant: str, maximum: int, fill: bool) -> Rule:
    """Returns what sets the variants apart."""
    if variant == "printed":
        return Rule(repeats=False, cap=NO_CAP, met=0.0, penalty=0.0)
    return Rule(repeats=True, cap=int(maximum), met=-0.5, penalty=1.0 if fill else np.inf)


def _select(
    labels: Labels,
    quota: int,
    goals: tuple[np.ndarray, np.ndarray],
    rule: Rule,
    seed: int | tuple[int, ...] | None = None,
) -> tuple[np.ndarray, int]:
    """Returns the picks of one worker and how many of them, the last ones, are fill.

    Args:
        labels: The rows of this worker.
        quota: Rows wanted.
        goals: Targets and frequencies, int64 `(V,)` each.
        rule: From `_rule`.
        seed: Of the order of rows without concepts among the released code's picks; null: by index.
    """
    offsets, ids, size = labels.offsets, labels.ids, labels.size
    if not rule.repeats:
        offsets, ids = without_repeats(offsets, ids, size)
    picks, within = pick_greedily(offsets, ids, *goals, quota, rule)
    if len(picks) < quota:
        empty = np.flatnonzero(np.diff(offsets) == 0)
        missing = min(quota - len(picks), len(empty))
        if rule.repeats and seed is not None:
            empty = np.random.default_rng(seed).choice(empty, missing, replace=False)
        picks = np.concatenate((picks, empty[:missing]))
    return picks, len(picks) - within


def _longest(lengths: np.ndarray, count: int) -> np.ndarray:
    """Returns the indices of the `count` largest lengths, largest first, ties by lower index: int64."""
    return np.argsort(-lengths, kind="stable")[:count]


def _rank_rows(rows: int, config: methods.Batches) -> int:
    """Returns how many rows of a superbatch of so many each rank owns."""
    if rows != config.superbatch:
        raise ValueError(f"`superbatch` has {rows} rows; it must have {config.superbatch}")
    return config.superbatch // config.world_size
