"""The score that goes by a graph of skills (MASS-style, reconstructed)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from configs.errors import StageError
from configs.methods.embed import OpenClip
from configs.section import Section, with_one_place


class SkillGraph(Section):
    """How near a row is to the skills, and pairs of skills, that matter (MASS-style; after arXiv 2503.14917)."""

    kind: Literal["skill_graph"] = "skill_graph"
    name: str = Field("skill_graph", pattern=r"^[a-z][a-z0-9_]*$", description="The score's name.")
    skills: str = Field(
        "concepts", description="Column of lists of skills: `concepts`, as `annotate` makes them, or one of the input."
    )
    reference: str | None = Field(
        None, description="A Parquet file whose rows' skills make the graph; null: the data's own rows."
    )
    reference_column: str = Field("skills", description="Of `reference`: the column of lists of skills.")
    largest: int = Field(50_000, ge=1, le=1_000_000, description="Skills at most: the commonest.")
    row_skills: int = Field(64, ge=1, le=1000, description="Skills of a row that count: its first so many.")
    min_cooccurrence: int = Field(
        1,
        ge=1,
        description="Rows in which two skills must meet to be joined. Above 1 every pair is counted, 8 bytes each.",
    )
    pairs: Literal["unordered", "ordered"] = Field(
        "unordered", description="Edge weights sum to one over pairs, or over both orders (half as heavy)."
    )
    parts: Literal["full", "nodes", "edges", "none"] = Field(
        "full", description="Ablations: weights of skills alone, of pairs alone, or every skill alike."
    )
    merge: float | None = Field(
        0.9, gt=0, le=1, description="Skills whose vectors have a cosine above this are one; null: none are."
    )
    merging: Literal["greedy", "components"] = Field(
        "greedy",
        description="`greedy`: the commonest skill takes in those near it, then the next; `components`: chains merge.",
    )
    vectors: Literal["names", "rows"] = Field(
        "rows", description="A skill's vector: of its name, by the model, or the mean direction of its rows."
    )
    template: str = Field("{}", description="For `vectors: names`: the sentence that a name is embedded in.")
    against: Literal["image", "text"] = Field("text", description="The rows' embedding that skills are compared with.")
    encoder: OpenClip | None = Field(
        None, description="The model for `vectors: names`, if `embed` is columns; else null: `embed` says it."
    )

    @field_validator("template")
    @classmethod
    def _has_a_place(cls, value: str) -> str:
        return with_one_place(value)

    @model_validator(mode="after")
    def _model_is_used(self) -> SkillGraph:
        if self.encoder is not None and self.vectors == "rows":
            raise ValueError("`encoder` names a model, which only `vectors: names` has a use for; leave it out")
        return self

    @property
    def column(self) -> str:
        """The score's name: several graphs may stand side by side."""
        return self.name

    def output_fields(self) -> dict[str, Any]:
        """See `Section`; the reference counts by its content, not by its name, and the model by what it depends on."""
        return self.model_dump(mode="json", exclude={"reference", "encoder"})

    def behind(self, embed: Section | None) -> SkillGraph:
        """This section with its `encoder` named if it needs one: that of the embed section where there is one.

        Raises:
            StageError: No model is named.
        """
        if self.vectors == "rows" or self.encoder is not None:
            return self
        if not isinstance(embed, OpenClip):
            raise StageError(
                "`score: skill_graph` has `vectors: names`, but `embed` does not say which model made its embeddings; "
                "name it in `encoder`, or take `vectors: rows`",
                remedy="",
            )
        return self.model_copy(update={"encoder": embed})
