"""Samplers: how draws become batches. One model a method; a stage with several has a union on `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.methods.batches import Batches
from configs.methods.scored import GradientNorm, Greats, MaxEntropy, MaxLoss, Random, RhoLoss, Uds
from configs.section import Section


class Iid(Batches):
    """The first b of each superbatch: independent, identically distributed."""

    kind: Literal["iid"] = "iid"


LARGEST = 1e12
"""Of weights and factors."""
Factor = Annotated[float, Field(ge=0, le=LARGEST)]


class ReleasedTargets(Section):
    """As in the authors' released code: the batch divided evenly among the concepts of the superbatch, capped."""

    kind: Literal["released"] = "released"


class Shaped(Section):
    """A target distribution: counts in proportion to a weight for each concept that the superbatch holds."""

    factors: dict[str, Factor] = Field(
        {},
        description="More of these, fewer of those: what a concept's weight is multiplied by; with 0 no row is taken "
        "for its sake, but one may be for its other concepts.",
    )


class UniformTargets(Shaped):
    """The same weight for every concept."""

    kind: Literal["uniform"] = "uniform"


class NaturalTargets(Shaped):
    """The natural frequency, as the superbatch has it, to a power: 1 keeps it, 0 is uniform."""

    kind: Literal["natural"] = "natural"
    exponent: float = Field(0.5, ge=-4, le=4, description="The power; below 1 flattens, below 0 turns it upside down.")


class WeightTargets(Shaped):
    """Weights by concept."""

    kind: Literal["weights"] = "weights"
    weights: dict[str, Factor] = Field(description="Concept -> weight.")
    others: Factor = Field(0.0, description="Weight of concepts that are not named.")

    @model_validator(mode="after")
    def _something_is_wanted(self) -> WeightTargets:
        if not self.others and not any(self.weights.values()):
            raise ValueError("no weight of `weights` is above 0, nor is `others`: nothing would be wanted")
        return self


class FileTargets(Shaped):
    """Weights of a file."""

    kind: Literal["file"] = "file"
    path: str = Field(description="A text file with lines of concept, tab, weight.")
    others: Factor = Field(0.0, description="Weight of concepts that the file does not name.")


Targets = Annotated[
    ReleasedTargets | UniformTargets | NaturalTargets | WeightTargets | FileTargets, Field(discriminator="kind")
]


class CabsDm(Batches):
    """CABS diversity maximisation: greedy cover of concepts, rare ones first."""

    kind: Literal["cabs_dm"] = "cabs_dm"
    filter_ratio: float = Field(0.8, ge=0, lt=1, description="Share of each superbatch that is not emitted.")
    variant: Literal["released", "printed"] = Field(
        "released", description="The authors' released code, or the formula printed in the paper."
    )
    targets: Targets = Field(ReleasedTargets(), description="How often a batch should hold each concept.")
    minimum: int = Field(1, ge=1, description="Smallest target count of a concept that is wanted at all.")
    maximum: int | None = Field(
        None,
        ge=1,
        description="Largest target count of a concept, and its cap per worker. Null: 10 with `released` targets, "
        "none with others.",
    )
    fill: bool = Field(
        True,
        description="Fill a batch that falls short since capped concepts void the rest: with the rows that repeat the "
        "fewest capped concepts, those without a concept last. False: as in the released code, which adds rows without "
        "a concept at random and may stay short.",
    )

    @property
    def cap(self) -> int | None:
        """The maximum that holds; null: none."""
        return 10 if self.maximum is None and self.targets.kind == "released" else self.maximum

    @model_validator(mode="after")
    def _ordered(self) -> CabsDm:
        if self.cap is not None and self.minimum > self.cap:
            raise ValueError(f"`minimum` is {self.minimum}; it must not exceed `maximum`, which is {self.cap}")
        return self


