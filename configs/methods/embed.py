"""How rows are embedded. One model a method; a stage with several has a union on `kind`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from configs.reasons import EMBEDDING, Reason
from configs.section import Section


class OpenClip(Section):
    """Two-tower image-text model from open_clip."""

    operational: ClassVar[frozenset[str]] = frozenset({"decode_threads", "cpu_threads"})

    reasons: ClassVar[dict[str, Reason]] = EMBEDDING

    kind: Literal["open_clip"] = "open_clip"
    model: str = Field(
        "ViT-B-32",
        description="Any open_clip name: a built-in architecture, `hf-hub:org/name` or `local-dir:/folder`; or "
        "`pocket`, the small model shipped here, which knows emoji.",
    )
    pretrained: str | None = Field(
        None,
        description="A pretrained tag (`laion2b_s34b_b79k`), a checkpoint file, or null: random weights from `seed`.",
    )
    seed: int = Field(0, ge=0, description="Seed of the random weights; used only without `pretrained`.")
    image_size: int | None = Field(None, ge=8, le=2048, description="Side in pixels, if not the model's own.")
    context_length: int | None = Field(None, ge=4, le=4096, description="Text tokens, if not the model's own.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes a CUDA device where there is one.")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Arithmetic of the towers.")
    batch_size: int = Field(
        0, ge=0, le=65536, description="Rows per forward pass; 0: 64 on a CPU, 512 on CUDA. Part of the fingerprint."
    )
    max_pixels: int = Field(
        64_000_000,
        ge=1,
        le=178_000_000,
        description="Images that claim more pixels are quarantined undecoded; Pillow itself reads no larger ones.",
    )
    decode_threads: int = Field(0, ge=0, le=256, description="Threads that decode ahead of the model; 0: one per core.")
    cpu_threads: int = Field(
        0, ge=0, le=256, description="Batches in the model at once on a CPU, one thread each; 0: one per core."
    )


class EmbeddingColumns(Section):
    """Embeddings made elsewhere, read from list columns of the input."""

    reasons: ClassVar[dict[str, Reason]] = {
        "bad_embedding": Reason(
            "The embedding is null, of another width than the first one, not finite, or all zero.",
            "`detail` says which; mend the column, or leave such rows out.",
        )
    }

    kind: Literal["columns"] = "columns"
    image: str | None = Field(None, description="Column of image embeddings: lists of floats of one length.")
    text: str | None = Field(None, description="Column of text embeddings: lists of floats of one length.")

    @model_validator(mode="after")
    def _one_at_least(self) -> EmbeddingColumns:
        if self.image is None and self.text is None:
            raise ValueError("`embed.image` and `embed.text` are both null; name one column of embeddings at least")
        return self


Embed = Annotated[OpenClip | EmbeddingColumns, Field(discriminator="kind")]
