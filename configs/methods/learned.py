"""Learned mixing laws (the Aioli family): proportions that a small proxy's losses speak for."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.methods.mixture import Mixture
from configs.methods.proxies import PairProxy
from configs.section import Section

Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
SHORT_STEPS = 32
"""Of a training that only tells how long a step takes."""
MOST_SWEEPS = 4
"""Of a round of Aioli's, where nobody says how many."""


class LanguageMixProxy(Section):
    """A small causal language model on a column of texts, with a tokenizer of its own, trained on the sample."""

    kind: Literal["language"] = "language"
    text: str | None = Field(None, description="Column of texts; null: the text of the input.")
    max_length: int = Field(
        128, ge=8, le=8192, description="Tokens of a row; the rest is cut off. 16 characters for each are read at most."
    )
    vocabulary: int = Field(4096, ge=300, le=65536, description="Tokens of the tokenizer.")
    width: int = Field(128, ge=16, le=2048, description="Of the model.")
    layers: int = Field(2, ge=1, le=24, description="Of the model.")
    heads: int = Field(4, ge=1, le=32, description="Of the model, a divisor of `width`.")

    @model_validator(mode="after")
    def _heads_fit(self) -> LanguageMixProxy:
        if self.width % self.heads:
            raise ValueError(f"`heads` is {self.heads} and `width` {self.width}; `width` must be a multiple of `heads`")
        return self


MixProxy = Annotated[LanguageMixProxy | PairProxy, Field(discriminator="kind")]


class Learned(Mixture):
    """What learned mixing laws have in common: a proxy, what it learns from, and how its training becomes rounds."""

    proxy: MixProxy = Field(
        LanguageMixProxy(), description="What is trained: a small language model, or adapters over the embeddings."
    )
    steps: int = Field(2000, ge=1, le=10_000_000, description="Optimiser steps of one training of the proxy.")
    rounds: int = Field(8, ge=1, le=1000, description="Times that proportions are set anew during the training.")
    batch_size: int = Field(32, ge=2, le=65536, description="Rows of a training step.")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Highest; a cosine behind a warm-up.")
    train_rows: int = Field(
        20_000,
        ge=2,
        description="Rows of each group that the proxy learns from, at most. All groups together have 400,000 or a "
        "gigabyte, whichever is less: many groups have fewer each, and a warning says how many.",
    )
    validation_rows: int = Field(
        256,
        ge=1,
        description="Rows of each group that its loss is measured on, at most; a quarter of what `train_rows` says may "
        "be learned from where groups are many.",
    )
    proxy_seed: int = Field(0, ge=0, le=2**63 - 1, description="Of the proxy's weights, rows, batches.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes a CUDA device where there is one.")
    apply: Literal["rounds", "average", "last"] = Field(
        "rounds",
        description="What the mix takes over: `rounds`, the proportions of every round, drawn in that order; their "
        "`average`; or the `last`.",
    )

    @property
    def measurings(self) -> float:
        """How many times as often losses are measured as in a training of one round."""
        return float(self.rounds)

    def shortened(self) -> tuple[Self, float]:
        """See `Section`: one round of few steps; so few validation rows that measuring has its share of the time."""
        return self._shortened(SHORT_STEPS)

    def _shortened(self, steps: int) -> tuple[Self, float]:
        steps = min(self.steps, steps)
        factor = self.steps / steps
        rows = max(1, round(self.validation_rows * self.measurings / factor))
        return self.model_copy(update={"steps": steps, "rounds": 1, "validation_rows": rows}), factor

    @model_validator(mode="after")
    def _rounds_have_steps(self) -> Learned:
        if self.steps % self.rounds:
            raise ValueError(f"`steps` is {self.steps}; it must be a multiple of `rounds`, which is {self.rounds}")
        return self


