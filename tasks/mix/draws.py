"""From proportions to the draw list: counts by largest remainder, then every row finds its own draws.

Round after round, each round in a seeded random order. Within a group rows are taken without replacement, in a seeded
order that is new in every pass, until the group is used up; then the next pass begins. So no row of a group is used
twice before all were used once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from storage.fingerprints import fingerprint
from tasks.mix.permutation import permute, unpermute

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


def capped_counts(proportions: np.ndarray, draws: int, most: np.ndarray | None) -> np.ndarray:
    """Draws of every group in every round, no group drawn more than `most` over all rounds: int64 `(rounds, groups)`.

    Args:
        proportions: float64 `(rounds, groups)`.
        draws: In all. Fewer come out where `most` of the groups with a share does not suffice.
        most: int64 `(groups,)`; None: no bound.
    """
    counts = round_counts(proportions, draws)
    if most is None or (counts.sum(axis=0) <= most).all():
        return counts
    raise NotImplementedError


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

    def draws_of(self, group: int, ordinals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The draws of some rows of one group.

        Args:
            group: Index of the group.
            ordinals: int64 `(n,)`: position of each row among the surviving rows of its group, over all shards.

        Returns:
            `(which, draw, round)`, one entry a draw: index into `ordinals`, draw number, round.
        """
        size, wanted = int(self.rows[group]), int(self.counts[:, group].sum())
        passes = -(-wanted // size) if size else 0
        which, turns = [], []
        for number in range(passes):
            turn = number * size + unpermute(ordinals, size, seed_of(self.seed, "rows", group, number))
            drawn = np.flatnonzero(turn < wanted)
            which.append(drawn)
            turns.append(turn[drawn])
        if not passes:
            nothing = np.empty(0, np.int64)
            return nothing, nothing, nothing
        turn = np.concatenate(turns)
        in_round = np.searchsorted(np.cumsum(self.counts[:, group]), turn, side="right")
        return np.concatenate(which), self._places(group, turn, in_round), in_round

    def _places(self, group: int, turn: np.ndarray, in_round: np.ndarray) -> np.ndarray:
        """Draw numbers: a round's draws stand by group, then the round is shuffled."""
        before_round = np.concatenate([[0], np.cumsum(self.counts.sum(axis=1))])
        before_turn = np.concatenate([[0], np.cumsum(self.counts[:, group])])
        result = np.empty(len(turn), np.int64)
        for number in np.unique(in_round).tolist():
            mine = in_round == number
            place = int(self.counts[number, :group].sum()) + turn[mine] - before_turn[number]
            size = int(self.counts[number].sum())
            result[mine] = before_round[number] + permute(place, size, seed_of(self.seed, "round", number, 0))
        return result

    def rows_of(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows behind some draws, the inverse of `draws_of`: no list of all draws is made.

        Args:
            draws: int64 `(n,)`, each in [0, `total`).

        Returns:
            `(group, ordinal)`, int64 `(n,)` each: the group, and the position among its surviving rows.
        """
        groups, ordinals = np.empty(len(draws), np.int64), np.empty(len(draws), np.int64)
        ends = np.cumsum(self.counts.sum(axis=1))
        in_round = np.searchsorted(ends, draws, side="right")
        for number in np.unique(in_round).tolist():
            mine = np.flatnonzero(in_round == number)
            size = int(self.counts[number].sum())
            place = unpermute(draws[mine] - (ends[number] - size), size, seed_of(self.seed, "round", number, 0))
            group_ends = np.cumsum(self.counts[number])
            group = np.searchsorted(group_ends, place, side="right")
            before = self.counts[:number].sum(axis=0) - (group_ends - self.counts[number])
            groups[mine] = group
            ordinals[mine] = self._ordinals(group, place + before[group])
        return groups, ordinals

    def _ordinals(self, groups: np.ndarray, turns: np.ndarray) -> np.ndarray:
        """Position among the rows of its group that each turn of it takes: int64 `(n,)`."""
        result = np.empty(len(turns), np.int64)
        passes, at = np.divmod(turns, np.maximum(1, self.rows[groups]))
        which = passes * len(self.rows) + groups
        for one in np.unique(which).tolist():
            number, group = divmod(one, len(self.rows))
            mine = np.flatnonzero(which == one)
            result[mine] = permute(at[mine], int(self.rows[group]), seed_of(self.seed, "rows", group, number))
        return result


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
    weights, parts = plan.weights(), []
    for group in np.unique(groups).tolist():
        mine = rows[groups == group]
        which, draw, in_round = plan.draws_of(group, offsets[group] + np.arange(len(mine)))
        columns = [draw, in_round, mine[which], weights[in_round, group], np.full(len(draw), group)]
        parts.append(pa.table([pa.array(c, f.type) for c, f in zip(columns, DRAWS, strict=True)], schema=DRAWS))
    return pa.concat_tables(parts).sort_by("draw") if parts else DRAWS.empty_table()
