"""Superbatches and batches: the sizes that every sampler has."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from configs.section import Section


def sub_batch_size(superbatch: int, filter_ratio: float, *, power_of_two: bool = False) -> int:
    """b = (1 - f) B, the rows kept of a superbatch of B on one worker, to the nearest whole number.

    Args:
        superbatch: B, 1 or more.
        filter_ratio: f, in [0, 1).
        power_of_two: As the released CABS code: 2 ** round(log2((1 - f) B)), at most B, so that with B = 1,000 and
            f = 0.8 it is 256 and the filter ratio is not the one asked for.
    """
    if superbatch < 1:
        raise ValueError(f"`superbatch` is {superbatch}; it must be at least 1")
    if not 0 <= filter_ratio < 1:
        raise ValueError(f"`filter_ratio` is {filter_ratio}; it must be in [0, 1)")
    wanted = (1 - filter_ratio) * superbatch
    return min(superbatch, 2 ** max(0, round(math.log2(wanted)))) if power_of_two else max(1, round(wanted))


class Batches(Section):
    """What every sampler has: superbatches of B draws, of which b = (1 - filter ratio) * B are kept."""

    batch_size: int = Field(
        256,
        ge=1,
        description="Rows of one emitted batch (the sub-batch), all workers together; computed if `superbatch_size` "
        "is given.",
    )
    filter_ratio: float = Field(0.0, ge=0, lt=1, description="Share of each superbatch that is not emitted.")
    world_size: int = Field(1, ge=1, description="Training workers (ranks) among which each batch is divided.")
    superbatch_size: int | None = Field(
        None, ge=1, description="Draws of a superbatch, instead of `batch_size`. Null: batch_size / (1 - filter_ratio)."
    )
    rounding: Literal["nearest", "power_of_two"] = Field(
        "nearest",
        description="How (1 - filter_ratio) * `superbatch_size` becomes whole on each worker; `power_of_two`: as in "
        "the released CABS code.",
    )

    @model_validator(mode="after")
    def _sizes_agree(self) -> Batches:
        if self.superbatch_size is not None:
            self._take_batch_size(self.superbatch_size)
        elif self.rounding != "nearest":
            raise ValueError(f"`rounding` is {self.rounding}, which only `superbatch_size` has a use for; give that")
        return self

    def _take_batch_size(self, superbatch: int) -> None:
        """Compute `batch_size`; one that was given as well must be the same."""
        if superbatch % self.world_size:
            raise ValueError(
                f"`superbatch_size` is {superbatch}; it must be a multiple of `world_size`, which is {self.world_size}"
            )
        share, power_of_two = superbatch // self.world_size, self.rounding == "power_of_two"
        size = sub_batch_size(share, self.filter_ratio, power_of_two=power_of_two) * self.world_size
        if "batch_size" in self.model_fields_set and self.batch_size != size:
            raise ValueError(
                f"`batch_size` is {self.batch_size}, but `superbatch_size` {superbatch} and `filter_ratio` "
                f"{self.filter_ratio} make it {size}; leave one of them out"
            )
        object.__setattr__(self, "batch_size", size)  # frozen for everybody else

    @model_validator(mode="after")
    def _divisible(self) -> Batches:
        if self.batch_size % self.world_size:
            raise ValueError(
                f"`batch_size` is {self.batch_size}; it must be a multiple of `world_size`, which is {self.world_size}"
            )
        if self.filter_ratio > 0 and self.superbatch == self.batch_size:
            raise ValueError(
                f"`filter_ratio` is {self.filter_ratio}, but with a batch of {self.batch_size} and `world_size` "
                f"{self.world_size} nothing would be filtered; raise one of the three"
            )
        return self

    def prepares(self) -> list[Section]:
        """Scores that are made for this sampler if the user does not list them."""
        return []

    @property
    def superbatch(self) -> int:
        """B: draws per superbatch, a multiple of the world size."""
        if self.superbatch_size is not None:
            return self.superbatch_size
        return round(self.batch_size / (1 - self.filter_ratio) / self.world_size) * self.world_size
