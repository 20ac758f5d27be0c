"""A vocabulary from the captions themselves: the words and short phrases that many of them have."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from enum import IntEnum
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SCHEMA = pa.schema([("phrase", pa.string()), ("captions", pa.int64())])
"""Phrase -> captions that have it."""

SUMMARY_ROWS = 100_000
"""Phrases kept of one shard, the most frequent: a phrase that is rarer everywhere may be counted short."""

FOLD_ROWS = 4_000_000

BITS = 21
"""Of a token's number: three of them fit into an int64."""

MOST_TOKENS = 1_000_000
"""Distinct tokens counted together; a slab of text that has a million more is not to be expected."""

HELD = 2_000_000
"""Phrases held, 8 bytes each, before they are added up."""

STOP_WORDS = frozenset(
    """a about above after again all also am an and any are as at be because been before being below between both but by
    can could did do does doing down during each few for from further get had has have having he her here hers him his
    how i if in into is it its just let me more most my no nor not of off on once only or other our ours out over own
    same she should so some such than that the their theirs them then there these they this those through to too under
    until up upon us very via was we were what when where which while who whom whose why will with without would you
    your yours de la el le les un une und der die das et""".split()
)


class Kind(IntEnum):
    """What a token may be in a phrase."""

    BREAK = 0
    """Ends a phrase: punctuation, or a word stuck to it."""
    STOP = 1
    """Within a phrase, never at its ends."""
    NUMBER = 2
    """Anywhere, but not alone."""
    WORD = 3
    """Anywhere."""


def kind_of(token: str) -> Kind:
    """The kind of a token of a spaced caption; an empty one, from two blanks in a row, is a break."""
    # Marks count: words of many scripts end in a vowel sign.
    if not token or any(unicodedata.category(edge)[0] not in "LNM" for edge in (token[0], token[-1])):
        return Kind.BREAK
    if token.lower() in STOP_WORDS:
        return Kind.STOP
    return Kind.WORD if any(character.isalpha() for character in token) else Kind.NUMBER


def count_phrases(spaced: Iterable[str], max_words: int, rows: int = SUMMARY_ROWS) -> pa.Table:
    """How many captions have each phrase, the `rows` most frequent: a table of `SCHEMA`, ties in code-point order.

    Args:
        spaced: Spaced captions, or many in one string with ` \n ` between two.
        max_words: Words of the longest phrase, 1 to 3.
        rows: Rows of the table at most.
    """
    tables, counter = [], Counter(max_words)
    for slab in spaced:
        counter.add(slab)
        if counter.full:
            tables.append(counter.table(rows=None))
            counter = Counter(max_words)
    if not tables:
        return counter.table(rows)
    return most_frequent(_sum([*tables, counter.table(rows=None)]), rows)


class Counter:
    """Counts of phrases as arrays: a phrase is the numbers of its tokens in one int64, `BITS` each."""

    def __init__(self, max_words: int) -> None:
        self.max_words = max_words
        self._numbers = Numbers({"\n": 0})
        self._kinds = np.zeros(0, np.uint8)
        self._counts = [(np.empty(0, np.int64), np.empty(0, np.int64)) for _ in range(max_words)]
        self._held: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(max_words)]

    @property
    def full(self) -> bool:
        """Whether a next slab might have more tokens than there are numbers."""
        return len(self._numbers) > MOST_TOKENS

    def add(self, slab: str) -> None:
        """Count the phrases of the captions of one slab."""
        tokens = slab.split(" ")
        ids = np.fromiter(map(self._numbers.__getitem__, tokens), np.int64, len(tokens))
        new = len(self._numbers) - len(self._kinds)
        fresh = np.fromiter(map(kind_of, islice(reversed(self._numbers), new)), np.uint8, new)
        self._kinds = np.append(self._kinds, fresh[::-1])
        kinds, row = self._kinds[ids], np.cumsum(ids == 0)
        kinds[ids >= 1 << BITS] = Kind.BREAK  # only in a text of more than 10 MB
        keys, words = ids, kinds == Kind.WORD
        starts = ends = kinds >= Kind.NUMBER
        for length in range(self.max_words):
            if length:
                # One token more: what is at `i` is the phrase from `i` on.
                keys = (keys[:-1] << BITS) | ids[length:]
                starts = starts[:-1] & (kinds[length:] > Kind.BREAK)
                words = words[:-1] | (kinds[length:] == Kind.WORD)
            wanted = starts & ends[length:] & words
            self._hold(length, keys[wanted], row[: len(keys)][wanted])

    def table(self, rows: int | None) -> pa.Table:
        """The `rows` most frequent phrases, all if None: a table of `SCHEMA`."""
        for length in range(self.max_words):
            self._fold(length)
        counts = np.concatenate([counts for _, counts in self._counts])
        least = np.partition(counts, -rows)[-rows] if rows is not None and len(counts) > rows else 0
        tokens = pa.array(list(self._numbers), pa.string())
        tables = []
        for length, (keys, counts) in enumerate(self._counts):
            keys, counts = keys[counts >= least], counts[counts >= least]
            places = [keys >> BITS * (length - place) & (1 << BITS) - 1 for place in range(length + 1)]
            words = [tokens.take(pa.array(place)) for place in places]
            phrases = pc.binary_join_element_wise(*words, " ")
            tables.append(pa.table([phrases, counts], schema=SCHEMA))
        return most_frequent(pa.concat_tables(tables), rows)

    def _hold(self, length: int, keys: np.ndarray, row: np.ndarray) -> None:
        """Take in the phrases of a slab, rows ascending, each phrase once for a caption."""
        order = np.argsort(keys, kind="stable")
        keys, row = keys[order], row[order]
        keys = keys[np.append(True, (keys[1:] != keys[:-1]) | (row[1:] != row[:-1]))[: len(keys)]]
        self._held[length].append(_added(keys, np.ones(len(keys), np.int64)))
        if sum(len(held) for held, _ in self._held[length]) > max(HELD, len(self._counts[length][0])):
            self._fold(length)

    def _fold(self, length: int) -> None:
        """Add what is held to the counts."""
        keys, counts = zip(self._counts[length], *self._held[length], strict=True)
        every, counts = np.concatenate(keys), np.concatenate(counts)
        order = np.argsort(every, kind="stable")
        self._counts[length], self._held[length] = _added(every[order], counts[order]), []


def _added(keys: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted keys, each once, with the sum of its counts."""
    first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    return keys[first], np.add.reduceat(counts, first) if len(first) else counts


class Numbers(dict[str, int]):
    """Token -> its number; a token not seen before gets the next."""

    def __missing__(self, token: str) -> int:
        self[token] = number = len(self)
        return number


def frequent_phrases(summaries: Iterable[pa.Table], min_count: int, max_concepts: int) -> pa.Table:
    """Phrases of at least `min_count` captions, the `max_concepts` most frequent of them, the most frequent first.

    Those of the same count are in code-point order; a table of `SCHEMA`.
    """
    return most_frequent(_sum(summaries).filter(pc.field("captions") >= min_count), max_concepts)


def most_frequent(counts: pa.Table, rows: int | None) -> pa.Table:
    """The `rows` phrases of the most captions, all if None, ties in code-point order."""
    # Arrow orders strings by their UTF-8 bytes, which is the order of code points.
    order = pc.sort_indices(counts, [("captions", "descending"), ("phrase", "ascending")])
    return counts.take(order.slice(0, rows))


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
