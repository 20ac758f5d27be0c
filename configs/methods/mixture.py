"""What every mixing law has: groups, a budget, a bound on repetition."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from configs.methods.grouping import ClusterGroups, ConceptGroups, ScoreGroups
from configs.methods.score import Tokens
from configs.section import Section


def _kind(value: Any) -> str:
    """`column` for a name, else the kind that a mapping or model names."""
    if isinstance(value, str):
        return "column"
    return str(value.get("kind", "") if isinstance(value, dict) else getattr(value, "kind", ""))


Grouping = Annotated[
    Annotated[str, Tag("column")]
    | Annotated[ClusterGroups, Tag("cluster")]
    | Annotated[ConceptGroups, Tag("concept_group")]
    | Annotated[ScoreGroups, Tag("score_group")],
    Discriminator(
        _kind,
        custom_error_type="unknown_groups",
        custom_error_message="it must be the name of a column, or have the `kind` cluster, concept_group or "
        "score_group",
    ),
]


class Mixture(Section):
    """Groups of rows that are drawn in proportions, until a budget is met."""

    groups: Grouping | None = Field(
        None,
        description="Input column whose values are the groups; `{kind: cluster}`, `{kind: concept_group}` or "
        "`{kind: score_group}`; null: the "
        "`source` column, or else one group.",
    )
    budget: int | None = Field(
        None,
        ge=1,
        description="Rows to emit; more than there are repeats rows. Null: every surviving row drawn once.",
    )
    budget_bytes: int | None = Field(
        None, ge=1, description="Instead of `budget`: image and text bytes to emit, by the mean of each group's rows."
    )
    budget_tokens: int | None = Field(
        None,
        ge=1,
        description="Instead of `budget`: tokens to emit, by the mean of each group's rows; in words, or as a score "
        "`tokens` that is listed counts them.",
    )
    max_epochs: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Times that the rows of a group may be drawn at most, on average; what a group falls short by goes "
        "to the others, in proportion. Null: no bound.",
    )

    def prepares(self) -> list[Section]:
        """The score that makes the groups, where the input does not name them, and the one that counts tokens."""
        groups = [self.groups] if isinstance(self.groups, Section) else []
        return [*groups, *([Tokens()] if self.budget_tokens else [])]

    @property
    def size_columns(self) -> tuple[str, ...]:
        """Columns whose sum is the size of a row, of a budget in bytes or tokens."""
        if self.budget_tokens:
            return ("tokens",)
        return ("image_bytes", "text_bytes") if self.budget_bytes else ()

    @model_validator(mode="after")
    def _one_budget(self) -> Mixture:
        given = [name for name in ("budget", "budget_bytes", "budget_tokens") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(f'`{name}`' for name in given)} are given; give at most one budget")
        return self
