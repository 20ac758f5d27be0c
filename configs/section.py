"""The base of every configuration model."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen part of the tree; an unknown key is an error, not a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    operational: ClassVar[frozenset[str]] = frozenset()
    """Fields that change how fast or where a stage runs and never its output: fingerprints leave them out."""

    def output_fields(self) -> dict[str, Any]:
        """The fields that change output, JSON-ready: what a fingerprint takes in."""
        return self.model_dump(mode="json", exclude=set(self.operational))
