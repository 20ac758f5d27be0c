"""Concepts that occur in the caption: MetaCLIP's spacing and substring rule (arXiv 2309.16671, released code)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from configs.methods.annotate import Captions
from tasks import Failure, Result
from tasks.annotate import mining
from tasks.annotate.entries import decode_vocabulary, encode_vocabulary, parse_vocabulary
from tasks.annotate.sidecar import SCHEMA, sidecar
from tasks.embed.texts import read_texts

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
    matcher = Matcher(vocabulary)
    return [[] if text is None else matcher(text) for text in texts]


class Matcher:
    """`match` for one text after another, the automaton built once."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        from ahocorasick_rs import AhoCorasick

        if "" in vocabulary:
            raise ValueError(f"`vocabulary` has an empty entry at {vocabulary.index('')}; it would match anything")
        self._automaton = AhoCorasick([f" {entry} " for entry in vocabulary])

    def __call__(self, text: str) -> list[int]:
        """Sorted distinct indices of the entries in a text."""
        # Overlapping, for neighbours share the blank between them.
        return sorted({entry for entry, _, _ in self._automaton.find_matches_as_indexes(space(text), overlapping=True)})


class CaptionAnnotator:
    """Concepts of a vocabulary in the captions, case folded if so configured.

    The vocabulary comes as `state["vocabulary"]`: a user's, or one mined by `summarise` and `fit` and frozen.
    """

    libraries = ("ahocorasick_rs",)
    needs = ("text",)
    provides = tuple(SCHEMA.names)

    def __init__(self, config: Captions, state: dict[str, np.ndarray] | None = None) -> None:
        self.config = config
        self._vocabulary: list[str] | None = None
        if state is not None:
            self._vocabulary = list(dict.fromkeys(map(self._fold, decode_vocabulary(state["vocabulary"]))))
            self._matcher = Matcher(self._vocabulary)

    def run(self, rows: pa.Table) -> Result:
        """Annotate one shard; a caption that is not UTF-8 fails."""
        if self._vocabulary is None:
            raise ValueError("`state` is None; captions need a vocabulary to be matched against, given or mined")
        texts, broken = read_texts(rows["text"])
        found = [[] if text is None else self._matcher(self._fold(text)) for text in texts]
        counts = np.fromiter(map(len, found), np.int64, len(found))
        indices = np.fromiter((index for row in found for index in row), np.int64, counts.sum())
        missing = np.fromiter((text is None for text in texts), bool, len(texts))
        concepts = pa.array(self._vocabulary, pa.string()).take(pa.array(indices))
        failures = [Failure(row, "undecodable_text", detail) for row, detail in broken.items()]
        return Result(sidecar(concepts, counts, missing), failures)

    def summarise(self, rows: pa.Table) -> pa.Table:
        """How many of a shard's captions have each phrase."""
        texts, _ = read_texts(rows["text"])
        spaced = (space(self._fold(text)) for text in texts if text is not None)
        return mining.count_phrases(spaced, self.config.max_words, max(mining.SUMMARY_ROWS, self.config.max_concepts))

    def fit(self, summaries: Iterable[pa.Table]) -> dict[str, np.ndarray]:
        """The vocabulary of the most frequent phrases; empty if none is in `min_count` captions."""
        phrases = mining.frequent_phrases(summaries, self.config.min_count, self.config.max_concepts)
        return {"vocabulary": encode_vocabulary(phrases)}

    @staticmethod
    def from_text(text: str) -> dict[str, np.ndarray]:
        """The vocabulary of a user's file."""
        return {"vocabulary": encode_vocabulary(parse_vocabulary(text))}

    def _fold(self, text: str) -> str:
        return text.lower() if self.config.lowercase else text
