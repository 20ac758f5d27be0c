"""A small model that is trained on groups of rows in chosen proportions: what learned mixing laws ask questions of."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from storage.states import State

if TYPE_CHECKING:
    import torch


class GroupGradients(NamedTuple):
    """What a batch says of each group."""

    losses: np.ndarray
    """float64 `(m,)`: mean training loss of each group's rows in the batch; NaN of a group that has none there."""
    there: np.ndarray
    """int64 `(k,)`, ascending: the groups that have rows in the batch."""
    vectors: torch.Tensor
    """float32 `(k, P)`, on the proxy's device: gradient of the loss of each group in `there`."""
    reference: np.ndarray
    """float64 `(m,)`: the losses of the same rows by the reference's weights, if `gradients` was given any; NaN."""


class Proxy(Protocol):
    """A model in training, and the groups that it is trained and measured on."""

    groups: int
    """m."""
    step: int
    """Optimiser steps done, out of `total`: the learning rate's schedule."""
    total: int

    def fresh(self, total: int) -> Proxy:
        """The same model before its first step, on the same rows, to be trained for `total` steps."""
        ...

    def losses(self) -> np.ndarray:
        """Validation loss of each group, in nats: float64 `(m,)`; not finite where the model has diverged."""
        ...

    def train(self, proportions: np.ndarray, steps: int, *, composed: bool = False) -> np.ndarray:
        """Train for `steps` on batches with these shares of the groups; returns the realised shares, float64 `(m,)`.

        Args:
            proportions: float64 `(m,)`, non-negative with sum one.
            steps: Optimiser steps.
            composed: Each batch has whole numbers of rows by largest remainder, what a group is owed being carried
                over to the next batch of this call. Else every row's group is drawn at random.
        """
        ...

    def state(self) -> State:
        """All that `restore` needs, as arrays: weights, optimiser, places in the groups' streams of rows."""
        ...

    def restore(self, state: State) -> None:
        """Go on from `state`, to the same bytes."""
        ...


class GradientProxy(Proxy, Protocol):
    """A proxy that tells gradients by group."""

    def weights(self) -> State:
        """The weights alone, as arrays: what `gradients` takes as a reference."""
        ...

    def gradients(self, proportions: np.ndarray, reference: State | None = None) -> GroupGradients:
        """Losses and gradients by group of the next batch, drawn as in `train`; no step is taken."""
        ...

    def validation_gradient(self) -> torch.Tensor:
        """Gradient of the mean, over groups, of the losses of the next batch of validation rows: float32 `(P,)`."""
        ...

    def apply(self, gradient: torch.Tensor) -> None:
        """Take one optimiser step with this gradient, float32 `(P,)`; clipped to norm 1."""
        ...

    def rate(self) -> float:
        """The learning rate of the next step."""
        ...
