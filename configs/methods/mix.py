"""Mixing laws: which rows are drawn, how often. One model a method; a stage with several has a union on `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from configs.section import Section


class Static(Section):
    """Fixed proportions of groups."""

    kind: Literal["static"] = "static"
    groups: str | None = Field(
        None,
        description="Input column whose values are the groups; null: the `source` column, or else one group.",
    )
    proportions: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = Field(
        None, description="Share of each group among the draws, normalised to one; null: as they occur."
    )
    budget: int | None = Field(
        None,
        ge=1,
        description="Rows to emit; more than there are repeats rows. Null: every surviving row drawn once.",
    )


Mix = Static
