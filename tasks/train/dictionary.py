"""Words and their meanings: WordNet's nouns as timm lists them beside ImageNet-21k (Miller, CACM 38(11), 1995).

A few thousand captions leave most words unseen. A text tower that has first learnt which definition belongs to which
word puts "otter" near "beaver" though it has seen no picture of either.
"""

from __future__ import annotations

from typing import NamedTuple

SUBSET = "imagenet21k_goog"


class Entry(NamedTuple):
    """One meaning."""

    words: list[str]
    """Synonyms, the commonest first."""
    definition: str


def entries() -> list[Entry]:
    """About 21,800 meanings of nouns."""
    from timm.data.imagenet_info import ImageNetInfo

    lines = (line.partition(": ") for line in ImageNetInfo(SUBSET).label_descriptions(detailed=True))
    return [Entry(words.split(", "), definition) for words, _, definition in lines]
