"""Mixing laws: which rows are drawn, how often. One model a method; a stage with several has a union on `kind`.

Learned ones, which train a small proxy, are in `configs.methods.learned`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from configs.methods.learned import Aioli, Doge, Doremi, MixingLaw, SkillIt
from configs.methods.mixture import Mixture
from configs.section import exactly_one

Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


Shares = Annotated[
    Annotated[dict[str, Share], Tag("one")] | Annotated[list[dict[str, Share]], Field(min_length=1), Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, list | tuple) else "one"),
]


class Static(Mixture):
    """Fixed proportions of groups."""

    kind: Literal["static"] = "static"
    proportions: Shares | None = Field(
        None,
        description="Share of each group among the draws, normalised to one; a list has one entry a round, rounds of "
        "equal length; null: as they occur.",
    )


class Natural(Mixture):
    """Groups as they occur."""

    kind: Literal["natural"] = "natural"


class Uniform(Mixture):
    """The same share for every group (the stratified mix)."""

    kind: Literal["uniform"] = "uniform"


class Temperature(Mixture):
    """Shares in proportion to rows ** (1 / T): T = 1 is natural, the larger the nearer to uniform."""

    kind: Literal["temperature"] = "temperature"
    temperature: float = Field(3.3, gt=0, le=1e6, allow_inf_nan=False, description="T; 3.3 as XLM-R and mT5 have it.")


class Unimax(Mixture):
    """Uniform as far as no group is repeated more often than `max_epochs` (UniMax, arXiv 2304.09151)."""

    kind: Literal["unimax"] = "unimax"
    max_epochs: float = Field(
        4.0, gt=0, allow_inf_nan=False, description="Times that every row of a group may be drawn at most."
    )


class Balance(Mixture):
    """MetaCLIP's balancing on groups: those with more than t rows count as t, the others as they occur."""

    kind: Literal["balance"] = "balance"
    threshold: float | None = Field(None, gt=0, allow_inf_nan=False, description="t, in rows.")
    tail_share: float | None = Field(
        None, gt=0, lt=1, description="Instead of `threshold`: t such that groups below it hold about this share."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Balance:
        exactly_one(threshold=self.threshold, tail_share=self.tail_share)
        return self


def _kind(value: Any) -> str:
    """The kind that a mapping or model names; one that names none is static."""
    found = value.get("kind", "static") if isinstance(value, dict) else getattr(value, "kind", "static")
    return str(found)


Mix = Annotated[
    Annotated[Static, Tag("static")]
    | Annotated[Natural, Tag("natural")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[Temperature, Tag("temperature")]
    | Annotated[Unimax, Tag("unimax")]
    | Annotated[Balance, Tag("balance")]
    | Annotated[Aioli, Tag("aioli")]
    | Annotated[Doremi, Tag("doremi")]
    | Annotated[Doge, Tag("doge")]
    | Annotated[SkillIt, Tag("skill_it")]
    | Annotated[MixingLaw, Tag("mixing_law")],
    Discriminator(
        _kind,
        custom_error_type="unknown_kind",
        custom_error_message="`kind` must be static, natural, uniform, temperature, unimax, balance, aioli, doremi, "
        "doge, skill_it or mixing_law",
    ),
]
