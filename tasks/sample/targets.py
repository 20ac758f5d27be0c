"""Target distributions: how often a batch should hold each concept (CABS, arXiv 2511.20643, and shapes of our own).

The released rule divides the batch evenly and caps it, so with thousands of concepts every target is 1 or 2. The other
shapes are ours: counts in proportion to weights, which add up to the labels that a batch is expected to hold, for if
they added up to its rows, rows of several concepts would use them up long before the batch is full.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.errors import ConfigError
from configs.methods import sample as methods
from tasks.annotate.numbers import read_numbers
from tasks.arguments import at_least
from tasks.mix.draws import largest_remainder
from tasks.sample.concepts import Labels, row_frequencies


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
    at_least(num_concepts=(num_concepts, 0), batch_size=(batch_size, 1), minimum=(minimum, 0), maximum=(maximum, 1))
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


def shaped_counts(
    weights: np.ndarray, total: int, *, minimum: int = 1, maximum: int | None = None, turn: int = 0
) -> np.ndarray:
    """Returns counts in proportion to weights: int64 `(V,)`.

    t_c = w_c / sum(w) of `total` by largest remainder (ties: the lower rank, counted from rank `turn` on), then at
    least `minimum` where w_c > 0, so that a rare concept is still wanted, at most `maximum`, and 0 where w_c = 0.

    Args:
        weights: float `(V,)`, finite, at least 0.
        total: Labels that the batch is expected to hold.
        minimum: Smallest target of a concept with a weight.
        maximum: Largest target.
        turn: Where ties begin: with another one in every batch, no concept is preferred for its name.
    """
    weights = np.asarray(weights, np.float64)
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("`weights` holds a number that is negative or not finite")
    if not weights.any():
        return np.zeros(len(weights), np.int64)
    turn %= len(weights)
    counts = np.roll(largest_remainder(np.roll(weights / weights.sum(), -turn), total), turn)
    counts = np.maximum(counts, minimum)
    return np.where(weights > 0, counts if maximum is None else np.minimum(counts, maximum), 0)


def resolved(section: Any) -> Any:
    """The sample section with the content of its file of weights in the file's place.

    So the content is part of every fingerprint, not the file's place, and all tasks of a run see the same.

    Raises:
        ConfigError: The file is missing or malformed, or has no weight above 0.
    """
    shape = getattr(section, "targets", None)
    if not isinstance(shape, methods.FileTargets):
        return section
    weights = read_numbers(shape.path, "sample.targets.path", 0, methods.LARGEST)
    if not shape.others and not any(weights.values()):
        raise ConfigError(f"`sample.targets.path` is {shape.path!r}; no weight in it is above 0, nor is `others`")
    known = methods.WeightTargets(weights=weights, others=shape.others, factors=shape.factors)
    return section.model_copy(update={"targets": known})


class Target:
    """The target distribution of a `cabs_dm` section.

    Attributes:
        named: Concepts that the section names, in code-point order: some may be unknown to the data.
    """

    def __init__(self, config: methods.CabsDm) -> None:
        """Raise ValueError if the weights are still in a file: see `resolved`."""
        self._config, shape = config, config.targets
        if isinstance(shape, methods.FileTargets):
            raise ValueError(f"`targets` are still in {shape.path}; call `tasks.sample.targets.resolved` first")
        weights = shape.weights if isinstance(shape, methods.WeightTargets) else {}
        factors = {} if isinstance(shape, methods.ReleasedTargets) else shape.factors
        self.named = sorted({*weights, *factors})
        self._weights = _Lookup(weights, getattr(shape, "others", 0.0))
        self._factors = _Lookup(factors, 1.0) if factors else None

    def counts(self, labels: Labels, turn: int = 0) -> np.ndarray:
        """Returns int64 `(V,)` for the concepts of one superbatch, all workers together; `turn`: of `shaped_counts`."""
        config, shape = self._config, self._config.targets
        if isinstance(shape, methods.ReleasedTargets):
            limit = config.batch_size if config.cap is None else config.cap
            return target_counts(labels.size, config.batch_size, minimum=config.minimum, maximum=limit)
        rows = int(np.count_nonzero(np.diff(labels.offsets)))
        total = round(config.batch_size * len(labels.ids) / max(1, rows))
        return shaped_counts(self.weights(labels), total, minimum=config.minimum, maximum=config.cap, turn=turn)

    def weights(self, labels: Labels) -> np.ndarray:
        """Returns the weight of each concept of a superbatch, float64 `(V,)`; needs `labels.words` for names."""
        shape = self._config.targets
        weights = np.ones(labels.size)
        if isinstance(shape, methods.NaturalTargets):
            weights = row_frequencies(labels.offsets, labels.ids, labels.size).astype(np.float64) ** shape.exponent
        elif isinstance(shape, methods.WeightTargets):
            weights = self._weights.of(labels)
        return weights if self._factors is None else weights * self._factors.of(labels)


class _Lookup:
    """Numbers by concept, and one for all others."""

    def __init__(self, known: Mapping[str, float], other: float) -> None:
        self._known = pa.array(list(known), pa.large_string())
        self._values = np.array([*known.values(), other], np.float64)

    def of(self, labels: Labels) -> np.ndarray:
        """Returns the number of each concept, float64 `(V,)`."""
        if not labels.size:
            return np.empty(0)
        if labels.words is None:
            raise ValueError("`concepts` are integers; targets that name concepts need strings")
        at = pc.fill_null(pc.index_in(labels.words, self._known), len(self._known))
        return self._values[at.to_numpy()]
