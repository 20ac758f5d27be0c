"""MetaCLIP balancing (Xu et al., "Demystifying CLIP Data", arXiv 2309.16671): head entries are thinned towards t texts.

An entry (a metadata string, a concept) that `count` texts match gets the probability p = t / max(count, t): 1 in the
tail, t / count in the head. A text stays if any of the independent draws of its entries succeeds, so
P(keep) = 1 - prod(1 - p_e) over its distinct entries, and a text without entries never stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import ArrayLike

from tasks.arguments import whole_numbers
from tasks.sample.concepts import row_frequencies

Matches: TypeAlias = (
    "Sequence[Sequence[int] | np.ndarray | None] | tuple[np.ndarray, np.ndarray] | pa.Array | pa.ChunkedArray"
)
"""Entries of each text, repeats allowed: a sequence of int sequences (None: no entry), an Arrow list<int> array, or a
tuple of two numpy arrays `(offsets, ids)`, where text i holds `ids[offsets[i]:offsets[i + 1]]`."""


def entry_counts(matches: Matches, num_entries: int) -> np.ndarray:
    """Returns how many texts match each entry, repeats within a text counted once: int64 `(num_entries,)`.

    Raises:
        ValueError: An id is not in [0, num_entries).
    """
    return row_frequencies(*_rows(matches, num_entries), num_entries)


def entry_probabilities(counts: ArrayLike, threshold: float) -> np.ndarray:
    """Returns p = t / max(count, t) of each entry: float64 `(E,)`, in [0, 1].

    Args:
        counts: `(E,)`, texts that match the entry; an entry that none matches is tail.
        threshold: t, in texts. 0 gives 0 everywhere, inf gives 1.

    Raises:
        ValueError: A count is negative or no whole number, or t is negative or NaN.
    """
    number, t = whole_numbers("counts", counts).astype(np.float64), _threshold(threshold)
    if t == 0 or t == np.inf:
        return np.full(len(number), float(t > 0))
    return t / np.maximum(number, t)


def keep_probabilities(matches: Matches, probabilities: ArrayLike) -> np.ndarray:
    """Returns P(keep) = 1 - prod(1 - p_e) over each text's distinct entries: float64 `(N,)`; 0 without entries.

    Args:
        matches: Ids below E of each text's entries.
        probabilities: `(E,)` in [0, 1], from `entry_probabilities`.

    Raises:
        ValueError: An id is not in [0, E), or a probability is not in [0, 1].
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 1:
        raise ValueError(f"`probabilities` has shape {p.shape}; it must be one row of numbers")
    bad = ~((p >= 0) & (p <= 1))
    if bad.any():
        raise ValueError(f"`probabilities` holds {p[bad][0]} at {np.flatnonzero(bad)[0]}; each must be in [0, 1]")
    return _kept(*_rows(matches, len(p)), 1.0 - p)


def critical_thresholds(matches: Matches, counts: ArrayLike, coins: ArrayLike) -> np.ndarray:
    """Returns the least t at which each text's P(keep) exceeds its coin: float64 `(N,)`; inf without entries.

    So the texts that a threshold t keeps are those whose critical threshold is at most t, and the first n by it are
    the n texts that balancing keeps at some t.

    Args:
        matches: Ids below E of each text's entries.
        counts: `(E,)`, texts that match each entry, 1 or more where a text does.
        coins: `(N,)` in [0, 1).
    """
    number = whole_numbers("counts", counts).astype(np.float64)
    return _critical(*_rows(matches, len(number)), number, np.asarray(coins, np.float64))


def t_to_p(counts: ArrayLike, threshold: float) -> float:
    """Returns the tail share of t: the sum of the counts strictly below t over the sum of all.

    Raises:
        ValueError: As in `entry_probabilities`, or the counts sum to 0.
    """
    number, t = _matched(counts), _threshold(threshold)
    return float(number[number < t].sum() / number.sum())


