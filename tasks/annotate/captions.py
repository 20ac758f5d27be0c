"""Concepts that occur in the caption: MetaCLIP's spacing and substring rule (arXiv 2309.16671, released code)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from configs.methods.annotate import Captions
from tasks import Failure, Result
from tasks.annotate import mining
from tasks.annotate.cleaning import normalise
from tasks.annotate.entries import State, decode_vocabulary, given_state, mined_state
from tasks.annotate.matching import Matcher, match, space
from tasks.annotate.sidecar import SCHEMA, sidecar
from tasks.annotate.slabs import slabs

__all__ = ["CaptionAnnotator", "match", "space"]


class CaptionAnnotator:
    """Concepts of a vocabulary in the captions, case folded if so configured, each once, in the vocabulary's order.

    The vocabulary comes as state, see `entries.State`: a user's, or one mined by `summarise` and `fit` and frozen. All
    names that became a concept by cleaning are looked for, as they are written and as they are when normalised.
    """

    libraries = ("ahocorasick_rs",)
    needs = ("text",)
    provides = tuple(SCHEMA.names)

    def __init__(self, config: Captions, state: State | None = None) -> None:
        self.config = config
        self._matcher: Matcher | None = None
        if state is not None:
            spellings = self._spellings(state)
            concepts = list(dict.fromkeys(spellings.values()))
            place = {concept: index for index, concept in enumerate(concepts)}
            meanings = np.fromiter((place[concept] for concept in spellings.values()), np.int64, len(spellings))
            self._concepts, self._matcher = pa.array(concepts, pa.string()), Matcher(list(spellings), meanings)

    def run(self, rows: pa.Table) -> Result:
        """Annotate one shard; a caption that is not UTF-8 fails."""
        if self._matcher is None:
            raise ValueError("`state` is None; captions need a vocabulary to be matched against, given or mined")
        tables, failures = [SCHEMA.empty_table()], []
        for slab in slabs(rows["text"], self.config.lowercase):
            counts, found = self._matcher(slab)
            tables.append(sidecar(self._concepts.take(pa.array(found)), counts, slab.missing))
            failures += [Failure(row, "undecodable_text", detail) for row, detail in slab.broken.items()]
        return Result(pa.concat_tables(tables), failures)

    def summarise(self, rows: pa.Table) -> pa.Table:
        """How many of a shard's captions have each phrase."""
        spaced = (slab.spaced.decode() for slab in slabs(rows["text"], self.config.lowercase))
        return mining.count_phrases(spaced, self.config.max_words, max(mining.SUMMARY_ROWS, self.config.max_concepts))

    def fit(self, summaries: Iterable[pa.Table]) -> State:
        """The vocabulary of the most frequent phrases, a rare name joining a frequent one if names are merged.

        It is empty if no phrase is in `min_count` captions.
        """
        found = mining.frequent_phrases(summaries, self.config.min_count, self.config.max_concepts)
        phrases, captions = found["phrase"].to_pylist(), found["captions"].to_pylist()
        return mined_state(phrases, captions, self.config.cleaning, self.config.lowercase)

    def from_text(self, text: str) -> State:
        """The vocabulary of a user's file."""
        return given_state(text, self.config.cleaning, self.config.lowercase)

    def _spellings(self, state: State) -> dict[str, str]:
        """What is looked for, and the concept that it stands for; the concepts themselves first."""
        concepts = [self._fold(concept) for concept in decode_vocabulary(state["vocabulary"])]
        spellings = dict(zip(concepts, concepts, strict=True))
        if "names" in state:
            for name, index in zip(decode_vocabulary(state["names"]), state["concept_of"].tolist(), strict=True):
                if index >= 0:
                    spellings.setdefault(self._fold(name), concepts[index])
                    if self.config.cleaning != "none":
                        spellings.setdefault(normalise(name), concepts[index])
        return spellings

    def _fold(self, text: str) -> str:
        return text.lower() if self.config.lowercase else text
