"""Score rows: named float32 columns that selects, mixes and the emitted mix can refer to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import pyarrow as pa

from storage.states import Checkpoint, State
from tasks import Result


class Scorer(Protocol):
    """Scores the rows of one shard; built from its config model."""

    needs: tuple[str, ...]
    provides: tuple[str, ...]
    sketches: tuple[str, ...]
    """Those of `provides` that are no scores but what selects compare rows by; empty if left out."""

    def run(self, rows: pa.Table) -> Result:
        """One row per input row: the columns of `provides`, null where a row has no score."""
        ...


class FittedScorer(Scorer, Protocol):
    """A scorer that learns from all shards first; built as `Class(config, state=state)` for `run`, else without.

    One whose fit reads no rows says so by an attribute `learns_from_rows` that is False (True if left out): it gets no
    summaries, and stays the same step when shards come.
    """

    def summarise(self, rows: pa.Table) -> pa.Table:
        """What `fit` has to know of one shard: its `needs`, and `row: int64`, of the rows that no stage failed."""
        ...

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint) -> State:
        """Learn; `summaries` are in the order of the shards and read again at every iteration.

        What is saved in `checkpoint` is there when a fit that broke off is begun again.
        """
        ...


METHODS: dict[str, str] = {
    "alignment": "tasks.score.alignment:AlignmentScorer",
    "tokens": "tasks.score.tokens:Tokens",
    "image_digest": "tasks.score.digests:ImageDigest",
    "text_digest": "tasks.score.digests:TextDigest",
    "image_hash": "tasks.score.image_hash:ImageHasher",
    "minhash_signature": "tasks.score.minhash:MinHashSignature",
    "uds": "tasks.score.utility_diversity:UtilityDiversity",
    "losses": "tasks.score.losses:TokenLosses",
    "gradients": "tasks.score.gradients:Gradients",
    "trajectory": "tasks.score.trajectory:Trajectory",
    "cluster": "tasks.score.clusters:Clusters",
    "concept_group": "tasks.score.concept_groups:ConceptGroups",
    "score_group": "tasks.score.score_groups:ScoreGroups",
    "skill_graph": "tasks.score.skill_graph:SkillGraph",
}


def scores_of(method: Any) -> list[str]:
    """The columns of a method that are scores."""
    return [name for name in method.provides if name not in getattr(method, "sketches", ())]
