"""Where raw data comes from: one model a kind of input. A new kind adds its model here and a line in `tasks.ingest`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from configs.reasons import CONVERSION, Reason
from configs.section import Section

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
ROLES = ("image", "text", "key", "source")
"""What a column can be to a run, besides one that passes through."""


class Columns(Section):
    """Where raw data is and which columns mean what; every other column passes through to the mix."""

    path: str = Field(description="Where it is.")
    name: str | None = Field(
        None,
        pattern=NAME,
        description="Name of this input: begins the `file` of its rows, and is their source where no column says it. "
        "Needed where there are several inputs.",
    )
    image: str | None = Field("image", description="Column of encoded images: binary or struct<bytes, path>; or null.")
    text: str | None = Field("text", description="Column of captions; or null.")
    key: str | None = Field(None, description="Column of the user's own row keys; passed through, need not be unique.")
    source: str | None = Field(None, description="Column that says where a row comes from.")
    exclude: list[str] = Field([], description="Columns that do not pass through to the mix.")
    unsupported: Literal["refuse", "json"] = Field(
        "refuse", description="Columns of types that `datasets` cannot read back: refuse the input, or write JSON text."
    )

    @model_validator(mode="after")
    def _something_to_curate(self) -> Columns:
        if self.image is None and self.text is None:
            raise ValueError("`input.image` and `input.text` are both null; name one column at least")
        return self

    @property
    def roles(self) -> dict[str, str]:
        """Role -> column, of the roles that have one."""
        return {role: column for role in ROLES if (column := getattr(self, role)) is not None}


class ParquetInput(Columns):
    """Parquet shards, used in place: img2dataset's output, Hugging Face's, any other."""

    kind: Literal["parquet"] = "parquet"
    path: str = Field(
        description="A folder (its *.parquet, at any depth), a glob or one file; local or any fsspec URL."
    )


class WebdatasetInput(Columns):
    """Webdataset tars: members of one basename are a sample. Converted once into Parquet shards in the store.

    Fields of the member `json` and members of other extensions (`cls`, `npy`, `seg.png`) are columns of their own; of
    two that would have one name, the field gets `_json` behind its own.
    """

    reasons: ClassVar[dict[str, Reason]] = CONVERSION

    kind: Literal["webdataset"] = "webdataset"
    path: str = Field(
        description="A folder (its *.tar, *.tar.gz, *.tgz, *.tar.zst, at any depth), a glob or one file; any URL."
    )
    image: str | None = Field(
        "image", description="`image`: the picture of each sample; another extension; or null: not read."
    )
    text: str | None = Field(
        "text", description="`text`: the member `txt`; or a field of the member `json`; or null: no captions."
    )
    key: str | None = Field("key", description="`key`: the samples' basename within the tar; or a JSON field.")


class JsonlInput(Columns):
    """Lines of JSON, plain, gz or zst. Converted once into Parquet shards in the store."""

    reasons: ClassVar[dict[str, Reason]] = CONVERSION

    kind: Literal["jsonl"] = "jsonl"
    path: str = Field(
        description="A folder (its *.jsonl, *.ndjson, with .gz or .zst or without, at any depth), a glob or one file."
    )
    image: str | None = Field(
        None, description="Field with the path of an image file, relative to the JSONL file and inside its folder."
    )


class ImageFolderInput(Columns):
    """Pictures in folders: the folder is the source, a .txt file beside a picture its caption. Converted once."""

    reasons: ClassVar[dict[str, Reason]] = CONVERSION

    kind: Literal["image_folder"] = "image_folder"
    path: str = Field(description="The folder; its sub-folders, at any depth, are the sources. Local or an fsspec URL.")
    key: str | None = Field("key", description="`key`: path of the picture within the folder.")
    source: str | None = Field("source", description="`source`: the picture's folder within `path`.")
    caption: Literal["all", "first_line"] = Field(
        "all", description="The whole sidecar file is the caption, or its first line (as Tux Paint's stamps have it)."
    )


class HuggingFaceInput(Columns):
    """A data set of Hugging Face `datasets`: a name on the hub or a folder of `save_to_disk`. Converted once."""

    reasons: ClassVar[dict[str, Reason]] = CONVERSION

    kind: Literal["huggingface"] = "huggingface"
    path: str = Field(description="`org/name` on the hub, a folder of `save_to_disk`, or a folder of data files.")
    subset: str | None = Field(None, description="Configuration of the data set, where it has several.")
    split: str = Field("train", description="Split, slices as in `train[:1%]` included.")
    revision: str | None = Field(None, description="Branch, tag or commit; name a commit for the same bytes next year.")
    streaming: bool = Field(False, description="Read without downloading first; needs no local space.")


KINDS: tuple[type[Columns], ...] = (ParquetInput, WebdatasetInput, JsonlInput, ImageFolderInput, HuggingFaceInput)


def _kind(value: Any) -> str:
    """The kind that a mapping or model names; one that names none is Parquet."""
    found = value.get("kind", "parquet") if isinstance(value, dict) else getattr(value, "kind", "parquet")
    return str(found)


Input = Annotated[
    Annotated[ParquetInput, Tag("parquet")]
    | Annotated[WebdatasetInput, Tag("webdataset")]
    | Annotated[JsonlInput, Tag("jsonl")]
    | Annotated[ImageFolderInput, Tag("image_folder")]
    | Annotated[HuggingFaceInput, Tag("huggingface")],
    Discriminator(
        _kind,
        custom_error_type="unknown_kind",
        custom_error_message="`kind` must be parquet, webdataset, jsonl, image_folder or huggingface",
    ),
]
Inputs = Annotated[
    Annotated[Input, Tag("one")] | Annotated[list[Input], Field(min_length=1), Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, list | tuple) else "one"),
]
