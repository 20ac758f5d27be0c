"""Groups that the input does not name: rows by concept, cluster or score. Each is a score that learns from all rows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from configs.section import Section


class ClusterGroups(Section):
    """Clusters of embeddings, by k-means on a sample of the rows (column `cluster`)."""

    kind: Literal["cluster"] = "cluster"
    clusters: int = Field(8, ge=2, le=4096, description="How many.")
    vectors: Literal["image", "text", "both"] = Field(
        "image", description="Embeddings to cluster; `both`: image and text side by side. Of texts alone: `text`."
    )
    train_rows: int = Field(200_000, ge=100, description="Rows that the centroids are learned from, drawn at random.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Of the sample and of k-means.")

    @property
    def column(self) -> str:
        """Where the labels are."""
        return "cluster"


class ConceptGroups(Section):
    """The commonest concepts as groups (column `concept_group`): a row is of the rarest of them that it has.

    Rows without one of them are in a group of their own.
    """

    kind: Literal["concept_group"] = "concept_group"
    concepts: list[str] | None = Field(
        None, min_length=1, description="The concepts to go by; null: the `count` commonest."
    )
    count: int = Field(20, ge=1, le=10_000, description="How many, if `concepts` does not name them.")
    others: str = Field("(other)", min_length=1, description="Name of the group of rows with none of them.")

    @model_validator(mode="after")
    def _others_is_no_concept(self) -> ConceptGroups:
        if self.others in (self.concepts or []):
            raise ValueError(f"`others` is {self.others!r}, which is one of `concepts`; give it another name")
        return self

    @property
    def column(self) -> str:
        """Where the labels are."""
        return "concept_group"


class ScoreGroups(Section):
    """Buckets of equal size by a score (column `score_group`), the best first."""

    kind: Literal["score_group"] = "score_group"
    score: str = Field("alignment", description="Name of the score, high is good.")
    buckets: int = Field(5, ge=2, le=1000, description="How many.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Of the coins that part rows of one score.")

    @property
    def column(self) -> str:
        """Where the labels are."""
        return "score_group"
