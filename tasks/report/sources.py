"""Shares of the groups over the steps of the batch plan: among the candidates, and among what was picked of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from storage.steps import Step
from tasks.report.coverage import POINTS
from tasks.report.utility import bin_of, first_steps

MOST = 8
"""Groups told one by one; the others are one."""
EACH = 100
"""Picks that a place in the drawing holds at the least, so that it is more than noise."""
FEWEST = 12
"""Places that there are all the same, if there are so many steps."""


def largest(counts: Sequence[int], names: Sequence[str], most: int = MOST) -> list[int]:
    """The groups with the most draws, by number, the largest first; of equal ones the first by name."""
    return sorted(range(len(names)), key=lambda one: (-counts[one], names[one]))[:most]


def bins_of(rows: int, steps: int) -> np.ndarray:
    """The first step of each bin, and the end of the last one; `rows`: of the batch plan of `steps` batches."""
    return first_steps(steps, min(POINTS, max(FEWEST, rows // EACH)))


def counted(group: np.ndarray, step: np.ndarray, shown: Sequence[int], first: np.ndarray) -> np.ndarray:
    """Rows by group of `shown`, others last, and by bin of steps: int64 `(groups + 1, bins)`.

    Args:
        group: `(n,)`, int.
        step: `(n,)`, int; those beyond the plan are of no whole batch and not counted.
        shown: Groups, by number.
        first: From `bins_of`.
    """
    inside = step < first[-1]
    at, bins = bin_of(step[inside], first), len(first) - 1
    place = np.full(max([int(group.max(initial=0)), *shown]) + 1, len(shown), np.int64)
    place[list(shown)] = np.arange(len(shown))
    found = np.bincount(place[group[inside]] * bins + at, minlength=(len(shown) + 1) * bins)
    return found.reshape(len(shown) + 1, bins)


def candidates(
    mixed: Step, digests: Iterable[str], shown: Sequence[int], first: np.ndarray, size: int
) -> list[list[int]]:
    """Draws of some shards, as `counted` returns them; memory is bounded by a shard.

    Args:
        mixed: The mix's step in the store.
        digests: Of the shards.
        shown, first: As in `counted`.
        size: Draws of a superbatch.
    """
    total = np.zeros((len(shown) + 1, len(first) - 1), np.int64)
    for digest in digests:
        draws = mixed.read(digest, ["draw", "group"])
        total += counted(draws["group"].to_numpy(), draws["draw"].to_numpy() // size, shown, first)
    return total.tolist()


def picks(sample: Step, parts: Sequence[int], shown: Sequence[int], first: np.ndarray) -> list[list[int]]:
    """Rows of the batch plan, as `counted` returns them; memory is bounded by a part. `parts`: rows of each."""
    total = np.zeros((len(shown) + 1, len(first) - 1), np.int64)
    for number in (number for number, rows in enumerate(parts) if rows):
        plan = sample.read(f"part-{number:05d}", ["step", "group"])
        total += counted(plan["group"].to_numpy(), plan["step"].to_numpy(), shown, first)
    return total.tolist()


def told(
    names: Sequence[str], others: int, offered: Sequence[Any], taken: Sequence[Any], first: np.ndarray
) -> dict[str, Any]:
    """What the report says: `names`; `others`: groups that are the last of the counts together; `steps`; `first`: of
    each bin its first step; `candidates` and `picks`: rows by group and bin.

    Args:
        names: Of the groups that are counted one by one.
        others: How many others there are.
        offered: From `candidates`, of all blocks.
        taken: From `picks`.
        first: From `bins_of`.
    """
    every = np.sum([np.array(one, np.int64) for one in offered], axis=0)
    return {
        "names": list(names),
        "others": others,
        "steps": int(first[-1]),
        "first": first[:-1].tolist(),
        "candidates": every.tolist(),
        "picks": [list(one) for one in taken],
    }
