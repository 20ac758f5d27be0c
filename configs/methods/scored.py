"""Samplers that go by scores of a model: UDS and what it is compared with. They differ in `kind`; the rest may stay."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from configs.methods.batches import Batches
from configs.methods.logits import CausalLm, Logits
from configs.methods.utility import Gradients, TokenLosses, UtilityDiversity
from configs.section import Section


class Scored(Batches):
    """What these have in common: of each micro-batch of candidates the best are taken.

    What only some of them read may be given to all, so that one word compares them.
    """

    filter_ratio: float = Field(0.75, ge=0, lt=1, description="Share of each superbatch that is not emitted.")
    micro_batch: int | None = Field(
        None,
        ge=1,
        description="Candidates that are compared, M: each has K = (1 - `filter_ratio`) M taken, a whole "
        "number. Null: all of a worker's share of the superbatch.",
    )
    logits: Logits | None = Field(
        None, description="The model whose logits are scored; null: the columns are made by `score`, or of the input."
    )
    from_input: bool = Field(False, description="The columns to go by are the input's own: no model makes them.")
    reference: CausalLm | None = Field(None, description="`rho_loss`: the model trained on held-out data.")
    validation: str | None = Field(None, description="`greats`: a Parquet file of validation rows.")
    alpha: float = Field(1.5e-3, ge=0, le=1e6, allow_inf_nan=False, description="`uds`: what diversity counts for.")
    buffer: int = Field(1024, ge=1, le=1_000_000, description="`uds`: M, rows that the memory buffer remembers.")
    positions: Literal["all", "response"] = Field("all", description="`uds`: see the score `uds`.")
    orthonormal: bool = Field(False, description="`uds`: see the score `uds`; `alpha` is then scaled to match.")
    step_size: float = Field(1e-3, gt=0, le=1e3, description="`greats`: eta, of the step that it looks ahead.")
    column: str | None = Field(None, description="The score to go by, if not the one of `logits`: not `uds`, `greats`.")
    reference_column: str | None = Field(None, description="`rho_loss`: the reference's losses, if not of `reference`.")

    def _losses(self) -> list[Section]:
        if self.column is not None or self.logits is None:
            return []
        if not isinstance(self.logits, CausalLm):
            raise ValueError(
                f"`logits` is {self.logits.kind}, which has no losses; give `column`, or `logits` of kind causal_lm"
            )
        return [TokenLosses(logits=self.logits)]

    @property
    def share(self) -> tuple[int, int]:
        """`(M, K)`: candidates of a micro-batch, and how many of them are taken."""
        whole = self.superbatch // self.world_size
        taken = self.batch_size // self.world_size
        size = self.micro_batch or whole
        return size, taken * size // whole

    @model_validator(mode="after")
    def _micro_batches_fill(self) -> Scored:
        whole, taken = self.superbatch // self.world_size, self.batch_size // self.world_size
        size = self.micro_batch or whole
        if whole % size or taken * size % whole:
            raise ValueError(
                f"`micro_batch` is {size}; it must divide the {whole} draws of a worker's superbatch, of which "
                f"{taken} are kept, and have a whole number of rows taken of each: take one of "
                f"{_listed(_micro_batches(whole, taken), size)}"
            )
        if self.from_input and (self.logits or self.reference):
            raise ValueError(
                "`from_input` takes the scores from the input, `logits` and `reference` have them made; give one"
            )
        self.prepares()
        return self


def _micro_batches(whole: int, taken: int) -> list[int]:
    """M that divide `whole` candidates so that `taken` of them are whole numbers of each M: ascending."""
    least = whole // math.gcd(whole, taken)
    times = whole // least
    low = [n for n in range(1, math.isqrt(times) + 1) if times % n == 0]
    return [least * n for n in sorted({*low, *(times // n for n in low)})]


def _listed(sizes: list[int], wanted: int, most: int = 12) -> str:
    """The `most` sizes nearest to `wanted`, ascending."""
    near = sorted(sizes, key=lambda size: abs(math.log(size / wanted)))[:most]
    return ", ".join(map(str, sorted(near))) + (f" (of {len(sizes)} such numbers)" if len(sizes) > most else "")


class Uds(Scored):
    """Utility-diversity sampling: nuclear norm of a row's logits, plus its distance from rows taken before."""

    kind: Literal["uds"] = "uds"

    def prepares(self) -> list[Section]:
        """`intra` and `sketch`."""
        if self.logits is None:
            return []
        return [UtilityDiversity(logits=self.logits, positions=self.positions, orthonormal=self.orthonormal)]


class Random(Scored):
    """Rows of each micro-batch at random."""

    kind: Literal["random"] = "random"


class ByLosses(Scored):
    """By one of the numbers that a language model's predictions give."""

    def prepares(self) -> list[Section]:
        """`lm_loss`, `lm_entropy` and `lm_gradient_norm`."""
        return self._losses()


class MaxLoss(ByLosses):
    """The rows with the highest loss."""

    kind: Literal["max_loss"] = "max_loss"


class MaxEntropy(ByLosses):
    """The rows about whose tokens the model is least sure."""

    kind: Literal["max_entropy"] = "max_entropy"


class GradientNorm(ByLosses):
    """The rows with the largest gradient (of the last layer)."""

    kind: Literal["gradient_norm"] = "gradient_norm"


class RhoLoss(Scored):
    """The rows whose loss is highest above that of a model trained on held-out data (RHO-LOSS)."""

    kind: Literal["rho_loss"] = "rho_loss"

    def prepares(self) -> list[Section]:
        """`lm_loss` and `reference_loss`."""
        if self.reference_column is None and self.reference is None and not self.from_input:
            raise ValueError("`rho_loss` compares with a model trained on held-out data; give `reference`, its model")
        own = [] if self.reference is None else [TokenLosses(logits=self.reference, name="reference")]
        return [*self._losses(), *own]


class Greats(Scored):
    """The rows that, taken together, lower the loss on validation rows most (GREATS, first order)."""

    kind: Literal["greats"] = "greats"

    def prepares(self) -> list[Section]:
        """`gradient_gain` and `gradient_sketch`."""
        if self.logits is None:
            return []
        if not isinstance(self.logits, CausalLm):
            raise ValueError(f"`logits` is {self.logits.kind}, which has no gradients; `greats` needs a causal_lm")
        if self.validation is None:
            raise ValueError("`greats` lowers the loss on validation rows; give `validation`, a Parquet file of them")
        return [Gradients(logits=self.logits, validation=self.validation)]
