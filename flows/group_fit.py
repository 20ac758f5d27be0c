"""Whether a mixing law can do with the groups: refused where they are counted, a note where they are not."""

from __future__ import annotations

from typing import Any

from configs.curate import Curate
from configs.errors import ConfigError
from configs.methods.grouping import ClusterGroups, ConceptGroups, ScoreGroups
from flows.planning import planned_budget
from storage.states import Checkpoint
from tasks import load, mix
from tasks.mix import Group
from tasks.mix.samples import LEAST_ROWS


def refuse_unfit(config: Curate, rows: dict[str, int], exact: bool) -> None:
    """Raise ConfigError if the mixing law cannot do with the groups that there are, whatever selection keeps.

    Only of groups that are counted, `exact`: estimated ones refuse nothing.
    """
    if not exact or not rows:
        return
    method = load(mix.METHODS, config.mix, seed=config.seed)
    if hasattr(method, "learn"):
        _begin(config, method, rows)
    else:
        groups = [Group(name, n, n) for name, n in rows.items()]
        method.plan(groups, planned_budget(config).draws or sum(rows.values()), Checkpoint("", lambda line: None))


def _begin(config: Curate, method: Any, rows: dict[str, int]) -> list[str]:
    """What a learned law says of the groups; it learns on those that have rows enough, if there are two.

    Raises:
        ConfigError: It cannot learn on them.
    """
    section: Any = config.mix
    notes: list[str] = method.knows([*rows])
    least = min(LEAST_ROWS, section.train_rows + section.validation_rows)
    enough = [name for name, n in rows.items() if n >= least]
    if len(enough) > 1:
        method.begins_with(enough)
    return notes


def doubts(config: Curate, method: Any, rows: dict[str, int]) -> list[str]:
    """Notes on whether a learned law fits groups that are estimated, or only bounded by the configuration.

    Args:
        config: The run's.
        method: The law.
        rows: Of each group; not looked at where a score of the run makes the groups.
    """
    bound = most_groups(config)
    try:
        if bound is None:
            return _begin(config, method, rows) if rows else []
        prior = [*(getattr(config.mix, "prior", None) or {})]
        method.begins_with([*prior, *map(str, range(bound))][:bound])
    except ConfigError as error:
        groups = "the groups of the sample" if bound is None else f"{bound:,} groups, as many as there may be,"
        return [f"with {groups} the mix would be refused: {error}"]
    return []


def most_groups(config: Curate) -> int | None:
    """The most groups that a score makes; None where the input names them."""
    groups = config.mix.groups
    if isinstance(groups, ClusterGroups):
        return groups.clusters + 1  # and the rows without embedding
    if isinstance(groups, ConceptGroups):
        return (groups.count if groups.concepts is None else len({*groups.concepts})) + 1  # and those without any
    if isinstance(groups, ScoreGroups):
        return groups.buckets + 1  # and those without the score
    return None
