"""What selections share: a target size in place of a cut, and the rule that names the keeper of a group."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from configs.methods.score import Tokens
from configs.section import Section

Unit = Literal["rows", "fraction", "bytes", "tokens"]

KeepBy = str | list[str] | None
"""Which row of a group stays: null or `first` (lowest file and row), `longest_text`, `largest_image` (pixels),
`most_bytes` (of the image), or the name of a score, the highest first; of a list, ties go to the next."""


KEEP_BY = (
    "Which of a group stays: `first`, `longest_text`, `largest_image` (pixels), `most_bytes`, or the highest value of "
    "a score; of a list, ties go to the next. Last ties and null: lowest (file, row)."
)
"""The rule in the words of a setting."""


class Target(NamedTuple):
    """A size that a selection is to meet."""

    unit: Unit
    amount: float

    def wanted(self, rows: int) -> int:
        """The size in rows, bytes or tokens; a fraction is of so many rows, rounded up."""
        # A product such as 0.1 * 30 = 3.0000000000000004 must not ask for a fourth row.
        return math.ceil(round(self.amount * rows, 9)) if self.unit == "fraction" else int(self.amount)


class Targeted(Section):
    """A selection that can work towards a size: rows and fraction are met exactly, bytes and tokens never exceeded."""

    target_rows: int | None = Field(None, ge=1, description="Keep exactly this many rows, or all if there are fewer.")
    target_fraction: float | None = Field(None, gt=0, le=1, description="Keep exactly this share of the rows it sees.")
    target_bytes: int | None = Field(
        None, ge=1, description="Keep rows in their order until the next would exceed this sum of image and text bytes."
    )
    target_tokens: int | None = Field(
        None,
        ge=1,
        description="Keep rows in their order until the next would exceed this sum of tokens; in words, or as a "
        "score `tokens` that is listed counts them.",
    )

    @property
    def target(self) -> Target | None:
        """The size to meet, None if there is none."""
        amounts: dict[Unit, float | None] = {"rows": self.target_rows, "fraction": self.target_fraction}
        amounts |= {"bytes": self.target_bytes, "tokens": self.target_tokens}
        return next((Target(unit, amount) for unit, amount in amounts.items() if amount is not None), None)

    def prepares(self) -> list[Section]:
        """Scores that are made for this selection if the user does not list them."""
        return [Tokens()] if self.target_tokens else []

    @model_validator(mode="after")
    def _one_target(self) -> Targeted:
        given = [name for name in type(self).model_fields if name.startswith("target_") and getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(f'`{name}`' for name in given)} are given; give at most one target")
        return self
