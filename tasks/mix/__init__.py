"""Mix: which rows are drawn, how often and in which round. A method plans proportions; shared code draws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from storage.states import Checkpoint


class Group(NamedTuple):
    """A group of rows to be mixed."""

    name: str
    rows: int
    """Rows of the group that survived selection."""
    size: int = 0
    """Their bytes or tokens together, where the budget is in these."""


class Proportions(NamedTuple):
    """What a mixing law says."""

    rounds: np.ndarray
    """float64 `(rounds, groups)`: shares among the draws of each round, each row non-negative with sum one."""
    notes: Sequence[str] = ()
    """What the reader of log and report should know: that weights were normalised, say."""
    warnings: Sequence[str] = ()
    """What its user may want to change: a proxy that diverged, a group that nothing could be learned of."""
    facts: Mapping[str, Any] = {}
    """What the report shows of a learned law, JSON-ready; see `tasks.mix.learning`."""


class Mixer(Protocol):
    """A mixing law; built as `Mixer(config, seed=seed)`."""

    def plan(self, groups: Sequence[Group], draws: int, checkpoint: Checkpoint) -> Proportions:
        """Proportions of `groups`, which are those that have rows, by code point of their names.

        Raises:
            ConfigError: The configuration does not fit the groups.
        """
        ...


class LearnedMixer(Protocol):
    """A mixing law that learns from rows first, on a sample of each group."""

    needs: tuple[str, ...]
    """Columns that its proxy reads."""
    input_columns: tuple[str, ...]
    """Those of `needs` that are columns of the input by the name the user gave."""
    libraries: tuple[str, ...]
    """Distributions that make its numbers."""
    device: str
    """`cpu` or `cuda`."""

    def check(self) -> None:
        """Raise a MixwrightError if something is missing that it needs."""
        ...

    def summarise(self, rows: pa.Table, labels: pa.Array) -> pa.Table:
        """What it needs to know of one shard: a sample of each group, bounded, whatever the cut into shards.

        Args:
            rows: `row: int64` and the columns of `needs`, of the rows that selection kept.
            labels: string `(n,)`: the group of each.
        """
        ...

    def learn(self, groups: Sequence[Group], summaries: Iterable[pa.Table], checkpoint: Checkpoint) -> Proportions:
        """Proportions of `groups`, learned from the summaries of all shards, which are read again at every iteration.

        What is saved in `checkpoint` is there when one that broke off is begun again.
        """
        ...


METHODS: dict[str, str] = {
    "static": "tasks.mix.static:StaticMix",
    "natural": "tasks.mix.derived:NaturalMix",
    "uniform": "tasks.mix.derived:UniformMix",
    "temperature": "tasks.mix.derived:TemperatureMix",
    "unimax": "tasks.mix.derived:UnimaxMix",
    "balance": "tasks.mix.derived:BalanceMix",
    "aioli": "tasks.mix.aioli:AioliMix",
    "doremi": "tasks.mix.doremi:DoremiMix",
    "doge": "tasks.mix.doge:DogeMix",
    "skill_it": "tasks.mix.skill_it:SkillItMix",
    "mixing_law": "tasks.mix.mixing_law:MixingLawMix",
}
