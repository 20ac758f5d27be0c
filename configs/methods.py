"""One model a method; a stage with several methods has a union on `kind`. A new method adds its model here."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from configs.errors import StageError
from configs.reasons import EMBEDDING, Reason
from configs.section import Section


# --------------------------------------------------------------------------------------------------------------- embed
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


# ------------------------------------------------------------------------------------------------------------ annotate
class ConceptColumn(Section):
    """Concepts that the input already carries, one list (or one joined string) a row."""

    reasons: ClassVar[dict[str, Reason]] = {
        "bad_concepts": Reason(
            "The concepts are not UTF-8, or not as many as their confidences.", "`detail` says which; mend the columns."
        )
    }

    kind: Literal["column"] = "column"
    column: str = Field("classes", description="A list<string> column, repeats kept, or a string column.")
    separator: str = Field(" | ", min_length=1, description="What joins the concepts where the column is a string.")
    scores: str | None = Field(None, description="A list<float> column of confidences, parallel to `column`.")
    threshold: float = Field(0.0, description="Concepts with a confidence below this are left out; needs `scores`.")


class Captions(Section):
    """Concepts that occur in the caption: MetaCLIP's spacing-and-substring rule."""

    kind: Literal["captions"] = "captions"
    vocabulary: str | None = Field(
        None, description="A text file of concepts, one a line; null: mine the vocabulary from the captions themselves."
    )
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name under which a mined vocabulary is frozen in the store; null: the name of the mix. Mining "
        "happens once; new rows are matched against the frozen list until `remine` or another name is given.",
    )
    remine: bool = Field(False, description="Mine again and replace the frozen vocabulary of this name.")
    lowercase: bool = Field(True, description="Fold case of captions and concepts before matching.")
    max_words: int = Field(2, ge=1, le=3, description="Longest mined concept, in words.")
    min_count: int = Field(5, ge=1, description="A mined concept occurs in at least this many captions.")
    max_concepts: int = Field(20_000, ge=1, le=1_000_000, description="Most frequent mined concepts kept.")

    operational: ClassVar[frozenset[str]] = frozenset({"remine"})


class ZeroShot(Section):
    """Concepts of a vocabulary whose names, in sentences, are near the picture in the space of an image-text model."""

    kind: Literal["zero_shot"] = "zero_shot"
    vocabulary: str = Field(
        "imagenet-1k",
        description="`imagenet-1k` (class names), `imagenet-21k` (first lemmas), or a text file, a concept a line.",
    )
    templates: Literal["simple", "openai"] | list[str] = Field(
        "simple",
        description="Sentences that a name is put into; the mean of their embeddings is the concept's. `simple`: the 7 "
        "best of OpenAI's for ImageNet; `openai`: all 80; or your own, each with one `{}`.",
    )
    top_k: int = Field(5, ge=1, le=1000, description="Concepts of a row at most: those nearest to the picture.")
    threshold: float | None = Field(
        None, ge=-1, le=1, description="Of the `top_k`, concepts with a confidence below this are left out. Null: none."
    )
    confidence: Literal["cosine", "softmax"] = Field(
        "cosine", description="Cosine of picture and concept, or its softmax over the whole vocabulary."
    )
    logit_scale: float | None = Field(
        None, gt=0, le=1000, description="What softmax multiplies cosines by; null: what the model has learned."
    )
    encoder: OpenClip | None = Field(
        None,
        description="The model that made the image embeddings, if `embed` is columns; else null: `embed` says it.",
    )

    @field_validator("templates", mode="before")
    @classmethod
    def _have_a_place(cls, value: Any) -> Any:
        named = isinstance(value, str) and value in ("simple", "openai")
        listed = isinstance(value, list) and value and all(isinstance(t, str) and t.count("{}") == 1 for t in value)
        if not named and not listed:
            raise ValueError(
                f"`templates` is {value!r}; it must be simple, openai, or a list of sentences, each with one {{}}"
            )
        return value

    @model_validator(mode="after")
    def _scale_is_used(self) -> ZeroShot:
        if self.logit_scale is not None and self.confidence != "softmax":
            raise ValueError(f"`logit_scale` is {self.logit_scale}, which only `confidence` softmax has a use for")
        return self

    def output_fields(self) -> dict[str, Any]:
        """See `Section`; names and their embeddings are a state of their own, with a digest of its content."""
        return self.model_dump(mode="json", exclude={"vocabulary", "templates", "encoder"})

    def behind(self, embed: Section | None) -> ZeroShot:
        """This section with its `encoder` named, which is that of the embed section where there is one.

        Raises:
            StageError: No model is named, or two are.
        """
        if isinstance(embed, OpenClip) and self.encoder is None:
            return self.model_copy(update={"encoder": embed})
        if isinstance(embed, OpenClip):
            raise StageError("`annotate.encoder` is given, but `embed` names the model already; leave it out")
        if embed is None:
            raise StageError("`annotate` is zero_shot, which needs image embeddings; add the section `embed`")
        if self.encoder is None:
            raise StageError(
                "`annotate` is zero_shot, but `embed` does not say which model made its columns; name it in "
                "`annotate.encoder`"
            )
        return self


Annotate = Annotated[ConceptColumn | Captions | ZeroShot, Field(discriminator="kind")]


# --------------------------------------------------------------------------------------------------------------- score
class Alignment(Section):
    """Cosine of image and text embedding."""

    kind: Literal["alignment"] = "alignment"


