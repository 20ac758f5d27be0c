"""QQT: the select that keeps as many of the best score buckets as so many samples seen speak for."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from configs.methods.learned import LanguageMixProxy, MixProxy
from configs.methods.targets import Target
from configs.reasons import Reason
from configs.section import Section, exactly_one

Utility = Annotated[float, Field(lt=0, ge=-10, allow_inf_nan=False)]
HalfLife = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]


class Curves(Section):
    """Utilities and half-lives by experiment: a proxy is trained on each bucket alone, for several passes."""

    proxy: MixProxy = Field(LanguageMixProxy(), description="What is trained.")
    passes: int = Field(10, ge=2, le=100, description="Over a bucket's sample; the error is measured after each other.")
    train_rows: int = Field(2000, ge=16, description="Rows of each bucket that a pass goes over, at most.")
    validation: str | None = Field(
        None, description="A Parquet file of rows that the error is measured on; null: some rows of all buckets."
    )
    validation_rows: int = Field(512, ge=1, description="Rows that the error is measured on, at most.")
    batch_size: int = Field(32, ge=2, le=65536, description="Rows of a training step.")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Highest; a cosine behind a warm-up.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Of the proxy's weights, rows, batches.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes a CUDA device where there is one.")


class Pools(Section):
    """The best pool of score buckets for a number of samples seen (scaling laws for data filtering, arXiv 2404.07177).

    Few samples seen: the best bucket alone; the more, the more buckets, for what is repeated loses its utility.
    """

    reasons: ClassVar[dict[str, Reason]] = {
        "not_in_pool": Reason(
            "The row's score puts it into a bucket that the best pool for `samples_seen` does without.",
            "Raise `samples_seen` if the training is longer; the report shows at which the pools change.",
        ),
        "no_pool_score": Reason("The score is null or NaN.", "`mixwright explain` tells what the stage before gave."),
    }

    kind: Literal["pools"] = "pools"
    score: str = Field("alignment", description="Name of the score, high is good.")
    from_input: bool = Field(False, description="The score is a column of the input, of numbers.")
    buckets: int = Field(10, ge=2, le=1000, description="Buckets of equal size, by score.")
    samples_seen: int = Field(ge=1, description="Rows that the training is to see, repeats counted.")
    utilities: list[Utility] | None = Field(
        None, description="b of each bucket, best bucket first: exponents of the error, below 0."
    )
    half_lives: list[HalfLife] | None = Field(None, description="tau of each bucket: passes that halve its utility.")
    scale: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="a, common to all buckets; with `curves` null: fitted."
    )
    floor: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="d, the error that no data removes; with `curves` null: fitted."
    )
    variant: Literal["printed", "released"] = Field(
        "printed", description="The floor outside of the repetition, as printed, or within it, as the released code."
    )
    curves: Curves | None = Field(None, description="Fit utilities and half-lives, instead of giving them.")

    def output_fields(self) -> dict[str, Any]:
        """See `Section`; the file of validation rows counts by its content, not by its name."""
        return self.model_dump(mode="json", exclude={"curves": {"validation"}})

    def shortened(self) -> tuple[Self, float]:
        """See `Section`: two passes over each bucket instead of all."""
        if self.curves is None:
            return self, 1.0
        return self.model_copy(update={"curves": self.curves.model_copy(update={"passes": 2})}), self.curves.passes / 2

    @property
    def target(self) -> Target | None:
        """None: its size follows from the law."""
        return None

    def prepares(self) -> list[Section]:
        """Nothing."""
        return []

    @model_validator(mode="after")
    def _law_is_whole(self) -> Pools:
        exactly_one(utilities=self.utilities, curves=self.curves)
        if self.utilities is None:
            if self.half_lives is not None:
                raise ValueError("`half_lives` is given with `curves`, which fits them; leave one of the two out")
            return self
        for name, given in (("utilities", self.utilities), ("half_lives", self.half_lives)):
            if given is None or len(given) != self.buckets:
                raise ValueError(
                    f"`{name}` has {len(given or [])} numbers; it needs one for each of the {self.buckets} `buckets`"
                )
        missing = [name for name in ("scale", "floor") if getattr(self, name) is None]
        if missing:
            raise ValueError(f"`{missing[0]}` is missing, which goes with `utilities`; give it, or `curves`")
        return self