def p_to_t(counts: ArrayLike, share: float) -> float:
    """Returns the t of a tail share: of the ascending counts, the one whose cumulative share is closest to `share`.

    Of equally close ones the first counts.

    Raises:
        ValueError: The share is not in [0, 1], a count is negative or no whole number, or the counts sum to 0.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"`share` is {share}; it must be in [0, 1]")
    ascending = np.sort(_matched(counts))
    cumulative = np.cumsum(ascending) / ascending.sum()
    return float(ascending[np.argmin(np.abs(cumulative - share))])


def _rows(matches: Matches, num_entries: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns `matches` as offsets, int64 `(N + 1,)`, and ids, int32 or int64, all in [0, num_entries)."""
    offsets, ids = _split(matches)
    used = ids[offsets[0] : offsets[-1]]
    if len(used) and not 0 <= (low := used.min()) <= (high := used.max()) < num_entries:
        raise ValueError(f"`matches` holds {low if low < 0 else high}; an id must be in [0, {num_entries})")
    return offsets, ids


def _split(matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(matches, pa.Array | pa.ChunkedArray):
        return _split_arrow(matches)
    if isinstance(matches, tuple) and len(matches) == 2 and all(isinstance(part, np.ndarray) for part in matches):
        offsets, ids = _integers(matches[0]), _integers(matches[1])  # type: ignore[arg-type]
        if len(offsets) == 0 or offsets[0] < 0 or offsets[-1] > len(ids) or np.any(np.diff(offsets) < 0):
            raise ValueError(f"`matches` has offsets that do not rise from 0 or more to at most {len(ids)}, its ids")
        return offsets.astype(np.int64), ids
    rows = [() if row is None else row for row in matches]
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return _offsets(lengths), _integers(list(chain.from_iterable(rows)))


def _split_arrow(matches: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    kind = matches.type
    lists = isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType)
    if not lists or not pa.types.is_integer(kind.value_type):
        raise ValueError(f"`matches` is Arrow {kind}; it must be a list of integers")
    lengths = pc.fill_null(pc.list_value_length(matches), 0).to_numpy().astype(np.int64)
    ids = pc.list_flatten(matches)
    if ids.null_count:
        raise ValueError("`matches` holds a null id; a row may be null, an id may not")
    return _offsets(lengths), _integers(ids.to_numpy())


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))


def _integers(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"`matches` holds {array.dtype} of shape {array.shape}; its ids must be integers")
    return np.ascontiguousarray(array, np.int32 if array.dtype == np.int32 else np.int64)


def _matched(counts: ArrayLike) -> np.ndarray:
    number = whole_numbers("counts", counts).astype(np.float64)
    if not number.any():
        raise ValueError("`counts` sums to 0; a tail share needs an entry that a text matches")
    return number


def _threshold(threshold: float) -> float:
    if not threshold >= 0:
        raise ValueError(f"`threshold` is {threshold}; it must be at least 0")
    return float(threshold)


@njit(cache=True, nogil=True)
def _kept(offsets: np.ndarray, ids: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """P(keep) of each row; `lost` is 1 - p of each entry. The product is monotone in p after rounding, too."""
    kept = np.empty(len(offsets) - 1)
    last_row = np.full(len(lost), -1, np.int64)
    for row in range(len(kept)):
        product = 1.0
        for at in range(offsets[row], offsets[row + 1]):
            if last_row[ids[at]] != row:
                last_row[ids[at]] = row
                product *= lost[ids[at]]
        kept[row] = 1.0 - product
    return kept


@njit(cache=True, nogil=True)
def _critical(offsets: np.ndarray, ids: np.ndarray, counts: np.ndarray, coins: np.ndarray) -> np.ndarray:
    """Bisection row by row: P(keep) rises with t, is 0 at 0 and 1 where t is the largest count."""
    found = np.full(len(offsets) - 1, np.inf)
    last_row = np.full(len(counts), -1, np.int64)
    for row in range(len(found)):
        entries = [counts[0] for _ in range(0)]
        for at in range(offsets[row], offsets[row + 1]):
            if last_row[ids[at]] != row:
                last_row[ids[at]] = row
                entries.append(counts[ids[at]])
        low, high = 0.0, 0.0
        for count in entries:
            high = max(high, count)
        if len(entries) == 0:
            continue
        for _ in range(50):
            middle = 0.5 * (low + high)
            product = 1.0
            for count in entries:
                product *= 1.0 - middle / max(count, middle)
            if coins[row] < 1.0 - product:
                high = middle
            else:
                low = middle
        found[row] = high
    return found
