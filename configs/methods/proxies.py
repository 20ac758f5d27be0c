"""Small models that are trained on the data, for what their losses tell of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.section import Section


class LanguageProxy(Section):
    """A small causal language model, trained on the texts."""

    kind: Literal["language"] = "language"
    model: str | None = Field(
        None, description="A folder or hub name to start from (needs `transformers`); null: a small one from nothing."
    )
    revision: str | None = Field(None, description="Of a name on the hub: branch, tag or commit. Pin a commit.")
    prompt: str | None = Field(None, description="Column of prompts, which no loss counts; null: plain text.")
    response: str | None = Field(None, description="Column of responses; null: the text of the input.")
    separator: str = Field("\n", description="Stands between prompt and response.")
    max_length: int = Field(128, ge=8, le=8192, description="Tokens of a row; the rest is cut off.")
    vocabulary: int = Field(4096, ge=300, le=65536, description="Tokens of the tokenizer that is trained; no `model`.")
    width: int = Field(128, ge=16, le=2048, description="Of the small model; no `model`.")
    layers: int = Field(2, ge=1, le=24, description="Of the small model; no `model`.")
    heads: int = Field(4, ge=1, le=32, description="Of the small model, a divisor of `width`; no `model`.")

    @model_validator(mode="after")
    def _heads_fit(self) -> LanguageProxy:
        if self.width % self.heads:
            raise ValueError(f"`heads` is {self.heads} and `width` {self.width}; `width` must be a multiple of `heads`")
        return self


class PairProxy(Section):
    """Two linear adapters over the cached embeddings, trained with the softmax loss of CLIP."""

    kind: Literal["pairs"] = "pairs"
    width: int = Field(128, ge=4, le=4096, description="Of the common space.")


Proxy = Annotated[LanguageProxy | PairProxy, Field(discriminator="kind")]


class Trajectory(Section):
    """Losses of every row at checkpoints of a small proxy that is trained on the data (column `trajectory`)."""

    kind: Literal["trajectory"] = "trajectory"
    proxy: Proxy = Field(PairProxy(), description="What is trained.")
    checkpoints: int = Field(8, ge=2, le=64, description="T: losses a row, evenly spread over the training.")
    epochs: float = Field(3.0, gt=0, le=100, description="Passes over the rows that it learns from.")
    train_rows: int = Field(
        200_000, ge=16, description="Rows that it learns from, drawn at random; all others are only measured."
    )
    batch_size: int = Field(64, ge=2, le=65536, description="Rows of a training step.")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Highest; a cosine behind a warm-up of 3 %.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes a CUDA device where there is one.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Of weights, rows and their order.")
