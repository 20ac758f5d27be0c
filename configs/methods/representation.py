"""Selections for diversity by representation: the rows that stand best for all others, to a target size."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from configs.methods.targets import KeepBy, Targeted
from configs.reasons import Reason

Clusters = Annotated[int, Field(ge=1, le=32767)]
NO_DIRECTION = {
    "no_direction": Reason(
        "The row's embedding is zero or not finite, so that it is like no other row; such rows go first.",
        "Look at the row and at the embed step, or raise the target beyond the rows that have a direction.",
    )
}


class Representation(Targeted):
    """What these selections share: an embedding, and a target that they cannot do without."""

    embedding: Literal["image", "text"] = Field("image", description="Which embedding is compared.")

    @model_validator(mode="after")
    def _has_a_target(self) -> Representation:
        if self.target is None:
            names = ", ".join(f"`{name}`" for name in Targeted.model_fields)
            raise ValueError(f"{self.kind} has no size to work towards; give one of {names}")  # type: ignore[attr-defined]
        return self


class Ordered(Representation):
    """What selections share that take the rows of k-means cells one by one."""

    keep_by: KeepBy = Field(
        None,
        description="Which of rows that add the same is taken first: `first`, `longest_text`, `largest_image` "
        "(pixels), `most_bytes`, or the highest value of a score; of a list, ties go to the next. Last ties and null: "
        "lowest (file, row).",
    )
    bucket_rows: int = Field(
        8192,
        ge=2,
        le=65536,
        description="Rows per k-means cell, about. Rows are compared inside a cell: with no more rows than this the "
        "result is that of the method itself; larger cells come nearer to it for more work and memory.",
    )


class FacilityLocation(Ordered):
    """Keep the rows that represent all rows best.

    Greedy choice for the sum, over all rows, of the similarity with the most similar row kept: the cosine, clipped at
    0. Dense regions get more rows than sparse ones, and outliers come last.
    """

    reasons: ClassVar[dict[str, Reason]] = {
        "well_represented": Reason(
            "The rows that are kept represent the row, and those like it, well enough for the target.",
            "Its score is what it would have added, in units of one row's cosine; raise the target to keep more.",
        )
    } | NO_DIRECTION

    kind: Literal["facility_location"] = "facility_location"


class KCenter(Ordered):
    """Keep rows such that the farthest row is as near to one of them as can be.

    Farthest-first choice by the distance of unit rows, sqrt(2 - 2 cos). Covers the whole range evenly, outliers first:
    filter noise before.
    """

    reasons: ClassVar[dict[str, Reason]] = {
        "near_a_centre": Reason(
            "A row that is kept is near enough for the target.",
            "Its score is the distance at which it would have been taken; raise the target to keep more.",
        )
    } | NO_DIRECTION

    kind: Literal["k_center"] = "k_center"


class ClusterBalanced(Representation):
    """Keep as many rows of each cluster, as far as there are, on every level of a hierarchy of clusters.

    Hierarchical k-means and balanced sampling, after Vo et al. 2024 (arXiv 2405.15613).
    """

    reasons: ClassVar[dict[str, Reason]] = {
        "cluster_full": Reason(
            "Its cluster has its share of the target without it.",
            "Its score is the cosine with the centroid; raise the target, or `clusters` for finer shares.",
        )
    } | NO_DIRECTION

    kind: Literal["cluster_balanced"] = "cluster_balanced"
    clusters: tuple[Clusters, ...] = Field(
        (1000, 100, 10),
        min_length=1,
        max_length=4,
        description="Clusters of each level, the finest first; each level clusters the centroids of the one before. "
        "Of little data there are fewer: one for three points.",
    )
    resampling: int = Field(
        2,
        ge=0,
        le=20,
        description="How often each level is clustered again on the points nearest to its centroids, as many of each "
        "cluster: so that dense regions do not get most of the centroids.",
    )
    within: Literal["random", "central", "outer"] = Field(
        "random", description="Which rows of a cluster stay: drawn at random, nearest to its centroid, or farthest."
    )
    draw: int = Field(0, ge=0, le=2**63 - 1, description="Another number draws anew, rows and clusters.")

    @model_validator(mode="after")
    def _levels_shrink(self) -> ClusterBalanced:
        if any(fine <= coarse for fine, coarse in zip(self.clusters, self.clusters[1:], strict=False)):
            raise ValueError(f"`clusters` is {list(self.clusters)}; each level must have fewer than the one before")
        return self
