"""How rows get their concepts. One model a method; a stage with several has a union on `kind`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from configs.errors import StageError
from configs.methods.embed import OpenClip
from configs.reasons import Reason
from configs.section import Section

Cleaning = Literal["none", "names", "merge"]
FROZEN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


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
    cleaning: Cleaning = Field(
        "none",
        description="`none`: concepts as they are; `names`: in lower case, underscores as blanks, blanks collapsed, "
        "one that is empty then left out, repeats kept; `merge`: besides, abbreviations and near-identical spellings "
        "become the one that more rows have. For that the rows are counted once and what was found is frozen; a "
        "concept not seen then stays itself.",
    )
    name: str | None = Field(
        None,
        pattern=FROZEN_NAME,
        description="Name under which `cleaning: merge` is frozen in the store; null: the name of the mix.",
    )
    remine: bool = Field(False, description="Count and merge again, and replace what is frozen under this name.")

    operational: ClassVar[frozenset[str]] = frozenset({"remine"})


class Captions(Section):
    """Concepts that occur in the caption: MetaCLIP's spacing-and-substring rule."""

    kind: Literal["captions"] = "captions"
    vocabulary: str | None = Field(
        None,
        description="A text file of concepts, one a line (blank lines and repeats are passed over; one without a "
        "concept is refused), `imagenet-1k` or `imagenet-21k`; null: mine the vocabulary from the captions themselves.",
    )
    name: str | None = Field(
        None,
        pattern=FROZEN_NAME,
        description="Name under which a mined vocabulary is frozen in the store; null: the name of the mix. Mining "
        "happens once; new rows are matched against the frozen list until `remine` or another name is given.",
    )
    remine: bool = Field(False, description="Mine again and replace the frozen vocabulary of this name.")
    lowercase: bool = Field(
        True,
        description="Fold case of captions and concepts before matching. False, with `cleaning: none`, is MetaCLIP.",
    )
    cleaning: Cleaning = Field(
        "names",
        description="`none`: names as they are; `names`: a concept is its name in lower case, underscores as blanks, "
        "blanks collapsed, one that is empty then left out; `merge`: besides, a name that abbreviates an earlier one, "
        "or has nearly its letters, becomes that one (of mined names the more frequent is the earlier). All spellings "
        "are looked for, the concept is recorded. Read the mapping beside the frozen vocabulary before you trust "
        "`merge`: `car` may become `chicken and rice`.",
    )
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
    cleaning: Cleaning = Field("none", description="Of the names, before they are embedded; as for `captions`.")
    top_k: int = Field(5, ge=1, le=1000, description="Concepts of a row at most: those nearest to the picture.")
    threshold: float | None = Field(
        None, ge=-1, le=1, description="Of the `top_k`, concepts with a confidence below this are left out. Null: none."
    )
    thresholds: dict[str, float] | str | None = Field(
        None,
        description="Thresholds of single concepts, by name, or a text file with lines of concept, tab, number; others "
        "have `threshold`. A row gets the `top_k` best of the concepts that reach their own.",
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

    @field_validator("thresholds", mode="before")
    @classmethod
    def _are_cosines(cls, value: Any) -> Any:
        if value is None or isinstance(value, str):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"`thresholds` is {value!r}; it must be a mapping of concepts to numbers, or a text file")
        for concept, number in value.items():
            if not isinstance(concept, str):
                raise ValueError(f"`thresholds` names {concept!r}, which YAML takes for no text; put it in quotes")
            if isinstance(number, bool) or not isinstance(number, int | float) or not -1 <= number <= 1:
                raise ValueError(f"`thresholds` of {concept!r} is {number!r}; it must be a number in [-1, 1]")
        return value

    @model_validator(mode="after")
    def _scale_is_used(self) -> ZeroShot:
        if self.logit_scale is not None and self.confidence != "softmax":
            raise ValueError(f"`logit_scale` is {self.logit_scale}, which only `confidence` softmax has a use for")
        return self

    def output_fields(self) -> dict[str, Any]:
        """See `Section`; names and their embeddings are a state of their own, with a digest of its content."""
        return self.model_dump(mode="json", exclude={"vocabulary", "cleaning", "templates", "encoder"})

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
