"""Cleaning of concept names, after the concept bank of DataConcept (CABS, arXiv 2511.20643).

A reconstruction from the description of the authors' cleaning script: lower case, underscores to blanks, blanks
collapsed; then, name after name, one that abbreviates an earlier name, or is spelled nearly like it, becomes that one.
Left out are the script's lemmas (they need a tagger, and are right for English nouns only), its merging by cosine of
sentence embeddings (a model to fetch, and "cat" becomes "kitten"), and its removal of unsafe names (it rests on lists
of exemplars that were not released; what is unsafe is for the user's own list to say).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

import numpy as np

ALIKE, SHORTEST = 0.92, 5
"""Names of at least `SHORTEST` characters with a difflib ratio above `ALIKE` are one concept."""

CHUNK, BLOCK = 2048, 64
"""Names compared with the concepts of the names before them, and of these so many at once: what bounds memory."""


class Cleaned(NamedTuple):
    """What `clean` makes of names."""

    concepts: list[str]
    """Distinct, in the order of the names that they come from."""
    concept_of: np.ndarray
    """int64 `(n,)`: the index of each name's concept, -1 for a name with nothing in it."""
    why: list[str]
    """Why a name is not itself a concept: one of `REASONS`."""


REASONS = ("", "repeated", "spelling", "abbreviation", "alike", "empty")
"""`repeated`: the very name was there before; `spelling`: case, underscores, blanks; `alike`: nearly the same letters;
`empty`: only blanks and underscores."""


def normalise(name: str) -> str:
    """The name in lower case, underscores as blanks, one blank between words, none at the ends."""
    return " ".join(name.lower().replace("_", " ").split())


def clean(names: Sequence[str], merge: bool = True, spell: Callable[[str], str] = normalise) -> Cleaned:
    """The concepts of names, and which name became which; in this order, for a name only joins an earlier one.

    A name joins the earliest concept that is the same as `spell` writes them; if `merge`, else the earliest

    - whose initials it is, or that is its initials: "ups" and "uninterruptible power supply", or
    - of which both have more than 4 characters and difflib's `SequenceMatcher(None, name, concept).ratio() > 0.92`.
    """
    spelled = [spell(name) for name in names]
    distinct = [name for name in dict.fromkeys(spelled) if name]
    joined, reasons = merged(distinct) if merge else (np.arange(len(distinct)), [""] * len(distinct))
    kept, concept = np.unique(joined, return_inverse=True)
    place = dict(zip(distinct, concept.tolist(), strict=True))
    reason = dict(zip(distinct, reasons, strict=True))
    seen: set[str] = set()
    why = []
    for name, spelling in zip(names, spelled, strict=True):
        own = reason.get(spelling, "empty") or ("" if name == spelling else "spelling")
        why.append("repeated" if name in seen and own != "empty" else own)
        seen.add(name)
    concept_of = np.fromiter((place.get(spelling, -1) for spelling in spelled), np.int64, len(spelled))
    return Cleaned([distinct[index] for index in kept.tolist()], concept_of, why)


def merged(names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """For each of distinct normalised names the index of the name that it joins, int64 `(n,)`, itself if none; why."""
    joined, why = np.arange(len(names)), [""] * len(names)
    similar: dict[int, list[int]] = {}
    single: dict[str, int] = {}
    initials: dict[str, int] = {}
    for index, name in enumerate(names):
        if index % CHUNK == 0:
            similar = _similar(names, np.flatnonzero(joined[:index] == np.arange(index)), index)
        words = name.split()
        first = "".join(word[0] for word in words)
        # The earliest concept that either rule finds.
        short = initials.get(name) if len(words) == 1 else single.get(first)
        for other in similar.get(index, ()):
            if short is not None and short < other:
                break
            if joined[other] == other and SequenceMatcher(None, name, names[other]).ratio() > ALIKE:
                joined[index], why[index] = other, "alike"
                break
        if joined[index] == index and short is not None:
            joined[index], why[index] = short, "abbreviation"
        if joined[index] == index:
            if len(words) == 1:
                single[name] = index
            else:
                initials.setdefault(first, index)
    return joined, why


def _similar(names: Sequence[str], concepts: np.ndarray, first: int) -> dict[int, list[int]]:
    """Of the names of a chunk from `first` on: name -> those before it, ascending, that may be alike.

    They are of the `concepts` of earlier chunks, int64, and of the chunk itself; none that is alike is left out.
    """
    chunk = np.arange(first, min(first + CHUNK, len(names)))
    pairs = _candidates(names, chunk, np.append(concepts, chunk))
    later, earlier = np.concatenate([np.empty((2, 0), np.int64), *pairs], axis=1)
    order = np.lexsort((earlier, later))
    found: dict[int, list[int]] = {}
    for name, other in zip(later[order].tolist(), earlier[order].tolist(), strict=True):
        found.setdefault(name, []).append(other)
    return found


def _candidates(names: Sequence[str], some: np.ndarray, others: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs of `some` names and `others` before them whose longest common subsequence is long enough, int64 `(2, m)`.

    Difflib's matches are a common subsequence, so that its ratio is never above the similarity computed here, which
    takes far less time. As it is never above twice the shorter's share, too, only lengths that are near are compared.
    """
    from rapidfuzz.distance import Indel
    from rapidfuzz.process import cdist

    cutoff = ALIKE - 1e-6  # floats: what is above for difflib shall not be below here
    some, lengths = _by_length(names, some)
    others, near = _by_length(names, others)
    spread = 2 / cutoff - 1
    for start in range(0, len(some), BLOCK):
        of = some[start : start + BLOCK]
        low, high = lengths[start] / spread, lengths[start + len(of) - 1] * spread
        to = others[np.searchsorted(near, low) : np.searchsorted(near, high, side="right")]
        scores = cdist(
            [names[index] for index in of.tolist()],
            [names[index] for index in to.tolist()],
            scorer=Indel.normalized_similarity,
            score_cutoff=cutoff,
            dtype=np.float32,
            workers=1,
        )
        row, column = np.nonzero(scores)
        later, earlier = of[row], to[column]
        yield np.stack([later, earlier])[:, earlier < later]


def _by_length(names: Sequence[str], indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The indices of names that are long enough, by length, and these lengths."""
    lengths = np.fromiter((len(names[index]) for index in indices.tolist()), np.int64, len(indices))
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] >= SHORTEST]
    return indices[order], lengths[order]
