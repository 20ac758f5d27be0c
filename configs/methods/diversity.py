"""Selections for diversity: rows that stand for the others, rather than rows that pass a cut."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from configs.methods.targets import Targeted
from configs.reasons import Reason
from configs.section import Section

Bits = Annotated[int, Field(ge=1, le=64)]


class GaisGraph(Section):
    """Which rows are neighbours, for GAIS-style (reconstructed) selection; defaults as far as the papers tell."""

    kind: Literal["mini_batch", "chunks", "single_level", "multi_level", "multi_view", "none"] = Field(
        "mini_batch",
        description="`mini_batch`: similar rows of stratified batches; `chunks`: of overlapping windows, some pairs "
        "left out at random (GAIS-1); `single_level`, `multi_level`, `multi_view`: rows of one bucket of random "
        "projections; `none`: no edges, the network alone.",
    )
    metric: Literal["euclidean", "manhattan", "cosine"] = Field(
        "euclidean", description="Distance of `mini_batch` and `chunks`."
    )
    similarity_threshold: float = Field(
        0.9, ge=0, lt=1, description="Share of the pairs of a batch that are not similar enough for an edge."
    )
    include_diagonal: bool = Field(
        False, description="Count each row as a pair with itself, as the authors' sibling code does."
    )
    mode: Literal["cover", "sample"] = Field(
        "cover",
        description="`mini_batch`: `cover` deals all rows to batches; `sample` draws `batches` of them and scores only "
        "these rows: the network learns from `train_rows` as with `cover`.",
    )
    batch_rows: int = Field(1000, ge=2, le=8192, description="Rows of a batch (`mini_batch`) or window (`chunks`).")
    batches: int = Field(
        20,
        ge=1,
        description="Batches of `mode: sample`; rows in none of them are never kept, and shares are of the others.",
    )
    overlap: int = Field(100, ge=0, description="Rows that two windows share (`chunks`); below `batch_rows`.")
    random_threshold: float = Field(0.2, ge=0, lt=1, description="Share of pairs that `chunks` leaves out at random.")
    bits: tuple[Bits, ...] | None = Field(
        None,
        min_length=1,
        max_length=8,
        description="Bits of the keys, finest level first. Null: 12, (16, 12, 8) and (12, 8) for `single_level`, "
        "`multi_level` and `multi_view`.",
    )
    tables: int = Field(1, ge=1, le=32, description="Hash tables of `single_level`; an edge needs one of them.")
    agreement: float = Field(
        0.5, gt=0, le=1, description="Least weight of an edge of `multi_level` and `multi_view` (tau)."
    )
    views: int = Field(4, ge=1, le=64, description="Views of `multi_view`, each of a random part of the features.")
    view_features: float = Field(0.7, gt=0, le=1, description="Share of the features in a view.")
    max_bucket: int = Field(
        50, ge=1, le=1000, description="In a larger bucket each row is joined to this many members, drawn at random."
    )

    @property
    def levels(self) -> tuple[int, ...]:
        """Bits of the keys, finest level first."""
        usual = {"single_level": (12,), "multi_level": (16, 12, 8)}
        return self.bits or usual.get(self.kind, (12, 8))

    @property
    def hashed(self) -> bool:
        """Whether neighbours are rows of one bucket."""
        return self.kind in ("single_level", "multi_level", "multi_view")

    @model_validator(mode="after")
    def _consistent(self) -> GaisGraph:
        if any(fine <= coarse for fine, coarse in zip(self.levels, self.levels[1:], strict=False)):
            raise ValueError(f"`bits` is {self.levels}; each level must have fewer bits than the one before it")
        if self.kind == "single_level" and len(self.levels) > 1:
            raise ValueError(f"`bits` is {self.levels}; `single_level` has one level")
        if self.kind == "chunks" and self.overlap >= self.batch_rows:
            raise ValueError(f"`overlap` is {self.overlap}; it must be below `batch_rows`, {self.batch_rows}")
        return self


class GaisNetwork(Section):
    """The graph attention network and its training.

    Focal loss and dropout keep probabilities flat: of ten classes told apart at an accuracy of 0.998, a row's own has
    0.27 on average (`focus: 0` raises it: from 0.37 to 0.86 in another case). They rank rows, and are no odds. Dropout
    also makes training slow: 60 epochs are too few for it.
    """

    layers: int = Field(3, ge=1, le=8, description="Hidden attention layers.")
    hidden: int = Field(32, ge=1, le=512, description="Units of a head.")
    heads: int = Field(4, ge=1, le=32, description="Heads of a hidden layer.")
    output_heads: int = Field(3, ge=1, le=32, description="Heads of the output layer.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Dropout of features, before and between the layers.")
    attention_dropout: float = Field(0.3, ge=0, lt=1, description="Dropout of attention.")
    class_scale: bool = Field(False, description="Scale each row's logits by a number learned for its own class.")
    learning_rate: float = Field(0.01, gt=0, description="Adam's; halved after 10 epochs without a better loss.")
    focus: float = Field(2.0, ge=0, description="Gamma of the focal loss; 0: plain cross-entropy.")
    epochs: int = Field(500, ge=1, description="Most epochs.")
    patience: int = Field(30, ge=1, description="Epochs without a better validation loss after which training ends.")
    validation: float = Field(0.1, ge=0, lt=1, description="Share of each class that is held out to stop by.")


class GaisScore(Section):
    """What makes a row worth keeping."""

    kind: Literal["attention", "confidence", "both"] = Field(
        "attention",
        description="`attention`: what other rows pay it (GAIS-2); `confidence`: its probability (GAIS-1); `both`: the "
        "product.",
    )
    layers: Literal["mean", "median", "max", "product", "entropy", "magnitude"] = Field(
        "mean", description="How the attention of the hidden layers is put together."
    )
    per_edge: bool = Field(False, description="Mean attention an edge instead of the sum.")
    true_class: bool = Field(
        True, description="Confidence is the probability of the row's own class; false: of the likeliest one."
    )


class Gais(Targeted):
    """GAIS-style (reconstructed) instance selection: the rows of each class that a graph attention network attends to.

    After Rustamov, Zaitouny, Damseh and Zaki (arXiv 2412.19201, 2502.20293), rebuilt from abstracts and summaries: it
    claims none of the papers' figures. A network is trained on a sample, then scores all rows block by block; each
    class keeps its best rows, one at least.
    """

    reasons: ClassVar[dict[str, Reason]] = {
        "less_important": Reason(
            "Other rows of its class have higher scores (GAIS-style, reconstructed).",
            "Its score stands beside it; raise `keep_ratio` or the target, or lower `percentile`.",
        ),
        "in_no_batch": Reason(
            "It is in none of the batches of `mode: sample`, so it has no score.",
            "Raise `graph.batches` or `graph.batch_rows`, or take `graph.mode: cover`.",
        ),
        "no_label": Reason(
            "The label is null or NaN, so the row has no class to be compared in.",
            "Label such rows, set `unlabelled: keep`, or take `labels: cluster`.",
        ),
        "no_features": Reason(
            "A feature is null, NaN or infinite, or there is no embedding.",
            "Fill the column, or look up in the quarantine why the row was not embedded.",
        ),
    }

    kind: Literal["gais"] = "gais"
    features: Literal["image", "text", "both"] | list[str] = Field(
        "image", description="The embedding that rows are compared by, both side by side, or numeric input columns."
    )
    labels: str = Field(
        "source", description="The input column with the classes; `cluster`: k-means clusters of the features."
    )
    clusters: int = Field(100, ge=2, le=1000, description="Clusters of `labels: cluster`.")
    unlabelled: Literal["drop", "keep"] = Field("drop", description="What becomes of rows without a label.")
    keep_ratio: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of each class that stays, one row at least. Null: 0.04, if nothing else is.",
    )
    percentile: float | None = Field(
        None, ge=0, lt=1, description="Instead: keep the rows above this quantile of their class's scores, or the best."
    )
    graph: GaisGraph = Field(GaisGraph(), description="Which rows are neighbours.")
    network: GaisNetwork = Field(GaisNetwork(), description="The graph attention network and its training.")
    score: GaisScore = Field(GaisScore(), description="What makes a row worth keeping.")
    train_rows: int = Field(
        2000,
        ge=10,
        le=1_000_000,
        description="Rows of the sample that the network learns from; 2,000 take 10 to 60 CPU seconds.",
    )
    bucket_rows: int = Field(
        16384, ge=1000, le=262_144, description="Rows that are in memory at once, about; graphs do not cross buckets."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the network computes.")
    tune_trials: int = Field(
        0,
        ge=0,
        le=1000,
        description="Trials of Optuna for the graph's and network's settings, on the sample; 0: none. Needs "
        "`pip install 'mixwright[tune]'`.",
    )

    def shortened(self) -> tuple[Self, float]:
        """See `Section`: ten epochs, no trials; the whole training may stop before the last of its epochs."""
        epochs = min(self.network.epochs, 10)
        network = self.network.model_copy(update={"epochs": epochs})
        factor = self.network.epochs / epochs * (1 + self.tune_trials)
        return self.model_copy(update={"network": network, "tune_trials": 0}), factor

    @model_validator(mode="after")
    def _one_size(self) -> Gais:
        given = {"keep_ratio": self.keep_ratio, "percentile": self.percentile, "target_…": self.target}
        names = [f"`{name}`" for name, value in given.items() if value is not None]
        if len(names) > 1:
            raise ValueError(f"{' and '.join(names)} are given; give at most one of them")
        return self

    @model_validator(mode="after")
    def _some_features(self) -> Gais:
        if isinstance(self.features, list) and (not self.features or len(set(self.features)) < len(self.features)):
            raise ValueError(f"`features` is {self.features}; name one column at least, each once")
        return self
