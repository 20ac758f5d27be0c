"""All reasons for which a row can be left out, collected from where they are declared."""

from __future__ import annotations

from collections.abc import Iterator

from configs.curate import Curate
from configs.reasons import INGEST, LEDGER, SELECTING, Reason
from configs.section import Section, models


def all_reasons() -> dict[str, Reason]:
    """Every word that a ledger or quarantine can hold."""
    found = LEDGER | SELECTING | INGEST
    for model in sections(Curate):
        for word, reason in model.reasons.items():
            if found.setdefault(word, reason) != reason:
                raise RuntimeError(f"`{word}` means two things: {found[word]} and, of {model.__name__}, {reason}")
    return found


def sections(model: type[Section]) -> Iterator[type[Section]]:
    """The models of a configuration tree."""
    yield model
    for field in model.model_fields.values():
        for inner in models(field.annotation):
            yield from sections(inner)
