"""What UDS is compared with: rows at random, and those with the highest score of one kind. No state, no interaction.

The definitions are the usual ones, reconstructed: the paper on UDS (arXiv 2510.16882) compares with them, its public
code has none but random. RHO-LOSS is Mindermann et al., arXiv 2206.07137. Losses, entropies and gradients are a row's
means over its tokens, of the model as it stands when rows are scored, not as it would be at that step of training.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa

from configs.methods import scored as methods
from tasks.sample.micro_batches import MicroBatched, best, numbers, rounded


class Random:
    """K rows of each micro-batch at random, drawn by seed, step and rank."""

    needs: tuple[str, ...] = ()
    independent: bool = True

    def __init__(self, config: methods.Random, *, seed: int = 0) -> None:
        self.config, self._seed = config, seed

    def pick(self, superbatch: pa.Table, step: int) -> list[np.ndarray]:
        """Returns one int64 array of row indices per rank; see `tasks.sample.Sampler`."""
        config, (size, count) = self.config, self.config.share
        whole = config.superbatch // config.world_size
        return [
            rank * whole + best(np.random.default_rng([self._seed, step, rank]).random(whole), size, count).ravel()
            for rank in range(config.world_size)
        ]


class _Highest(MicroBatched):
    """The rows with the highest score."""

    made: ClassVar[str]
    """The column that the model of `logits` makes."""

    def __init__(self, config: methods.Scored, *, seed: int = 0) -> None:
        """`seed` is part of every sampler's signature; nothing is random here."""
        remedy = "Give `sample.logits`, the model to score with, or name in `sample.column` a score that is made."
        super().__init__(config, (config.column or self.made,), remedy=remedy)

    def pick_and_value(self, superbatch: pa.Table, step: int) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """Returns the picks of each rank, and the scores; see `tasks.sample.ValuingSampler`."""
        name = self.needs[0]
        scores = numbers(self.checked(superbatch)[name], name)
        return self.per_rank(best(scores, *self.config.share)), rounded({self.values[0]: scores})


class MaxLoss(_Highest):
    """The rows with the highest loss."""

    made, values = "lm_loss", ("loss",)


class MaxEntropy(_Highest):
    """The rows about whose tokens the model is least sure."""

    made, values = "lm_entropy", ("entropy",)


class GradientNorm(_Highest):
    """The rows with the largest gradient of the last layer."""

    made, values = "lm_gradient_norm", ("gradient_norm",)


class RhoLoss(MicroBatched):
    """The rows whose loss is highest above a reference's, a model trained on held-out data: learnable, not noise."""

    values = ("loss", "reference_loss", "excess_loss")

    def __init__(self, config: methods.RhoLoss, *, seed: int = 0) -> None:
        """`seed` is part of every sampler's signature; nothing is random here."""
        self._loss, self._reference = config.column or "lm_loss", config.reference_column or "reference_loss"
        remedy = (
            "Give `sample.logits` and `sample.reference`, the two models, or name in `sample.column` and "
            "`sample.reference_column` scores that are made."
        )
        super().__init__(config, (self._loss, self._reference), remedy=remedy)

    def pick_and_value(self, superbatch: pa.Table, step: int) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """Returns the picks of each rank, and losses and their difference; see `tasks.sample.ValuingSampler`."""
        self.checked(superbatch)
        loss, reference = (numbers(superbatch[name], name) for name in (self._loss, self._reference))
        with np.errstate(over="ignore"):
            excess = loss - reference
        told = dict(zip(self.values, (loss, reference, excess), strict=True))
        return self.per_rank(best(excess, *self.config.share)), rounded(told)
