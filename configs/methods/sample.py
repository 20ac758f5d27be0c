"""Samplers: how draws become batches. One model a method; a stage with several has a union on `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.section import Section


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
