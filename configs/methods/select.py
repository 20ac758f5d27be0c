"""Selections: which rows stay. One model a method; a stage with several has a union on `kind`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from configs.methods.diversity import Gais
from configs.methods.duplicates import ExactDuplicates, MinHash, NearDuplicates, Perceptual
from configs.methods.pools import Pools
from configs.methods.representation import ClusterBalanced, FacilityLocation, KCenter
from configs.methods.targets import Targeted
from configs.methods.trajectories import Trajectories
from configs.reasons import Reason
from configs.section import exactly_one


class Threshold(Targeted):
    """Keep rows whose score reaches a cut."""

    reasons: ClassVar[dict[str, Reason]] = {
        "below_threshold": Reason(
            "The score is below the cut.", "Its score stands beside it; lower `minimum`, or raise `keep_fraction`."
        ),
        "no_score": Reason("The score is null or NaN.", "`mixwright explain` tells what the stage before gave."),
    }

    kind: Literal["threshold"] = "threshold"
    score: str = Field("alignment", description="Name of the score.")
    minimum: float | None = Field(None, allow_inf_nan=False, description="Keep rows with a score of at least this.")
    keep_fraction: float | None = Field(
        None, gt=0, le=1, description="Keep the best-scored fraction of all rows: a global quantile. Ties are kept."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Threshold:
        exactly_one(minimum=self.minimum, keep_fraction=self.keep_fraction, target=self.target)
        return self


class Balance(Targeted):
    """Thin the commonest concepts: MetaCLIP-style balancing on whatever concepts `annotate` found.

    A concept in more than t rows keeps each of them with probability t / rows, a rarer one keeps all of its rows; a
    row stays if one of its concepts keeps it. The paper's own setting is captions against 500,000 entries (words and
    phrases of Wikipedia and WordNet) without case folding, and t = 20,000 for 400 million pairs.
    """

    reasons: ClassVar[dict[str, Reason]] = {
        "no_concept": Reason(
            "The annotator found no concept in the row.",
            "Give `annotate` a wider vocabulary or a lower threshold; balancing never keeps a row without a concept.",
        ),
        "balanced_out": Reason(
            "All its concepts are in many rows, and the draw went against it.",
            "Its score is the probability with which it was kept, or with a target the t from which it stays; raise "
            "`threshold`, `tail_share` or the target.",
        ),
    }

    kind: Literal["balance"] = "balance"
    threshold: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="t, in rows: concepts in more rows are thinned towards it. MetaCLIP: 20,000 for 400M pairs.",
    )
    tail_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Instead of `threshold`: t such that concepts in at most t rows hold about this share of all "
        "concept occurrences.",
    )
    draw: int = Field(
        0, ge=0, le=2**63 - 1, description="Another number draws anew: a second `balance` in one run needs its own."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Balance:
        exactly_one(threshold=self.threshold, tail_share=self.tail_share, target=self.target)
        return self


Select = Annotated[
    ExactDuplicates
    | Threshold
    | MinHash
    | Perceptual
    | NearDuplicates
    | Balance
    | FacilityLocation
    | KCenter
    | ClusterBalanced
    | Gais
    | Trajectories
    | Pools,
    Field(discriminator="kind"),
]
