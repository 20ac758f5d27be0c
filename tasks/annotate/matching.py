"""MetaCLIP's spacing and substring rule (arXiv 2309.16671, released code): which entries of a vocabulary a text has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa

from tasks.annotate.slabs import Slab, slabs

SPACING = str.maketrans({mark: f" {mark} " for mark in ",.;:?!`"} | dict.fromkeys("\t\n\r", " "))


def space(text: str) -> str:
    """The text with a blank at both ends, around `, . ; : ? !` and backtick, and for tab, newline, carriage return."""
    return f" {text.translate(SPACING)} "


def match(texts: Iterable[str | None], vocabulary: Sequence[str]) -> list[list[int]]:
    """For each text the sorted distinct indices of the vocabulary entries in it; none for None.

    An entry is in a text if, with a blank at both ends, it is a substring of the spaced text: "hotdog" has no "dog",
    "dog," has one, "Dog" has none. There is no stemming, and an entry that itself has one of the spaced marks next to
    a letter matches nothing.
    """
    matcher, found = Matcher(vocabulary), []
    for slab in slabs(pa.array(texts, pa.large_string()), lowercase=False):
        counts, entries = matcher(slab)
        found += [row.tolist() for row in np.split(entries, np.cumsum(counts)[:-1])]
    return found


class Matcher:
    """`match` for one slab after another, the automaton built once; what it finds may be entries or what they mean."""

    def __init__(self, vocabulary: Sequence[str], meanings: np.ndarray | None = None) -> None:
        """`meanings`: int64 parallel to `vocabulary`, what is found with an entry; None: its index."""
        from ahocorasick_rs import BytesAhoCorasick

        if "" in vocabulary:
            raise ValueError(f"`vocabulary` has an empty entry at {vocabulary.index('')}; it would match anything")
        # No spaced text has a newline, but a slab has.
        findable = [index for index, entry in enumerate(vocabulary) if "\n" not in entry]
        self._automaton = BytesAhoCorasick([f" {vocabulary[index]} ".encode() for index in findable])
        meanings = np.arange(len(vocabulary)) if meanings is None else meanings
        self._meanings = meanings[np.array(findable, np.int64)]
        self._size = int(meanings.max(initial=0)) + 1

    def __call__(self, slab: Slab) -> tuple[np.ndarray, np.ndarray]:
        """How many each row of the slab has, int64 `(n,)`; what they are, int64, sorted and distinct in each row."""
        # Overlapping, for neighbours share the blank between them.
        found = self._automaton.find_matches_as_indexes(slab.spaced, overlapping=True)
        entries, starts, _ = np.fromiter(chain.from_iterable(found), np.int64, 3 * len(found)).reshape(-1, 3).T
        ends = np.flatnonzero(np.frombuffer(slab.spaced, np.uint8) == ord("\n"))
        keys = np.searchsorted(ends, starts) * self._size + self._meanings[entries]
        keys.sort()  # numpy's unique hashes, which takes five times as long
        rows, meanings = np.divmod(keys[np.diff(keys, prepend=-1) != 0], self._size)
        return np.bincount(rows, minlength=len(slab.missing)), meanings
