"""A vocabulary as text, an entry a line, as arrays of a state that is kept without pickle, and as a table to read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from configs.errors import ConfigError
from tasks.annotate.cleaning import REASONS, Cleaned, clean

State = dict[str, np.ndarray]
"""`vocabulary`: the concepts. Beside it, where known, what they were made of: `names`, and parallel to these
`concept_of` (int64, -1 for none), `why` (uint8, into `REASONS`) and `captions` (int64 counts, empty if unknown)."""


def lines_of(text: str) -> list[str]:
    """The lines of a vocabulary file: stripped, without blank ones, repeats among them."""
    return [line.strip() for line in text.removeprefix("\ufeff").splitlines() if line.strip()]


def encode_vocabulary(vocabulary: Sequence[str]) -> np.ndarray:
    """A vocabulary as one array, for a state that is kept without pickle: uint8, UTF-8, an entry a line.

    A newline or backslash of an entry, as columns may have them, is written behind a backslash.
    """
    return np.frombuffer("\n".join(map(_escaped, vocabulary)).encode(), np.uint8).copy()


def decode_vocabulary(encoded: np.ndarray) -> list[str]:
    """The vocabulary that `encode_vocabulary` encoded."""
    text = encoded.tobytes().decode()
    entries = text.split("\n") if text else []
    return [_unescaped(entry) for entry in entries] if "\\" in text else entries


def given_state(text: str, cleaning: str, lowercase: bool = False) -> State:
    """The state of a vocabulary file's text.

    Raises:
        ConfigError: No name is left.
    """
    names = lines_of(text)
    cleaned = cleaned_names(names, cleaning, lowercase)
    if not cleaned.concepts:
        seen = f", only {names[0]!r} and its like" if names else ""
        raise ConfigError(f"`annotate.vocabulary` has no concept in it{seen}; write one a line")
    return state_of(names, cleaned)


def mined_state(names: Sequence[str], captions: Sequence[int], cleaning: str, lowercase: bool = False) -> State:
    """The state of names in order of their counts, the most frequent first; its concepts in code-point order."""
    concepts, concept_of, why = cleaned_names(names, cleaning, lowercase)
    order = np.array(sorted(range(len(concepts)), key=concepts.__getitem__), np.int64)
    rank = np.append(np.argsort(order), -1)  # the last is that of -1
    cleaned = Cleaned([concepts[index] for index in order.tolist()], rank[concept_of], why)
    return state_of(names, cleaned, captions)


def cleaned_names(names: Sequence[str], cleaning: str, lowercase: bool) -> Cleaned:
    """Names cleaned as `cleaning` says; `none` still folds case if `lowercase`."""
    if cleaning == "none":
        return clean(names, merge=False, spell=str.lower if lowercase else str)
    return clean(names, merge=cleaning == "merge")


def state_of(names: Sequence[str], cleaned: Cleaned, captions: Sequence[int] = ()) -> State:
    """The state of cleaned names, `captions` being how many have each."""
    return {
        "vocabulary": encode_vocabulary(cleaned.concepts),
        "names": encode_vocabulary(names),
        "concept_of": cleaned.concept_of,
        "why": np.array([REASONS.index(reason) for reason in cleaned.why], np.uint8),
        "captions": np.array(captions, np.int64),
    }


def mapping_text(state: State) -> str:
    """Which name became which concept and why, tab-separated, a name a line; a concept that is no name has none."""
    concepts = decode_vocabulary(state["vocabulary"])
    names = decode_vocabulary(state["names"]) if "names" in state else concepts
    concept_of = state.get("concept_of", np.arange(len(names))).tolist()
    why = [REASONS[reason] for reason in state.get("why", np.zeros(len(names), np.uint8)).tolist()]
    captions = state.get("captions", np.empty(0)).tolist() or [""] * len(names)
    lines = ["name\tconcept\twhy\trows"]
    for name, concept, reason, count in zip(names, concept_of, why, captions, strict=True):
        told = concepts[concept] if concept >= 0 else ""
        lines.append("\t".join([_field(name), _field(told), reason, str(count)]))
    return "\n".join(lines) + "\n"


def _field(name: str) -> str:
    return _escaped(name).replace("\t", "\\t").replace("\r", "\\r")


def _escaped(entry: str) -> str:
    return entry.replace("\\", "\\\\").replace("\n", "\\n")


def _unescaped(entry: str) -> str:
    # Halves of a doubled backslash are never taken for the start of `\n`.
    return "\\".join(piece.replace("\\n", "\n") for piece in entry.split("\\\\"))
