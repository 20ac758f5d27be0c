"""The score that goes by a graph of skills (MASS-style, reconstructed)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from configs.methods.embed import OpenClip
from configs.section import Section


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
    min_cooccurrence: int = Field(1, ge=1, description="Rows in which two skills must meet to be joined.")
    pairs: Literal["unordered", "ordered"] = Field(
        "unordered", description="Edge weights sum to one over pairs, or over both orders (half as heavy)."
    )
    parts: Literal["full", "nodes", "edges", "none"] = Field(
        "full", description="Ablations: weights of skills alone, of pairs alone, or every skill alike."
    )
    merge: float | None = Field(
        0.9, gt=0, le=1, description="Skills whose vectors have a cosine above this are one; null: none are."
    )
    vectors: Literal["names", "rows"] = Field(
        "rows", description="A skill's vector: of its name, by the model, or the mean direction of its rows."
    )
    against: Literal["image", "text"] = Field("text", description="The rows' embedding that skills are compared with.")
    encoder: OpenClip | None = Field(
        None, description="The model for `vectors: names`, if `embed` is columns; else null: `embed` says it."
    )

    @property
    def column(self) -> str:
        """The score's name: several graphs may stand side by side."""
        return self.name
