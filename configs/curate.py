"""The configuration of a curation run: it is the YAML file, the CLI's `--set` and, flattened, the form in the UI."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from configs.inputs import NAME, Columns, Inputs
from configs.methods.annotate import Annotate
from configs.methods.embed import Embed
from configs.methods.mix import Mix, Static
from configs.methods.sample import Iid, Sample
from configs.methods.score import Score
from configs.methods.select import Select
from configs.runner import Runner
from configs.section import Section
from configs.storage import Storage

Preset = Literal["demo", "image-text", "text-only", "plain"]


class Emit(Section):
    """How the mix is written."""

    out: str = Field("mixes", description="Folder or fsspec URL that receives `<name>/<version>/`.")
    scores: list[str] | None = Field(None, description="Scores written beside each row; null: all of them.")
    concepts: bool = Field(False, description="Write each row's concepts beside it, as `mix_concepts`.")
    part_bytes: int = Field(
        250_000_000, ge=1_000, le=1_000_000_000, description="Upper limit of the row bytes in one Parquet part."
    )
    row_group_rows: int | None = Field(
        None, ge=1, le=1_048_576, description="Rows per row group; null: 100 with images, 10,000 without."
    )


class Report(Section):
    """The report beside the mix."""

    top_concepts: int = Field(40, ge=1, le=500, description="Concepts shown in the histograms.")
    gallery_rows: int = Field(
        12, ge=0, le=60, description="Rows shown of the kept ones and of each reason; 0: the report has no galleries."
    )
    thumbnail_pixels: int = Field(128, ge=16, le=512, description="Longer side of the pictures in galleries.")
    efficiency_warning: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Warn of a mix whose weight is so uneven that rho, its effective share of rows, is below this: by "
        "groups, by rows, or with copies counted as one. A rule of thumb; 0: never.",
    )
    efficiency_alarm: float = Field(
        0.1, ge=0, le=1, description="Below this, too, the warning names this limit and not the other."
    )
    epochs_warning: float | None = Field(
        4.0,
        gt=0,
        allow_inf_nan=False,
        description="Warn of groups whose rows are used more often than this, on average. Null: never.",
    )


class Curate(Section):
    """A curation run, whole. Leaving a stage's section out (null or an empty list) skips the stage."""

    operational: ClassVar[frozenset[str]] = frozenset({"store", "storage", "runner", "max_quarantine_fraction"})

    name: str = Field("mix", pattern=NAME, description="Name of the mix: its folder under `emit.out`.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of all random choices in selection, mixing, sampling.")
    store: str = Field("mixwright-store", description="Folder or fsspec URL of sidecars, decisions, plans: the cache.")
    storage: Storage = Field(Storage(), description="How object stores are reached; secrets as env:NAME alone.")
    input: Inputs = Field(description="The raw data: one input, or a list of named inputs.")
    max_quarantine_fraction: float = Field(
        0.5,
        ge=0,
        le=1,
        description="The run fails, before anything is mixed, if more than this share of rows (or of files) ends in "
        "the quarantine.",
    )
    embed: Embed | None = Field(None, description="How rows are embedded.")
    annotate: Annotate | None = Field(None, description="How rows get their concepts.")
    score: list[Score] = Field([], description="Scores, one or more named columns each.")
    select: list[Select] = Field([], description="Selections in order; each sees what the earlier ones kept.")
    mix: Mix = Field(Static(), description="Which rows are drawn, how often.")
    sample: Sample = Field(Iid(), description="How draws become batches.")
    emit: Emit = Field(Emit(), description="How the mix is written.")
    report: Report = Field(Report(), description="What the report shows.")
    runner: Runner = Field(Runner(), description="How work is spread.")

    @model_validator(mode="after")
    def _inputs_fit_together(self) -> Curate:
        """Inputs of one run have names of their own, and all have images or none, all have text or none."""
        names = [one.name for one in self.inputs]
        if len(names) > 1 and (None in names or len(set(names)) < len(names)):
            raise ValueError(f"`input` has {len(names)} inputs named {names}; each needs a `name` of its own")
        for role in ("image", "text"):
            having = {getattr(one, role) is not None for one in self.inputs}
            if len(having) > 1:
                raise ValueError(f"some of `input` have `{role}` and some have none; curate them in runs of their own")
        return self

    @property
    def inputs(self) -> tuple[Columns, ...]:
        """The inputs, one or several."""
        return tuple(self.input) if isinstance(self.input, list) else (self.input,)

    @property
    def roles(self) -> dict[str, str]:
        """Role -> the column's name in the mix: the first input's that has one; of named inputs there is a source."""
        found: dict[str, str] = {}
        for one in self.inputs:
            found = one.roles | found
        return found | ({"source": "source"} if "source" not in found and self.inputs[0].name else {})
