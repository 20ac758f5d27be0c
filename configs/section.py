"""The base of every configuration model."""

from __future__ import annotations

from typing import Any, ClassVar, Self, get_args

from pydantic import BaseModel, ConfigDict, field_validator

from configs import credentials
from configs.reasons import Reason


class Section(BaseModel):
    """A frozen part of the tree; an unknown key is an error, not a silent default."""

    # What was given stays out of pydantic's own messages: it may be a secret in the wrong place.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    operational: ClassVar[frozenset[str]] = frozenset()
    """Fields that change how fast or where a stage runs and never its output: fingerprints leave them out."""

    reasons: ClassVar[dict[str, Reason]] = {}
    """Why a row may be left out by this method, in words of its own."""

    def output_fields(self) -> dict[str, Any]:
        """The fields that change output, JSON-ready: what a fingerprint takes in."""
        return self.model_dump(mode="json", exclude=set(self.operational))

    def shortened(self) -> tuple[Self, float]:
        """This section with its training cut to a few steps, and how many times longer the whole one takes.

        For what takes its time whatever the number of rows: an estimate runs the short one. All others: as they are.
        """
        return self, 1.0

    @field_validator("*", mode="after")
    @classmethod
    def _no_credentials(cls, value: Any) -> Any:
        """A configuration is kept with the mix, in the report and by Prefect: no URL in it may carry a secret."""
        credentials.refuse(value)
        return value


def models(annotation: Any) -> list[type[Section]]:
    """The sections that a field's type names, each once: members of unions and lists too."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return list(dict.fromkeys(model for argument in get_args(annotation) for model in models(argument)))


def exactly_one(**values: Any) -> None:
    """Raise ValueError unless one setting is given, the others null; `target` stands for any `target_…`."""
    given = [name for name, value in values.items() if value is not None]
    if len(given) != 1:
        names = [f"`{name}`" if name != "target" else "a `target_…`" for name in given or values]
        told = f"{' and '.join(names)} are given" if given else f"none of {', '.join(names)} is given"
        raise ValueError(f"{told}; give exactly one of them")


def with_one_place(template: str) -> str:
    """The template of a sentence; ValueError unless it has one place for a name."""
    if template.count("{}") != 1:
        raise ValueError(f"`template` is {template!r}; it must be a sentence with one {{}}, where the name stands")
    return template
