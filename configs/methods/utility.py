"""Scores that a model's logits give: utility and diversity, losses, gradients. One model a method."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from configs.methods.logits import CausalLm, Logits, PairTokens
from configs.reasons import Reason
from configs.section import Section

_LOGITS = "The model whose logits are scored."
_POSITIONS = (
    "`all`: prompt and response; `response`: what the model is trained on. Padding never counts. Only of causal_lm."
)


class UtilityDiversity(Section):
    """UDS, its part that needs a model: nuclear norm and sketch of each row's logits (columns `intra`, `sketch`)."""

    reasons: ClassVar[dict[str, Reason]] = PairTokens.reasons | CausalLm.reasons

    kind: Literal["uds"] = "uds"
    logits: Logits = Field(description=_LOGITS)
    positions: Literal["all", "response"] = Field("all", description=_POSITIONS)
    length_dim: int = Field(8, ge=1, le=4096, description="Sketch: rows of the projection along the sequence.")
    vocab_dim: int = Field(128, ge=1, le=65536, description="Sketch: columns of the projection along the vocabulary.")
    orthonormal: bool = Field(
        False, description="Sketch in the units of the logits; as released it is sqrt(T V) / 2 times as large."
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Of the sketch: signs and indices.")

    def output_fields(self) -> dict[str, Any]:
        """See `Section`; the model's own section knows which of its fields count."""
        return super().output_fields() | {"logits": self.logits.output_fields()}


class TokenLosses(Section):
    """What a language model makes of each row: `<name>_loss`, `<name>_entropy`, `<name>_gradient_norm`."""

    reasons: ClassVar[dict[str, Reason]] = CausalLm.reasons

    kind: Literal["losses"] = "losses"
    logits: CausalLm = Field(description=_LOGITS)
    name: str = Field("lm", pattern=r"^[a-z][a-z0-9_]*$", description="First part of the columns' names.")

    @property
    def column(self) -> str:
        """What tells two of this kind apart."""
        return f"{self.name}_loss"


class Gradients(Section):
    """For GREATS: sketches of the rows' gradients (`gradient_sketch`), and their products with that of validation rows
    (`gradient_gain`)."""

    reasons: ClassVar[dict[str, Reason]] = CausalLm.reasons

    kind: Literal["gradients"] = "gradients"
    logits: CausalLm = Field(description=_LOGITS)
    validation: str = Field(
        description="A Parquet file of validation rows, with the columns that `logits` reads; where `logits.response` "
        "is null, its column `text`, or the only other text column."
    )
    sketch_dim: int = Field(1024, ge=16, le=65536, description="Numbers of a gradient's sketch.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Of the sketch.")
