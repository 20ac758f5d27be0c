"""Selections: which rows stay. One model a method; a stage with several has a union on `kind`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from configs.reasons import Reason
from configs.section import Section, exactly_one


class ExactDuplicates(Section):
    """Keep one row of each set with the same image bytes and text."""

    reasons: ClassVar[dict[str, Reason]] = {
        "exact_duplicate": Reason(
            "Another row has the same image bytes and text.", "`keeper_file` and `keeper_row` name the kept one."
        )
    }

    kind: Literal["exact_duplicates"] = "exact_duplicates"
    keep_by: str | None = Field(
        None, description="Score whose highest value names the keeper; ties and null: lowest (file, row)."
    )


class Threshold(Section):
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
        exactly_one(minimum=self.minimum, keep_fraction=self.keep_fraction)
        return self


class NearDuplicates(Section):
    """Keep one row of each group of rows whose embeddings are nearly equal."""

    reasons: ClassVar[dict[str, Reason]] = {
        "near_duplicate": Reason(
            "Another row's embedding is alike by the select's `threshold` or more.",
            "The keeper is named; raise `threshold` to drop fewer.",
        )
    }

    kind: Literal["near_duplicates"] = "near_duplicates"
    embedding: Literal["image", "text"] = Field("image", description="Which embedding is compared.")
    threshold: float = Field(0.95, gt=0, le=1, description="Cosine from which two rows count as near duplicates.")
    keep_by: str | None = Field(
        "alignment", description="Score whose highest value names the keeper; ties and null: lowest (file, row)."
    )
    bucket_rows: int = Field(
        8192,
        ge=2,
        le=65536,
        description="Rows per bucket, about. Pairs are looked for inside a bucket: with no more rows than this the "
        "result is exact; larger buckets find more pairs for more work.",
    )


class Balance(Section):
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
            "Its score is the probability with which it was kept; raise `threshold` (or `tail_share`).",
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
        exactly_one(threshold=self.threshold, tail_share=self.tail_share)
        return self


Select = Annotated[ExactDuplicates | Threshold | NearDuplicates | Balance, Field(discriminator="kind")]
