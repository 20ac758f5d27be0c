"""Static mix: proportions as the user gives them, or as the groups occur."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from configs.errors import ConfigError
from storage.states import Checkpoint
from tasks.mix import Group, Proportions


class StaticMix:
    """One round; given proportions are normalised to one over the groups that have rows."""

    def __init__(self, config: Any, *, seed: int) -> None:
        del seed  # nothing is drawn here
        self._proportions: dict[str, float] | None = config.proportions

    def plan(self, groups: Sequence[Group], draws: int, checkpoint: Checkpoint) -> Proportions:
        """See `Mixer`. A proportion above 0 for a group without rows is refused: its share cannot be drawn."""
        if self._proportions is None:
            shares = np.array([group.rows for group in groups], np.float64)
            return Proportions((shares / shares.sum())[None])
        present = {group.name for group in groups}
        absent = sorted(name for name, share in self._proportions.items() if share > 0 and name not in present)
        if absent:
            raise ConfigError(
                f"`mix.proportions` names {absent[0]!r}, but no row of that group survived selection; "
                f"the groups are {', '.join(sorted(present))}"
            )
        shares = np.array([self._proportions.get(group.name, 0.0) for group in groups], np.float64)
        if shares.sum() <= 0:
            raise ConfigError(f"`mix.proportions` is {self._proportions}; one of the groups needs a share above 0")
        return Proportions((shares / shares.sum())[None])
