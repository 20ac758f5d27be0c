"""Mix: which rows are drawn, how often and in which round. A method plans proportions; shared code draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from storage.states import Checkpoint


class Group(NamedTuple):
    """A group of rows to be mixed."""

    name: str
    rows: int
    """Rows of the group that survived selection."""


class Mixer(Protocol):
    """A mixing law; built as `Mixer(config, seed=seed)`."""

    def plan(self, groups: Sequence[Group], draws: int, checkpoint: Checkpoint) -> np.ndarray:
        """Proportions per round: float64 `(rounds, groups)`, each row non-negative with sum one.

        Raises:
            ValueError: The configuration does not fit the groups.
        """
        ...


METHODS: dict[str, str] = {"static": "tasks.mix.static:StaticMix"}
