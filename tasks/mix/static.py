"""Static mix: proportions as the user gives them, perhaps round by round, or as the groups occur."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from configs.errors import ConfigError
from storage.states import Checkpoint
from tasks.mix import Group, Proportions
from tasks.mix.derived import natural_shares

NAMED = 3
"""Groups or rounds that a sentence names before it only counts them."""


class StaticMix:
    """Given proportions, one entry a round, normalised to one over the groups that have rows."""

    def __init__(self, config: Any, *, seed: int) -> None:
        del seed  # nothing is drawn here
        self._given: dict[str, float] | Sequence[dict[str, float]] | None = config.proportions

    def plan(self, groups: Sequence[Group], draws: int, checkpoint: Checkpoint) -> Proportions:
        """See `Mixer`. A proportion above 0 for a group without rows is refused: its share cannot be drawn."""
        if self._given is None:
            return Proportions(natural_shares(np.array([group.rows for group in groups]))[None])
        rounds = [self._given] if isinstance(self._given, Mapping) else list(self._given)
        names = [group.name for group in groups]
        for number, given in enumerate(rounds):
            self._check(given, self._called(number), names)
        shares = np.array([[given.get(name, 0.0) for name in names] for given in rounds], np.float64)
        shares /= shares.max(axis=1, keepdims=True)  # so that no sum overflows
        return Proportions(shares / shares.sum(axis=1, keepdims=True), self._notes(rounds, groups))

    def _called(self, number: int) -> str:
        """What the proportions of a round are called in the configuration."""
        return "`mix.proportions`" if isinstance(self._given, Mapping) else f"`mix.proportions.{number}`"

    @staticmethod
    def _check(given: Mapping[str, float], called: str, names: Sequence[str]) -> None:
        there = set(names)
        absent = sorted(name for name, share in given.items() if share > 0 and name not in there)
        if absent:
            raise ConfigError(
                f"{called} names {absent[0]!r}, but no row of that group survived selection; the groups are "
                f"{some(names, 20)}"
            )
        if not any(share > 0 for share in given.values()):
            raise ConfigError(f"{called} is {dict(given)}; one of the groups needs a share above 0")

    def _notes(self, rounds: Sequence[Mapping[str, float]], groups: Sequence[Group]) -> list[str]:
        """That sums are not one, and whose rows are not drawn."""
        sums = [sum(given.values()) for given in rounds]
        other = [i for i, total in enumerate(sums) if abs(total - 1) > 1e-6]
        notes = [f"{self._called(i)} sums to {sums[i]:,.6g}; it is normalised to one" for i in other[:NAMED]]
        if len(other) > NAMED:
            notes[-1] += f", as are {len(other) - NAMED} more rounds"
        unnamed = [group for group in groups if not any(group.name in given for given in rounds)]
        if unnamed:
            rows = sum(group.rows for group in unnamed)
            notes.append(
                f"`mix.proportions` has no entry for {some([group.name for group in unnamed], NAMED)}: "
                f"{rows:,} rows are not drawn"
            )
        return notes


def some(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