Score = Alignment


# -------------------------------------------------------------------------------------------------------------- select
class ExactDuplicates(Section):
    """Keep one row of each set with the same image bytes and text."""

    reasons: ClassVar[dict[str, Reason]] = {
        "exact_duplicate": Reason(
            "Another row has the same image bytes and text.", "`keeper_file` and `keeper_row` name the kept one."
        )
    }

    kind: Literal["exact_duplicates"] = "exact_duplicates"
    keep_by: str | None = Field(
        None, description="Score whose highest value names the keeper; ties and null: lowest (file, row)."
    )


class Threshold(Section):
    """Keep rows whose score reaches a cut."""

    reasons: ClassVar[dict[str, Reason]] = {
        "below_threshold": Reason(
            "The score is below the cut.", "Its score stands beside it; lower `minimum`, or raise `keep_fraction`."
        ),
        "no_score": Reason("The score is null or NaN.", "`mixwright explain` tells what the stage before gave."),
    }

    kind: Literal["threshold"] = "threshold"
    score: str = Field("alignment", description="Name of the score.")
    minimum: float | None = Field(None, allow_inf_nan=False, description="Keep rows with a score of at least this.")
    keep_fraction: float | None = Field(
        None, gt=0, le=1, description="Keep the best-scored fraction of all rows: a global quantile. Ties are kept."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Threshold:
        if (self.minimum is None) == (self.keep_fraction is None):
            raise ValueError(
                f"`minimum` is {self.minimum} and `keep_fraction` is {self.keep_fraction}; give exactly one of them"
            )
        return self


class NearDuplicates(Section):
    """Keep one row of each group of rows whose embeddings are nearly equal."""

    reasons: ClassVar[dict[str, Reason]] = {
        "near_duplicate": Reason(
            "Another row's embedding is alike by the select's `threshold` or more.",
            "The keeper is named; raise `threshold` to drop fewer.",
        )
    }

    kind: Literal["near_duplicates"] = "near_duplicates"
    embedding: Literal["image", "text"] = Field("image", description="Which embedding is compared.")
    threshold: float = Field(0.95, gt=0, le=1, description="Cosine from which two rows count as near duplicates.")
    keep_by: str | None = Field(
        "alignment", description="Score whose highest value names the keeper; ties and null: lowest (file, row)."
    )
    bucket_rows: int = Field(
        8192,
        ge=2,
        le=65536,
        description="Rows per bucket, about. Pairs are looked for inside a bucket: with no more rows than this the "
        "result is exact; larger buckets find more pairs for more work.",
    )


Select = Annotated[ExactDuplicates | Threshold | NearDuplicates, Field(discriminator="kind")]


# ----------------------------------------------------------------------------------------------------------------- mix
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


# -------------------------------------------------------------------------------------------------------------- sample
class Batches(Section):
    """What every sampler has: superbatches of B draws, of which b = (1 - filter ratio) * B are kept."""

    batch_size: int = Field(256, ge=1, description="Rows of one emitted batch (the sub-batch), all workers together.")
    filter_ratio: float = Field(0.0, ge=0, lt=1, description="Share of each superbatch that is not emitted.")
    world_size: int = Field(1, ge=1, description="Training workers (ranks) among which each batch is divided.")

    @model_validator(mode="after")
    def _divisible(self) -> Batches:
        if self.batch_size % self.world_size:
            raise ValueError(
                f"`batch_size` is {self.batch_size}; it must be a multiple of `world_size`, which is {self.world_size}"
            )
        if self.filter_ratio > 0 and self.superbatch == self.batch_size:
            raise ValueError(
                f"`filter_ratio` is {self.filter_ratio}, but with `batch_size` {self.batch_size} and `world_size` "
                f"{self.world_size} nothing would be filtered; raise one of the first two"
            )
        return self

    @property
    def superbatch(self) -> int:
        """B: draws per superbatch, a multiple of the world size."""
        return round(self.batch_size / (1 - self.filter_ratio) / self.world_size) * self.world_size


class Iid(Batches):
    """The first b of each superbatch: independent, identically distributed."""

    kind: Literal["iid"] = "iid"


class CabsDm(Batches):
    """CABS diversity maximisation: greedy cover of concepts, rare ones first."""

    kind: Literal["cabs_dm"] = "cabs_dm"
    filter_ratio: float = Field(0.8, ge=0, lt=1, description="Share of each superbatch that is not emitted.")
    variant: Literal["released", "printed"] = Field(
        "released", description="The authors' released code, or the formula printed in the paper."
    )
    minimum: int = Field(1, ge=1, description="Smallest target count of a concept.")
    maximum: int = Field(10, ge=1, description="Largest target count of a concept, and its cap per worker.")

    @model_validator(mode="after")
    def _ordered(self) -> CabsDm:
        if self.minimum > self.maximum:
            raise ValueError(f"`minimum` is {self.minimum}; it must not exceed `maximum`, which is {self.maximum}")
        return self


class CabsFm(Batches):
    """CABS frequency maximisation: the rows with the most concepts."""

    kind: Literal["cabs_fm"] = "cabs_fm"
    filter_ratio: float = Field(0.8, ge=0, lt=1, description="Share of each superbatch that is not emitted.")


Sample = Annotated[Iid | CabsDm | CabsFm, Field(discriminator="kind")]
