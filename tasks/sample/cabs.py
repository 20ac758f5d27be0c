"""CABS: concept-aware batch sampling (Ghosh et al., arXiv 2511.20643). Picks a batch by the rows' concepts alone.

Diversity maximisation (DM) picks greedily the row whose concepts are furthest below their targets and rarest; frequency
maximisation (FM) takes the rows with the most concepts. The released code and the formula of the paper differ; both are
here, the latter as third parties restate it. Several workers share targets t and frequencies F of the whole superbatch,
but each counts and caps on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike

from configs.methods import sample as methods
from tasks.sample.greedy import Labels, Rule, pick_greedily, row_frequencies, without_repeats

Concepts: TypeAlias = (
    "Sequence[Sequence[str] | None] | Sequence[Sequence[int] | None] | np.ndarray | pa.Array | pa.ChunkedArray"
)


def target_counts(num_concepts: int, batch_size: int, *, minimum: int = 1, maximum: int = 10) -> np.ndarray:
    """Returns how often a batch should hold each concept: int64 `(num_concepts,)`, by rank of the concept.

    t_i = b // V + [i < b mod V], clipped to [minimum, maximum]. If the sum then exceeds b:
    t_i = max(1, min(t_i b // sum, maximum)), whose sum may still exceed b, as V > b gives all ones.

    Args:
        num_concepts: V, distinct concepts of the whole superbatch.
        batch_size: b, rows of the batch, all workers together.
        minimum: Smallest target.
        maximum: Largest target.
    """
    _at_least(num_concepts=(num_concepts, 0), batch_size=(batch_size, 1), minimum=(minimum, 0), maximum=(maximum, 1))
    if minimum > maximum:
        raise ValueError(f"`minimum` is {minimum}; it must be at most `maximum`, which is {maximum}")
    share, remainder = divmod(batch_size, max(1, num_concepts))
    targets = np.full(num_concepts, share, dtype=np.int64)
    targets[:remainder] += 1
    targets = np.clip(targets, minimum, maximum)
    total = int(targets.sum())
    if total > batch_size:
        targets = np.clip(targets * batch_size // total, 1, maximum)
    return targets


def select_diverse(
    concepts: Concepts,
    batch_size: int,
    *,
    maximum: int = 10,
    variant: Literal["released", "printed"] = "released",
    targets: ArrayLike | None = None,
    frequencies: ArrayLike | None = None,
    fill: bool = False,
    seed: int = 0,
) -> np.ndarray:
    """Returns the indices that CABS-DM picks, in order of selection: int64, at most `batch_size` of them.

    Each pick is the row with the largest mean of g_c over its concepts, the lowest index on ties; then its n_c rise.

    `released`, the authors' code: repeats in a row count; g_c = (t_c - n_c)/t_c + 1/F_c while n_c < t_c, then -0.5; a
    row that holds a concept with n_c >= `maximum` is void. When only void rows are left, rows without concepts follow
    at random, and the result may still be short.

    `printed`, the paper's formula at second hand: a row's concepts are a set; g_c = 0 once n_c >= t_c. The restatements
    disagree on whether a met target also voids the rows that hold it; here it does not, so `maximum` only bounds the
    default targets. Rows without concepts come last, in order, and the result is never short.

    `fill` makes it min(`batch_size`, n) indices with nothing random: once only void rows are left, each further pick is
    the row with the fewest labels of full concepts (n_c >= `maximum`; n_c goes on rising), on ties the larger mean of
    g_c, then the lower index; rows without concepts come last, in order.

    Args:
        concepts: Row by row strings (their vocabulary is what occurs, by code point) or ids (ranks already), or an
            Arrow list array of either, dictionary-encoded or not; a null row has no concepts.
        batch_size: Rows wanted out of these: the quota of one worker.
        maximum: Cap on n_c (`released`), and largest default target.
        variant: Whose rule.
        targets: `(V,)`, t by rank of the concept. Default: `target_counts` of the concepts that occur and `batch_size`.
            To share them among workers, pass ids ranked in the vocabulary of the whole superbatch.
        frequencies: `(V,)`, F: rows of the whole superbatch that hold the concept. Default: counted in these rows.
        fill: Never return short.
        seed: Of the random choice among rows without concepts.
    """
    _at_least(batch_size=(batch_size, 1), maximum=(maximum, 1), seed=(seed, 0))
    if variant not in ("released", "printed"):
        raise ValueError(f"`variant` is {variant!r}; it must be 'released' or 'printed'")
    t = None if targets is None else _whole_numbers("targets", targets)
    f = None if frequencies is None else _whole_numbers("frequencies", frequencies)
    if t is not None and f is not None and len(t) != len(f):
        raise ValueError(f"`frequencies` has length {len(f)}; it must match `targets`, which has {len(t)}")
    labels = encode(concepts, next((len(array) for array in (t, f) if array is not None), None))
    own = row_frequencies(*labels)
    f = own if f is None else f
    if t is None:
        occurs = (f > 0) | (own > 0)
        t = np.zeros(labels.size, np.int64)
        t[occurs] = target_counts(int(occurs.sum()), batch_size, maximum=maximum)
    return _select(labels, int(batch_size), (t, f), _rule(variant, maximum, fill), None if fill else seed)[0]


def select_frequent(concepts: Concepts, batch_size: int) -> np.ndarray:
    """Returns the min(`batch_size`, n) rows with the most labels (CABS-FM): int64, most first, ties by lower index."""
    _at_least(batch_size=(batch_size, 1))
    return _longest(_split(concepts)[0], batch_size)


def encode(concepts: Concepts, size: int | None = None) -> Labels:
    """Returns the rows' concepts as ids: ranks by code point of strings, by value of integers, among those that occur.

    Args:
        concepts: As in `select_diverse`.
        size: V, if the vocabulary is fixed: integers are then taken as they are, and strings must be V distinct ones.
    """
    lengths, values = _split(concepts)
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    if values.is_null().true_count:  # looks into dictionaries too
        raise ValueError("`concepts` holds a null concept; a row may be null, a concept may not")
    if pa.types.is_integer(values.type) or not len(values):
        ids = values.cast(pa.int64()).to_numpy(zero_copy_only=False)
        if len(ids) and ids.min() < 0:
            raise ValueError(f"`concepts` holds {ids.min()}; an id must be at least 0")
        if size is None:
            vocabulary, ids = np.unique(ids, return_inverse=True)
            return Labels(offsets, ids.astype(np.int32), len(vocabulary))
        if len(ids) and ids.max() >= size:
            raise ValueError(f"`concepts` holds {ids.max()}; it must be below {size}, as in `targets`/`frequencies`")
        return Labels(offsets, ids.astype(np.int32), size)
    ids, distinct = _ranks(values)
    if size is not None and distinct != size:
        raise ValueError(
            f"`concepts` holds {distinct} distinct strings; it must hold {size}, as in `targets`/`frequencies`, "
            "or integers that rank them"
        )
    return Labels(offsets, ids, distinct)


class CabsDm:
    """CABS diversity maximisation, filled to the quota: every rank gets exactly b/W rows."""

    needs: tuple[str, ...] = ("concepts",)
    independent: bool = True

    def __init__(self, config: methods.CabsDm, *, seed: int = 0) -> None:
        """`seed` is part of every sampler's signature; nothing is random here, since the fill is not."""
        target_counts(0, config.batch_size, minimum=config.minimum, maximum=config.maximum)  # refuse bad bounds early
        self.config = config

    def pick(self, superbatch: pa.Table, step: int) -> list[np.ndarray]:
        """Returns one int64 array of row indices per rank; see `tasks.sample.Sampler`."""
        return self.pick_with_fill(superbatch, step)[0]

    def pick_with_fill(self, superbatch: pa.Table, step: int) -> tuple[list[np.ndarray], list[int]]:
        """Returns what `pick` returns, and how many rows of each rank, its last ones, are fill."""
        config = self.config
        share = _rank_rows(superbatch, config)
        labels = encode(superbatch["concepts"])
        targets = target_counts(labels.size, config.batch_size, minimum=config.minimum, maximum=config.maximum)
        goals = targets, row_frequencies(*labels)
        rule = _rule(config.variant, config.maximum, fill=True)
        picks, filled = [], []
        for start in range(0, config.superbatch, share):
            mine = labels._replace(offsets=labels.offsets[start : start + share + 1])
            rows, extra = _select(mine, config.batch_size // config.world_size, goals, rule)
            picks.append(start + rows)
            filled.append(extra)
        return picks, filled


class CabsFm:
    """CABS frequency maximisation: the b/W rows with the most concepts on each rank."""

    needs: tuple[str, ...] = ("concepts",)
    independent: bool = True

    def __init__(self, config: methods.CabsFm, *, seed: int = 0) -> None:
        """`seed` is part of every sampler's signature; nothing is random here."""
        self.config = config

    def pick(self, superbatch: pa.Table, step: int) -> list[np.ndarray]:
        """Returns one int64 array of row indices per rank; see `tasks.sample.Sampler`."""
        share = _rank_rows(superbatch, self.config)
        lengths = _split(superbatch["concepts"])[0].reshape(-1, share)
        quota = self.config.batch_size // self.config.world_size
        return [rank * share + _longest(mine, quota) for rank, mine in enumerate(lengths)]


def _rule(variant: str, maximum: int, fill: bool) -> Rule:
    """Returns what sets the variants apart."""
    if variant == "printed":
        return Rule(repeats=False, cap=np.iinfo(np.int64).max, met=0.0, penalty=0.0)
    return Rule(repeats=True, cap=int(maximum), met=-0.5, penalty=1.0 if fill else np.inf)


def _select(
    labels: Labels, quota: int, goals: tuple[np.ndarray, np.ndarray], rule: Rule, seed: int | None = None
) -> tuple[np.ndarray, int]:
    """Returns the picks of one worker and how many of them, the last ones, are fill.

    Args:
        labels: The rows of this worker.
        quota: Rows wanted.
        goals: Targets and frequencies, int64 `(V,)` each.
        rule: From `_rule`.
        seed: Of the order of rows without concepts among the released code's picks; null: by index.
    """
    offsets, ids, size = labels
    if not rule.repeats:
        offsets, ids = without_repeats(offsets, ids, size)
    picks, within = pick_greedily(offsets, ids, *goals, quota, rule)
    if len(picks) < quota:
        empty = np.flatnonzero(np.diff(offsets) == 0)
        missing = min(quota - len(picks), len(empty))
        if rule.repeats and seed is not None:
            empty = np.random.default_rng(seed).choice(empty, missing, replace=False)
        picks = np.concatenate((picks, empty[:missing]))
    return picks, len(picks) - within


def _longest(lengths: np.ndarray, count: int) -> np.ndarray:
    """Returns the indices of the `count` largest lengths, largest first, ties by lower index: int64."""
    return np.argsort(-lengths, kind="stable")[:count]


def _split(concepts: Concepts) -> tuple[np.ndarray, pa.Array]:
    """Returns the number of labels of each row, int64 `(n,)`, and all labels end to end as one Arrow array."""
    if isinstance(concepts, pa.Array | pa.ChunkedArray):
        if not isinstance(concepts.type, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
            raise ValueError(f"`concepts` is Arrow {concepts.type}; it must be a list of strings or integers")
        lengths = pc.fill_null(pc.list_value_length(concepts), 0).to_numpy().astype(np.int64)
        values = pc.list_flatten(concepts)
        if isinstance(values, pa.ChunkedArray):
            values = values.unify_dictionaries().combine_chunks()
        return lengths, values
    rows = [() if row is None else row for row in concepts]
    bare = [row for row in rows if isinstance(row, str)]
    if bare:
        raise ValueError(f"`concepts` holds the row {bare[0]!r}; each row must be a list of concepts")
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    flat = list(chain.from_iterable(rows))
    if all(isinstance(label, str) for label in flat):
        return lengths, pa.array(flat, pa.large_string())
    odd = [x for x in flat if isinstance(x, bool | np.bool_) or not isinstance(x, int | np.integer)]
    if odd:
        raise ValueError(f"`concepts` holds {odd[0]!r}; concepts must be all strings or all integers")
    return lengths, pa.array(flat, pa.int64())


def _ranks(values: pa.Array) -> tuple[np.ndarray, int]:
    """Returns the rank of each string among the distinct ones by code point, int32, and how many are distinct."""
    if not pa.types.is_dictionary(values.type):
        values = values.dictionary_encode()
    words = values.dictionary
    if words.type not in (pa.string(), pa.large_string(), pa.string_view()):
        raise ValueError(f"`concepts` is a list of {values.type}; it must be a list of strings or integers")
    words = words.cast(pa.large_string()).dictionary_encode()  # a dictionary may repeat itself
    codes = words.indices.to_numpy(zero_copy_only=False)[values.indices.to_numpy()]
    occurs = np.bincount(codes, minlength=len(words.dictionary)) > 0
    order = pc.array_sort_indices(words.dictionary).to_numpy()  # by UTF-8 bytes, which is by code point
    rank = np.empty(len(order), np.int32)
    rank[order] = np.cumsum(occurs[order]) - 1
    return rank[codes], int(occurs.sum())


def _rank_rows(superbatch: pa.Table, config: methods.Batches) -> int:
    """Returns how many rows of the superbatch each rank owns."""
    if superbatch.num_rows != config.superbatch:
        raise ValueError(f"`superbatch` has {superbatch.num_rows} rows; it must have {config.superbatch}")
    return config.superbatch // config.world_size


def _whole_numbers(name: str, values: ArrayLike) -> np.ndarray:
    """Returns `values` as int64 `(V,)`."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise ValueError(f"`{name}` is {array.dtype} of shape {array.shape}; it must be one row of whole numbers")
    bad = ~(np.isfinite(array) & (array >= 0) & (array == np.rint(array)))
    if bad.any():
        raise ValueError(f"`{name}` holds {array[bad][0]}; each must be a whole number of at least 0")
    return array.astype(np.int64)


def _at_least(**bounds: tuple[int, int]) -> None:
    """Raises ValueError for the first `name=(value, bound)` that is no integer or below its bound."""
    for name, (value, bound) in bounds.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < bound:
            raise ValueError(f"`{name}` is {value!r}; it must be an integer of at least {bound}")
