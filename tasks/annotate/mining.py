"""A vocabulary from the captions themselves: the words and short phrases that many of them have."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import Enum
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

SCHEMA = pa.schema([("phrase", pa.string()), ("captions", pa.int64())])
"""Phrase -> captions that have it."""

SUMMARY_ROWS = 100_000
"""Phrases kept of one shard, the most frequent: a phrase that is rarer everywhere may be counted short."""

FOLD_ROWS = 4_000_000

STOP_WORDS = frozenset(
    """a about above after again all also am an and any are as at be because been before being below between both but by
    can could did do does doing down during each few for from further get had has have having he her here hers him his
    how i if in into is it its just let me more most my no nor not of off on once only or other our ours out over own
    same she should so some such than that the their theirs them then there these they this those through to too under
    until up upon us very via was we were what when where which while who whom whose why will with without would you
    your yours de la el le les un une und der die das et""".split()
)


class Kind(Enum):
    """What a token may be in a phrase."""

    BREAK = "ends a phrase: punctuation, or a word stuck to it"
    STOP = "within a phrase, never at its ends"
    NUMBER = "anywhere, but not alone"
    WORD = "anywhere"


@lru_cache(maxsize=200_000)
def kind_of(token: str) -> Kind:
    """The kind of a token of a spaced caption; an empty one, from two blanks in a row, is a break."""
    # Marks count: words of many scripts end in a vowel sign.
    if not token or any(unicodedata.category(edge)[0] not in "LNM" for edge in (token[0], token[-1])):
        return Kind.BREAK
    if token.lower() in STOP_WORDS:
        return Kind.STOP
    return Kind.WORD if any(character.isalpha() for character in token) else Kind.NUMBER


def phrases(spaced: str, max_words: int) -> set[str]:
    """The phrases of a spaced caption: up to `max_words` tokens in a row, each phrase findable by the spacing rule."""
    tokens = spaced.split(" ")
    kinds = [kind_of(token) for token in tokens]
    found = set()
    for start, first in enumerate(kinds):
        if first is Kind.BREAK or first is Kind.STOP:
            continue
        words = first is Kind.WORD
        if words:
            found.add(tokens[start])
        for end in range(start + 1, min(start + max_words, len(tokens))):
            last = kinds[end]
            if last is Kind.BREAK:
                break
            words = words or last is Kind.WORD
            if words and last is not Kind.STOP:
                found.add(" ".join(tokens[start : end + 1]))
    return found


def count_phrases(spaced: Iterable[str], max_words: int, rows: int = SUMMARY_ROWS) -> pa.Table:
    """How many captions have each phrase, the `rows` most frequent: a table of `SCHEMA`, ties in code-point order."""
    counts: Counter[str] = Counter()
    for caption in spaced:
        counts.update(phrases(caption, max_words))
    return _most_frequent(pa.table([list(counts.keys()), list(counts.values())], schema=SCHEMA), rows)


def frequent_phrases(summaries: Iterable[pa.Table], min_count: int, max_concepts: int) -> list[str]:
    """Phrases of at least `min_count` captions, the `max_concepts` most frequent, in code-point order."""
    total = _sum(summaries)
    total = _most_frequent(total.filter(pc.field("captions") >= min_count), max_concepts)
    return sorted(total["phrase"].to_pylist())


def _most_frequent(counts: pa.Table, rows: int) -> pa.Table:
    # Arrow orders strings by their UTF-8 bytes, which is the order of code points.
    return counts.sort_by([("captions", "descending"), ("phrase", "ascending")]).slice(0, rows)


def _sum(summaries: Iterable[pa.Table]) -> pa.Table:
    total = SCHEMA.empty_table()
    for tables in _groups(summaries):
        summed = pa.concat_tables([total, *tables]).group_by("phrase").aggregate([("captions", "sum")])
        total = summed.select(["phrase", "captions_sum"]).rename_columns(SCHEMA.names)
    return total


def _groups(tables: Iterable[pa.Table]) -> Iterator[list[pa.Table]]:
    """The tables in groups of about `FOLD_ROWS` rows, so that few are in memory at once."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= FOLD_ROWS:
            yield held
            held = []
    yield held
