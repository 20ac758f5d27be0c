"""The configuration of a curation run: it is the YAML file, the CLI's `--set` and, flattened, the form in the UI."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from configs.methods import Annotate, Embed, Iid, Mix, Sample, Score, Select, Static
from configs.section import Section

Preset = Literal["demo", "image-text", "text-only", "plain"]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Input(Section):
    """Where the raw shards are and which columns mean what; every other column passes through to the mix."""

    kind: Literal["parquet"] = "parquet"
    path: str = Field(
        description="A folder (its *.parquet, at any depth), a glob or one file; local or any fsspec URL."
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
    def _something_to_curate(self) -> Input:
        if self.image is None and self.text is None:
            raise ValueError("`input.image` and `input.text` are both null; name one column at least")
        return self


class Emit(Section):
    """How the mix is written."""

    out: str = Field("mixes", description="Folder or fsspec URL that receives `<name>/<version>/`.")
    scores: list[str] | None = Field(None, description="Scores written beside each row; null: all of them.")
    part_bytes: int = Field(
        250_000_000, ge=1_000, le=1_000_000_000, description="Upper limit of the row bytes in one Parquet part."
    )
    row_group_rows: int | None = Field(
        None, ge=1, le=1_048_576, description="Rows per row group; null: 100 with images, 10,000 without."
    )


class Report(Section):
    """The report beside the mix."""

    top_concepts: int = Field(40, ge=1, le=500, description="Concepts shown in the histograms.")


class Runner(Section):
    """How work is spread; nothing here changes a byte of the output."""

    kind: Literal["threads"] = "threads"
    workers: int = Field(2, ge=1, le=512, description="Tasks in flight.")
    shards_per_task: int = Field(
        0, ge=0, description="Shards handled by one task; 0: as many as keep a stage at ten tasks or fewer."
    )


class Curate(Section):
    """A curation run, whole. Leaving a stage's section out (null or an empty list) skips the stage."""

    operational: ClassVar[frozenset[str]] = frozenset({"store", "runner"})

    name: str = Field("mix", pattern=NAME, description="Name of the mix: its folder under `emit.out`.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of all random choices in selection, mixing, sampling.")
    store: str = Field("mixwright-store", description="Folder or fsspec URL of sidecars, decisions, plans: the cache.")
    input: Input
    embed: Embed | None = Field(None, description="How rows are embedded.")
    annotate: Annotate | None = Field(None, description="How rows get their concepts.")
    score: list[Score] = Field([], description="Scores, one or more named columns each.")
    select: list[Select] = Field([], description="Selections in order; each sees what the earlier ones kept.")
    mix: Mix = Field(Static(), description="Which rows are drawn, how often.")
    sample: Sample = Field(Iid(), description="How draws become batches.")
    emit: Emit = Field(Emit(), description="How the mix is written.")
    report: Report = Field(Report(), description="What the report shows.")
    runner: Runner = Field(Runner(), description="How work is spread.")
