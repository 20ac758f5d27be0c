"""What learned mixing laws have in common: a sample of each group, a proxy that learns from it, rounds of proportions.

A law's facts, JSON-ready, are `kind`; `mode`, which is `restricted` where a prior came first; `groups`, the names of
those that were learned on; `rounds`, of each the `step` of the proxy when its proportions were set, the validation
`losses` at its beginning (of laws that weigh every step: at its end), its `proportions`, and the `matrix` behind them
or null; `final_losses`, the last sound ones that were measured (none where there was nothing to learn); `stopped`, null
or a sentence; `left_out`, the names of the other groups. Methods add their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from storage.states import Checkpoint
from tasks.embed.device import resolve_device
from tasks.mix import Group, Proportions
from tasks.mix.course import Course, Diverged
from tasks.mix.samples import Samples
from tasks.mix.simplex import uniform


class LearnedMix:
    """Base of the learned laws, a `tasks.mix.LearnedMixer`; a law of its own has `follow`.

    Groups that nothing can be learned of keep their natural share, and the others share the rest. One group alone has
    share 1, and nothing is trained. If the proxy diverges, learning stops: the proportions that were set last from
    sound losses hold for the rest (before the first: what the law begins with), and warning and facts say so.
    """

    def __init__(self, config: Any, *, seed: int) -> None:
        self.config, self.seed = config, seed
        self._samples = Samples(config, self.device)
        self.needs: tuple[str, ...] = self._samples.needs
        self.input_columns: tuple[str, ...] = self._samples.input_columns
        self.libraries: tuple[str, ...] = self._samples.libraries

    @property
    def device(self) -> str:
        """`cpu` or `cuda`."""
        return resolve_device(self.config.device)

    def check(self) -> None:
        """Raise a MixwrightError if something is missing that the proxy needs."""
        self._samples.check()

    def check_columns(self, schema: pa.Schema) -> None:
        """Raise ColumnError if `input_columns` are of types that the proxy cannot read."""
        self._samples.check_columns(schema)

    def depends_on(self) -> dict[str, Any]:
        """What the proportions depend on besides the configuration."""
        return self._samples.depends_on()

    def summarise(self, rows: pa.Table, labels: pa.Array) -> pa.Table:
        """A sample of each group of a shard; see `tasks.mix.LearnedMixer`."""
        return self._samples.summarise(rows, labels)

    def learn(self, groups: Sequence[Group], summaries: Iterable[pa.Table], checkpoint: Checkpoint) -> Proportions:
        """See `tasks.mix.LearnedMixer`.

        Raises:
            ConfigError: The configuration does not fit the groups.
        """
        rows = np.array([group.rows for group in groups], np.float64)
        names, natural = [group.name for group in groups], rows / rows.sum()
        notes = self.knows(names)
        built = self._samples.build(names, summaries)
        learned = built.learned
        mine = np.array([name in set(learned) for name in names], bool)
        left_out = [name for name, is_mine in zip(names, mine, strict=True) if not is_mine]
        facts: dict[str, Any] = {"kind": self.config.kind, "mode": self.mode, "groups": learned}
        warnings = [*built.told, *_kept_natural(left_out)]
        law, own = uniform(len(learned))[None] if learned else np.empty((1, 0)), _NOTHING
        if len(learned) == 1:
            warnings.append(f"nothing is learned: {learned[0]!r} is the only group that a proxy can learn of")
        if len(learned) > 1:
            law, own = self._learned(built.proxy, learned, checkpoint, warnings)
        shares = np.repeat(natural[None], len(law), axis=0)
        shares[:, mine] = law * natural[mine].sum()
        facts |= {**own, "left_out": left_out}
        return Proportions(shares / shares.sum(axis=1, keepdims=True), notes, warnings, facts)

    def _learned(
        self, proxy: Any, names: list[str], checkpoint: Checkpoint, warnings: list[str]
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Rounds of proportions of the groups that are learned on, float64 `(r, m)`, and facts; adds to `warnings`."""
        begun = self.begins_with(names)
        course, stopped = Course(proxy, self.config.kind, self.config.rounds, checkpoint, names), None
        try:
            self.follow(course)
            course.tell()
        except Diverged as error:
            kept = f"round {course.rounds}" if course.rounds else "the beginning"
            stopped = f"{error}; the proportions of {kept} are kept for the rest"
            warnings.append(f"{stopped}; take a lower `mix.learning_rate`")
        rounds = course.proportions if course.rounds else begun[None]
        warnings += self.doubts(course)
        return self._applied(rounds), {**course.facts(), "stopped": stopped, **self.more(course)}

    def _applied(self, rounds: np.ndarray) -> np.ndarray:
        """What the mix takes over: float64 `(r, m)`."""
        missing = self.config.rounds - len(rounds)
        every = np.concatenate([rounds, np.repeat(rounds[-1:], missing, axis=0)])
        if self.config.apply == "rounds":
            return every
        return every.mean(axis=0, keepdims=True) if self.config.apply == "average" else every[-1:]

    # ----------------------------------------------------------------------------------------------- of the single law
    @property
    def mode(self) -> str:
        """`unrestricted`, or `restricted` where a prior comes first."""
        return "unrestricted"

    def knows(self, names: list[str]) -> list[str]:
        """Notes about how the configuration names the groups `names`, which are all that have rows.

        Raises:
            ConfigError: It names others.
        """
        return []

    def begins_with(self, names: list[str]) -> np.ndarray:
        """Proportions of those that are learned on, `names`, before anything is learned: float64 `(m,)`.

        Raises:
            ConfigError: The configuration does not fit the groups.
        """
        return uniform(len(names))

    def follow(self, course: Course) -> None:
        """Train, and record rounds of proportions; begun again with a saved course it goes on from there."""
        raise NotImplementedError

    def doubts(self, course: Course) -> list[str]:
        """Warnings about what was found."""
        return []

    def more(self, course: Course) -> dict[str, Any]:
        """Facts of its own."""
        return {}


_NOTHING: Mapping[str, Any] = {"rounds": [], "final_losses": [], "stopped": None}
"""Facts where there is nothing to be learned."""


def _kept_natural(names: list[str]) -> list[str]:
    if not names:
        return []
    first = ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
    return [f"natural shares are kept for {first}, of which nothing can be learned; the other groups share the rest"]
