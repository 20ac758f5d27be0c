"""S2L: the select that spends a budget over clusters of loss trajectories."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from configs.methods.proxies import Trajectory
from configs.methods.targets import Targeted
from configs.reasons import Reason
from configs.section import Section


class Trajectories(Targeted):
    """S2L: clusters of loss trajectories share a budget, small clusters whole (Yang et al., arXiv 2403.07384)."""

    reasons: ClassVar[dict[str, Reason]] = {
        "trajectory_cluster": Reason(
            "Its cluster of loss trajectories had more rows than its share of the budget; which stayed was drawn.",
            "Raise the target, or `clusters`.",
        ),
        "no_trajectory": Reason(
            "The row has no trajectory, or one with NaN or infinity.", "See why the proxy could not score it."
        ),
    }

    kind: Literal["trajectories"] = "trajectories"
    column: str = Field(
        "trajectory",
        description="Column of trajectories: `trajectory` is what a proxy makes; else lists of numbers, of one length.",
    )
    clusters: int = Field(100, ge=1, le=65536, description="K, of each source by itself if `by_source`.")
    by_source: bool = Field(
        False,
        description="Share the budget over the sources (`input.source`) first, and cluster each by itself, as the "
        "released code does; false: as the paper has it.",
    )
    tiny: int = Field(2, ge=0, le=1000, description="Clusters of so many rows or fewer come last.")
    iterations: int = Field(20, ge=1, le=1000, description="Of k-means.")
    proxy: Trajectory | None = Field(None, description="Makes the trajectories; null: a column of the input has them.")

    def prepares(self) -> list[Section]:
        """The trajectories, if a proxy makes them."""
        return [*super().prepares(), *([self.proxy] if self.proxy else [])]

    @model_validator(mode="after")
    def _has_a_budget(self) -> Trajectories:
        if self.target is None or self.target.unit not in ("rows", "fraction"):
            raise ValueError("`trajectories` shares out a budget; give `target_rows` or `target_fraction`")
        return self