class CabsFm(Batches):
    """CABS frequency maximisation: the rows with the most concepts."""

    kind: Literal["cabs_fm"] = "cabs_fm"
    filter_ratio: float = Field(0.8, ge=0, lt=1, description="Share of each superbatch that is not emitted.")


class Towers(Section):
    """An image-text model as its embeddings show it: two columns of vectors, and what it makes of their cosines."""

    image: str = Field(description="Column of image vectors: of the input, lists of numbers; or `image_embedding`.")
    text: str = Field(description="Column of text vectors: of the input, lists of numbers; or `text_embedding`.")
    logit_scale: float = Field(
        gt=0, le=1000, description="What the model multiplies cosines by, as learned (not its logarithm)."
    )
    logit_bias: float = Field(
        0.0, ge=-1000, le=1000, description="What a sigmoid model then adds, as learned; SigLIP begins with -10."
    )


class LearnerTowers(Towers):
    """The model in training: if not said otherwise, the one of `embed`."""

    image: str = Field("image_embedding", description="As in `reference`; `image_embedding` is what `embed` makes.")
    text: str = Field("text_embedding", description="As in `reference`; `text_embedding` is what `embed` makes.")


class Jest(Batches):
    """JEST: rows that are learnable together, hard for a learner and easy for a reference, chosen chunk by chunk."""

    kind: Literal["jest"] = "jest"
    filter_ratio: float = Field(0.8, ge=0, lt=1, description="Share of each superbatch that is not emitted.")
    learner: LearnerTowers | None = Field(None, description="The model in training; not for `easy_reference`.")
    reference: Towers | None = Field(None, description="A model trained on clean data; not for `hard_learner`.")
    criterion: Literal["learnability", "easy_reference", "hard_learner"] = Field(
        "learnability", description="Loss of the learner less that of the reference, or one of the two alone."
    )
    form: Literal["sigmoid", "softmax"] = Field(
        "sigmoid", description="The loss: of each pair by itself, as SigLIP's, or among the chosen rows, as CLIP's."
    )
    chunks: int = Field(
        16, ge=1, description="Steps in which a rank's rows are chosen, each given the earlier; 1: each row by itself."
    )
    greedy: bool = Field(False, description="Take the highest of each chunk instead of drawing by softmax.")

    def towers(self) -> list[tuple[float, Towers]]:
        """The models that the criterion compares, and the sign of their losses."""
        pairs = (1.0, self.learner, "easy_reference"), (-1.0, self.reference, "hard_learner")
        return [(sign, one) for sign, one, without in pairs if one is not None and self.criterion != without]

    @model_validator(mode="after")
    def _models_are_there(self) -> Jest:
        for name, one, without in (
            ("learner", self.learner, "easy_reference"),
            ("reference", self.reference, "hard_learner"),
        ):
            if one is None and self.criterion != without:
                raise ValueError(
                    f"`{name}` is missing, which `criterion` {self.criterion} compares; give its columns and its "
                    "`logit_scale`"
                )
            if one is not None and one.logit_bias and self.form == "softmax":
                raise ValueError(
                    f"`{name}.logit_bias` is {one.logit_bias}, which only `form` sigmoid has a use for; leave it out"
                )
        if self.criterion == "learnability" and self.learner is not None and self.reference is not None:
            if self.learner.model_dump() == self.reference.model_dump():
                raise ValueError("`learner` and `reference` are the same: every row is as good as any; name two models")
        return self

    @model_validator(mode="after")
    def _chunks_have_rows(self) -> Jest:
        share = self.batch_size // self.world_size
        if self.chunks > share:
            raise ValueError(
                f"`chunks` is {self.chunks}; it must be at most the rows of a batch on one rank, which are {share}"
            )
        return self


Sample = Annotated[
    Iid | CabsDm | CabsFm | Jest | Uds | Random | MaxLoss | MaxEntropy | GradientNorm | RhoLoss | Greats,
    Field(discriminator="kind"),
]
