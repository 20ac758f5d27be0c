"""What every mixing law has: groups, a budget, a bound on repetition."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from configs.methods.grouping import ClusterGroups, ConceptGroups
from configs.section import Section

Grouping = Annotated[ClusterGroups | ConceptGroups, Field(discriminator="kind")]


class Mixture(Section):
    """Groups of rows that are drawn in proportions, until a budget is met."""

    groups: str | Grouping | None = Field(
        None,
        description="Input column whose values are the groups; `{kind: cluster}` or `{kind: concept_group}`; null: the "
        "`source` column, or else one group.",
    )
    budget: int | None = Field(
        None,
        ge=1,
        description="Rows to emit; more than there are repeats rows. Null: every surviving row drawn once.",
    )
    max_epochs: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Times that the rows of a group may be drawn at most, on average; what a group falls short by goes "
        "to the others, in proportion. Null: no bound.",
    )

    def prepares(self) -> list[Section]:
        """The score that makes the groups, where the input does not name them."""
        return [self.groups] if isinstance(self.groups, Section) else []
