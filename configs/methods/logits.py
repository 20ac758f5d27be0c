"""Models that make a matrix of logits for every row. One model a kind; a field with several has a union on `kind`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from configs.errors import StageError
from configs.methods.embed import OpenClip
from configs.reasons import EMBEDDING, PICTURES, Reason
from configs.section import Section, with_one_place


class CausalLm(Section):
    """A causal language model of `transformers`: logits of a row's prompt and response, token by token."""

    reasons: ClassVar[dict[str, Reason]] = {
        "no_tokens": Reason(
            "Nothing of the row is left to score: no response, or none within `max_length`.",
            "Raise `max_length`, or leave such rows out.",
        ),
        "non_finite_logits": Reason(
            "The model's logits for this row have NaN or infinity.",
            "Take `precision` fp32 (or bf16); if that does not help, the checkpoint is damaged.",
        ),
        "undecodable_text": EMBEDDING["undecodable_text"],
    }

    kind: Literal["causal_lm"] = "causal_lm"
    model: str = Field(description="A folder that `save_pretrained` wrote (tokenizer with it), or a name on the hub.")
    revision: str | None = Field(None, description="Of a name on the hub: branch, tag or commit. Pin a commit.")
    prompt: str | None = Field(None, description="Column of prompts. Null: rows are plain text, all of it a response.")
    response: str | None = Field(None, description="Column of responses. Null: the text of the input.")
    separator: str = Field("\n", description="Stands between prompt and response.")
    max_length: int = Field(512, ge=2, le=131_072, description="Tokens of a row, prompt with it; the rest is cut off.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes a CUDA device where there is one.")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Arithmetic of the model; scores: float32.")
    batch_tokens: int = Field(
        8192, ge=1, description="Tokens of a forward pass, padding with them. Part of the fingerprint."
    )


class PairTokens(Section):
    """An open_clip model: a pair's logits are its projected patch tokens by the text embeddings of a vocabulary."""

    reasons: ClassVar[dict[str, Reason]] = PICTURES | {"non_finite_logits": CausalLm.reasons["non_finite_logits"]}

    kind: Literal["pair_tokens"] = "pair_tokens"
    vocabulary: str = Field(
        description="The names that stand for the vocabulary: a text file with a name a line, or what the annotator "
        "`zero_shot` takes."
    )
    template: str = Field("a photo of a {}", description="The sentence that a name is embedded in; {} alone: itself.")
    encoder: OpenClip | None = Field(None, description="The model; null: that of `embed`.")

    @field_validator("template")
    @classmethod
    def _has_a_place(cls, value: str) -> str:
        return with_one_place(value)

    def output_fields(self) -> dict[str, Any]:
        """See `Section`; the vocabulary counts by its content, not by its name."""
        fields = self.model_dump(mode="json", exclude={"vocabulary", "encoder"})
        return fields | {"encoder": self.encoder and self.encoder.output_fields()}

    def behind(self, embed: Section | None) -> PairTokens:
        """This section with its `encoder` named, which is that of the embed section where there is one.

        Raises:
            StageError: No model is named.
        """
        if self.encoder is not None:
            return self
        if not isinstance(embed, OpenClip):
            raise StageError("`pair_tokens` has no `encoder`, and `embed` is not open_clip; name the model in one")
        return self.model_copy(update={"encoder": embed})


Logits = Annotated[CausalLm | PairTokens, Field(discriminator="kind")]


def resolved(section: Any, embed: Section | None) -> Any:
    """A section that knows its model, as do its logits: both may leave it to `embed`."""
    if hasattr(section, "behind"):
        return section.behind(embed)
    logits = getattr(section, "logits", None)
    if not isinstance(logits, PairTokens):
        return section
    return section.model_copy(update={"logits": logits.behind(embed)})
