"""Scores: one or more named columns each. One model a method; a stage with several has a union on `kind`."""

from __future__ import annotations

from typing import Literal

from configs.section import Section


class Alignment(Section):
    """Cosine of image and text embedding."""

    kind: Literal["alignment"] = "alignment"


Score = Alignment
