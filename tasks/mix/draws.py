"""From proportions to the draw list: counts by largest remainder, then every row finds its own draws.

Round after round, each round in a seeded random order. Within a group rows are taken without replacement, in a seeded
order that is new in every pass, until the group is used up; then the next pass begins. So no row of a group is used
twice before all were used once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from blake3 import blake3

from storage.fingerprints import fingerprint
from tasks.mix.permutation import SEED_BYTES, keys, keys_each, permute_each

SLICE = 1 << 19
"""Draws that are found at once, about."""
DRAWS = pa.schema(
    [
        ("draw", pa.int64()),
        ("round", pa.int32()),
        ("row", pa.int64()),
        ("weight", pa.float32()),
        ("group", pa.int32()),
    ]
)


def largest_remainder(proportions: np.ndarray, total: int) -> np.ndarray:
    """Counts that add up to `total`, as near to `proportions * total` as whole numbers come: int64 `(n,)`.

    Floors first, then one more for the largest remainders; the lowest index on ties.
    """
    quota = np.asarray(proportions, np.float64) * total
    # 0.1 * 30 is 3.0000000000000004 and 0.07 * 100 is 7.000000000000001: whole numbers are meant.
    near = np.abs(quota - np.rint(quota)) <= np.maximum(1e-9, 4 * np.spacing(quota))
    quota = np.where(near, np.rint(quota), quota)
    counts = np.floor(quota).astype(np.int64)
    missing = total - int(counts.sum())
    order = np.argsort(-(quota - counts), kind="stable")
    counts[order[:missing]] += 1
    return counts


def round_counts(proportions: np.ndarray, draws: int) -> np.ndarray:
    """Draws of every group in every round: int64 `(rounds, groups)` with sum `draws`, rounds as equal as can be."""
    rounds = len(proportions)
    sizes = largest_remainder(np.full(rounds, 1 / rounds), draws)
    return np.stack([largest_remainder(row, int(size)) for row, size in zip(proportions, sizes, strict=True)])


def most_draws(rows: np.ndarray, max_epochs: float) -> np.ndarray:
    """Draws that each group may have in all: int64 `(groups,)`, whole numbers of at most `max_epochs * rows`."""
    with np.errstate(over="ignore"):
        most = np.minimum(max_epochs * rows.astype(np.float64), 2.0**62)
    most = np.floor(most + np.maximum(1e-9, 4 * np.spacing(most)))  # 0.29 * 100 is 28.999999999999996
    return most.astype(np.int64)


def capped_counts(proportions: np.ndarray, draws: int, most: np.ndarray | None) -> np.ndarray:
    """Draws of every group in every round, no group drawn more than `most` over all rounds: int64 `(rounds, groups)`.

    A group that would exceed it has all of its rounds cut by one factor, so that it lasts to the end; in each round the
    others that have a share and room get the difference, in proportion. What no group of a round has room for goes to
    the rounds that have, in equal parts.

    Args:
        proportions: float64 `(rounds, groups)`.
        draws: In all. Fewer come out only where every group with a share in some round has had its `most`.
        most: int64 `(groups,)`; None: no bound.
    """
    counts = round_counts(proportions, draws)
    if most is None:
        return counts
    sizes, bound, room = counts.sum(axis=1), np.minimum(most, draws), np.full_like(counts, draws)
    while len(over := np.flatnonzero(counts.sum(axis=0) > bound)):  # what is cut once stays within its bound
        for group in over:
            mine = counts[:, group]
            room[:, group] = largest_remainder(mine / mine.sum(), int(bound[group]))
        counts = np.stack([filled(*one) for one in zip(proportions, sizes.tolist(), room, strict=True)])
    _place(counts, proportions, draws, bound)
    return counts


def _place(counts: np.ndarray, proportions: np.ndarray, draws: int, bound: np.ndarray) -> None:
    """Add the draws that `counts` lack, as far as `bound` lets groups have more."""
    while owed := draws - int(counts.sum()):
        room = bound - counts.sum(axis=0)
        rounds = np.flatnonzero(((proportions > 0) & (room > 0)).any(axis=1))
        if not len(rounds):
            return
        for number, part in zip(rounds, largest_remainder(np.full(len(rounds), 1 / len(rounds)), owed), strict=True):
            more = filled(proportions[number], int(part), room)
            counts[number] += more
            room -= more


def filled(shares: np.ndarray, total: int, room: np.ndarray) -> np.ndarray:
    """Counts in proportion to `shares` with sum `total`, none above `room`, by water-filling: int64 `(groups,)`.

    Groups that have no room for their part get all they have room for, the others share the rest in proportion. The
    sum is less than `total` only where all groups with a share are full.
    """
    counts = np.zeros(len(shares), np.int64)
    left = np.flatnonzero((shares > 0) & (room > 0))
    if int(room[left].sum()) <= total:
        counts[left] = room[left]
        return counts
    with np.errstate(over="ignore"):  # of a share next to nothing: it is full last
        full_at = room[left] / shares[left]
        order = np.argsort(full_at, kind="stable")
        left, full_at = left[order], full_at[order]
        behind = np.cumsum(shares[left][::-1])[::-1]
        full = (total - (np.cumsum(room[left]) - room[left])) > full_at * behind  # True up to some group, then False
    over = left[: int(np.argmin(full))]
    while True:  # once, but for groups that are all but full, as floats see it
        counts[over] = room[over]
        left = np.setdiff1d(left, over)
        part = largest_remainder(shares[left] / math.fsum(shares[left]), total - int(counts.sum()))
        if (part <= room[left]).all():
            counts[left] = part
            return counts
        over = left[part > room[left]]


@dataclass(frozen=True)
class DrawPlan:
    """What every shard needs to know to find its draws."""

    counts: np.ndarray
    """int64 `(rounds, groups)`: draws."""
    rows: np.ndarray
    """int64 `(groups,)`: surviving rows."""
    seed: int

    @property
    def total(self) -> int:
        """Draws in all."""
        return int(self.counts.sum())

    def weights(self) -> np.ndarray:
        """Share among the draws over share among the surviving rows, float32 `(rounds, groups)`."""
        drawn = self.counts / np.maximum(1, self.counts.sum(axis=1, keepdims=True))
        natural = self.rows / max(1, int(self.rows.sum()))
        return (drawn / np.where(natural > 0, natural, 1)).astype(np.float32)

    @cached_property
    def _turns(self) -> np.ndarray:
        """Where each round's turns of each group end, group after group: int64 `(groups * rounds,)`."""
        return np.cumsum(self.counts.T.ravel())

    @cached_property
    def _rounds(self) -> np.ndarray:
        """Draws before each round, and in all: int64 `(rounds + 1,)`."""
        return np.concatenate([[0], np.cumsum(self.counts.sum(axis=1))])

    @cached_property
    def _places(self) -> np.ndarray:
        """What is added to a group's turn to have its place within a round that stands by group, `(rounds, groups)`."""
        before_group = np.cumsum(self.counts, axis=1) - self.counts
        before_round = np.cumsum(self.counts, axis=0) - self.counts
        return before_group - before_round

    def draws_of(self, groups: np.ndarray | int, ordinals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The draws of some rows, of all passes over their groups.

        Args:
            groups: int64 `(n,)`: index of each row's group; or one for all.
            ordinals: int64 `(n,)`: position of each row among the surviving rows of its group, over all shards.

        Returns:
            `(which, draw, round)`, one entry a draw: index into `ordinals`, draw number, round.
        """
        wanted = self.counts.sum(axis=0)
        group = np.broadcast_to(groups, ordinals.shape)
        passes = (-(-wanted // np.maximum(1, self.rows)))[group]
        which = np.repeat(np.arange(len(ordinals)), passes)
        number = np.arange(len(which)) - np.repeat(np.cumsum(passes) - passes, passes)
        group = group[which]
        turn = number * self.rows[group] + self._shuffled(ordinals[which], group, number, inverse=True)
        drawn = turn < wanted[group]
        which, group, turn = which[drawn], group[drawn], turn[drawn]
        rounds = len(self.counts)
        before = self._turns[group * rounds + rounds - 1] - wanted[group]
        in_round = np.searchsorted(self._turns, before + turn, side="right") - group * rounds
        place = turn + self._places[in_round, group]
        return which, self._rounds[in_round] + self._mixed(place, in_round, inverse=False), in_round

    def rows_of(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows behind some draws, the inverse of `draws_of`: no list of all draws is made.

        Args:
            draws: int64 `(n,)`, each in [0, `total`).

        Returns:
            `(group, ordinal)`, int64 `(n,)` each: the group, and the position among its surviving rows.
        """
        in_round = np.searchsorted(self._rounds[1:], draws, side="right")
        place = self._mixed(draws - self._rounds[in_round], in_round, inverse=True)
        ends = np.cumsum(self.counts.ravel())  # round after round, by group
        group = np.searchsorted(ends, self._rounds[in_round] + place, side="right") - in_round * len(self.rows)
        number, at = np.divmod(place - self._places[in_round, group], np.maximum(1, self.rows[group]))
        return group, self._shuffled(at, group, number, inverse=False)

    def _mixed(self, places: np.ndarray, in_round: np.ndarray, *, inverse: bool) -> np.ndarray:
        """Places within rounds that stand by group, shuffled; or, if `inverse`, put back."""
        sizes = np.diff(self._rounds)[in_round]
        return permute_each(places, sizes, self._round_keys, in_round, inverse=inverse)

    @cached_property
    def _round_keys(self) -> np.ndarray:
        """The keys of each round's order: uint64 `(rounds, 6)`."""
        return np.stack([keys(seed_of(self.seed, "round", number, 0)) for number in range(len(self.counts))])

    def _shuffled(self, at: np.ndarray, groups: np.ndarray, passes: np.ndarray, *, inverse: bool) -> np.ndarray:
        """Positions among the rows of their groups in the order of a pass; or, if `inverse`, the turns of positions."""
        orders, which = np.unique(passes * len(self.rows) + groups, return_inverse=True)
        number, group = np.divmod(orders, max(1, len(self.rows)))
        return permute_each(at, self.rows[groups], rows_keys(self.seed, group, number), which, inverse=inverse)


def rows_keys(seed: int, groups: np.ndarray, passes: np.ndarray) -> np.ndarray:
    """The keys of the orders that groups have in passes, `keys(seed_of(seed, "rows", group, pass))`: uint64 `(n, 6)`.

    Made anew at every call, at about 1 µs each: all groups and passes of a mix may be too many to be kept.
    """
    # What `fingerprint` digests, spelt out: it would be most of the time.
    orders = zip(groups.tolist(), passes.tolist(), strict=True)
    texts = (b'{"of":["rows",%d,%d],"seed":%d}' % (*order, seed) for order in orders)
    return keys_each(b"".join([blake3(text).digest(length=SEED_BYTES) for text in texts]))


def seed_of(seed: int, *what: str | int) -> int:
    """The seed of one stream of random numbers."""
    return int(fingerprint({"seed": seed, "of": list(what)}), 16)


def shard_draws(plan: DrawPlan, rows: np.ndarray, groups: np.ndarray, offsets: np.ndarray) -> pa.Table:
    """The draws of one shard's rows, by draw: the columns of `DRAWS`.

    Args:
        plan: The plan.
        rows: int64 `(n,)`: surviving rows of the shard, ascending.
        groups: int64 `(n,)`: their groups.
        offsets: int64 `(groups,)`: surviving rows of each group in earlier shards.
    """
    # By group: so the keys of a group's passes are made once, or for each of the slices that the group is cut into.
    order = np.argsort(groups, kind="stable")
    rows, groups = rows[order], groups[order]
    counts = np.bincount(groups, minlength=len(offsets))
    ordinals = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts) + offsets[groups]
    # A slice of the rows at a time: the passes over them take several times the room of what comes out.
    ends = np.cumsum(np.ceil(plan.counts.sum(axis=0) / np.maximum(1, plan.rows))[groups])
    weights, parts = plan.weights(), []
    for some in np.split(np.arange(len(rows)), np.searchsorted(ends, np.arange(SLICE, ends[-1:].sum(), SLICE))):
        which, draw, in_round = plan.draws_of(groups[some], ordinals[some])
        group = groups[some[which]]
        columns = [draw, in_round, rows[some[which]], weights[in_round, group], group]
        parts.append(pa.table([pa.array(c, f.type) for c, f in zip(columns, DRAWS, strict=True)], schema=DRAWS))
    return pa.concat_tables(parts).sort_by("draw")