class Aioli(Learned):
    """Proportions by the effect that training on each group has on the loss of each, measured in the run itself."""

    kind: Literal["aioli"] = "aioli"
    sweeps: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="k: times that every group is perturbed in a round; null: 4, or as many as leave a quarter of the "
        "round to the mixture that was learned, at least 1.",
    )
    burst_steps: int = Field(4, ge=1, le=100_000, description="s: steps with a perturbed mixture at a time.")
    perturbation: float = Field(
        0.75,
        ge=0,
        lt=1,
        description="Epsilon: share of the uniform mix in a perturbed one; the rest is the group alone. 0: one-hot.",
    )
    eta: float = Field(0.2, ge=0, le=1e3, description="Step of the exponentiated gradient.")
    ema: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Weight of the earlier rounds' matrices, as in the released scripts: proportions then restart from "
        "uniform every round and stay within a factor of e^eta. Null: the paper's cumulative update.",
    )
    normalise: bool = Field(True, description="Shift the matrix to be non-negative and scale it to sum one.")
    diagonal: bool = Field(False, description="Ablation: count the effect of each group on itself alone.")
    prior: dict[str, Share] | None = Field(
        None, description="Restricted mode: train with these proportions first, for `prior_steps`."
    )
    prior_steps: int = Field(0, ge=0, description="Steps with `prior`, before the rounds; 0: none.")

    @model_validator(mode="after")
    def _prior_fits(self) -> Aioli:
        if bool(self.prior) != bool(self.prior_steps):
            raise ValueError("`prior` and `prior_steps` go together; give both, or neither")
        if self.prior_steps >= self.steps or (self.steps - self.prior_steps) % self.rounds:
            raise ValueError(
                f"`steps` less `prior_steps` is {self.steps - self.prior_steps}; it must be a multiple of `rounds`, "
                f"which is {self.rounds}"
            )
        return self

    @property
    def measurings(self) -> float:
        """See `Learned`: once a sweep and group."""
        return float(self.rounds * (self.sweeps or MOST_SWEEPS))

    def shortened(self) -> tuple[Self, float]:
        """See `Learned`: one sweep, of one step on each group alone, which tells any number of groups apart."""
        most_groups = self.round_steps // ((self.sweeps or 1) * self.burst_steps)
        short, factor = self._shortened(max(SHORT_STEPS, most_groups))
        changes = {"sweeps": 1, "burst_steps": 1, "perturbation": 0.0, "prior": None, "prior_steps": 0}
        return short.model_copy(update=changes), factor

    @property
    def round_steps(self) -> int:
        """Steps of a round, its bursts included."""
        return (self.steps - self.prior_steps) // self.rounds

    def sweeps_of(self, groups: int) -> int:
        """k, of so many groups; more than fit into a round if `sweeps` says so, or if not even one does."""
        if self.sweeps is not None:
            return self.sweeps
        return min(MOST_SWEEPS, max(1, 3 * self.round_steps // (4 * self.burst_steps * groups)))


class Doremi(Learned):
    """Proportions by how much worse than a reference the proxy still is on each group (DoReMi)."""

    kind: Literal["doremi"] = "doremi"
    apply: Literal["rounds", "average", "last"] = Field("average", description="As for `aioli`; the paper's: average.")
    reference_steps: int | None = Field(
        None, ge=1, description="Steps of the reference, trained on the uniform mix; null: as many as the proxy's."
    )
    step_size: float = Field(1.0, gt=0, le=1e3, description="Mu, of the exponentiated gradient.")
    smoothing: float = Field(1e-3, ge=0, lt=1, description="Share of the uniform mix in the proportions.")

    def shortened(self) -> tuple[Self, float]:
        """See `Learned`: the reference is shorter by as much."""
        short, factor = super().shortened()
        steps = self.reference_steps and max(1, round(self.reference_steps / factor))
        return short.model_copy(update={"reference_steps": steps}), factor


class Doge(Learned):
    """Proportions by how well each group's gradient agrees with that of the validation rows (DoGE)."""

    kind: Literal["doge"] = "doge"
    apply: Literal["rounds", "average", "last"] = Field("average", description="As for `aioli`; the paper's: average.")
    mu: float = Field(0.01, gt=0, le=1e3, description="What scores are divided by, in the exponentiated gradient.")


class SkillIt(Learned):
    """Proportions by recent losses, spread over a graph of what training on each group does for the others."""

    kind: Literal["skill_it"] = "skill_it"
    eta: float = Field(0.2, ge=0, le=1e3, description="Step of the exponentiated gradient.")
    window: int = Field(3, ge=1, le=1000, description="Losses that are summed: those of so many rounds.")
    graph_steps: int | None = Field(
        None, ge=1, description="Steps of each run on one group alone that measures the graph; null: those of a round."
    )

    @property
    def measurings(self) -> float:
        """See `Learned`: once a group for the graph, once a round; by eight groups."""
        return (8 + self.rounds) / 9

    def shortened(self) -> tuple[Self, float]:
        """See `Learned`: the runs that measure the graph are shorter by as much."""
        short, factor = super().shortened()
        steps = max(1, round((self.graph_steps or self.steps // self.rounds) / factor))
        return short.model_copy(update={"graph_steps": steps}), factor


class MixingLaw(Learned):
    """One mixture, the best by a law that is fitted to full trainings on some mixtures (data mixing laws)."""

    kind: Literal["mixing_law"] = "mixing_law"
    rounds: int = Field(1, ge=1, le=1, description="The law is static: one round.")
    runs: int | None = Field(
        None, ge=2, le=1000, description="Trainings, on mixtures of a cover: more than groups; null: 3 a group."
    )
