"""Thresholds of single concepts: what a zero-shot confidence must reach, from the configuration or a text file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from configs.errors import ConfigError
from configs.methods.annotate import ZeroShot
from tasks.annotate.entries import decode_vocabulary, given_state
from tasks.annotate.numbers import read_numbers, with_matches
from tasks.annotate.vocabularies import BUILT_IN, read_text

TOLD = 3
"""Unknown concepts that an error names."""


def resolved(section: Any) -> Any:
    """The annotate section with the content of its file of thresholds in the file's place.

    So the content is part of every fingerprint, not the file's place, and all tasks of a run see the same.

    Raises:
        ConfigError: The file is missing or malformed, or names what is not in the vocabulary.
    """
    if not isinstance(section, ZeroShot) or not section.thresholds:
        return section
    found = as_mapping(section.thresholds)
    # Built-in vocabularies need a heavy library, and merging a second: those are checked before the work, by `check`.
    if section.vocabulary not in BUILT_IN and section.cleaning != "merge":
        check_known(found, section)
    return section.model_copy(update={"thresholds": found})


def as_mapping(thresholds: Mapping[str, float] | str | None) -> dict[str, float]:
    """Concept -> threshold, of a section's mapping or of the file that it names."""
    if isinstance(thresholds, str):
        return read_numbers(thresholds, "annotate.thresholds", -1, 1)
    return dict(thresholds or {})


def check_known(thresholds: Mapping[str, float], section: ZeroShot) -> None:
    """Raise ConfigError if the section's vocabulary, cleaned, lacks a concept; may import what ships the vocabulary."""
    names = decode_vocabulary(given_state(read_text(section.vocabulary), section.cleaning)["vocabulary"])
    per_concept(thresholds, names, None)


def per_concept(thresholds: Mapping[str, float], names: Sequence[str], other: float | None) -> np.ndarray:
    """The threshold of each of `names`: float32 `(V,)`, `other` or -inf where none is given.

    Raises:
        ConfigError: A concept is none of `names`; tells of up to three, each with the names that are most like it.
    """
    unknown = sorted(thresholds.keys() - set(names))
    if unknown:
        told = "; ".join(with_matches(concept, names) for concept in unknown[:TOLD])
        more = f"; and {len(unknown) - TOLD} more" if len(unknown) > TOLD else ""
        raise ConfigError(f"`annotate.thresholds` names what is not in the vocabulary: {told}{more}")
    default = -np.inf if other is None else other
    return np.array([thresholds.get(name, default) for name in names], np.float32)
