"""A small model in training on groups of rows, in proportions that may change at every call.

As `tasks.score.proxy_training`: AdamW, a cosine behind a warm-up, gradients of norm one at most. What a step draws
depends on the seed, the step and each group's place in its own stream of rows alone, so that ten steps are four and
six more. A batch is divided into pieces whose gradients are summed in their order, each computed by one thread on a
CPU: so the weights do not depend on how many threads there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from configs.methods.learned import Learned
from storage.states import State
from tasks.mix.group_streams import Streams, composed_counts, drawn_counts
from tasks.mix.proxy import GroupGradients
from tasks.score.proxy_training import CLIP, in_threads, in_turn, scheduled, steady

if TYPE_CHECKING:
    import torch

    Weights = dict[str, torch.Tensor]
    Loss = tuple[torch.Tensor, int]

MOMENTS = ("exp_avg", "exp_avg_sq")
TRAINING, VALIDATION, GROUPS = 61, 67, 71
"""What is drawn at random: rows to learn from, rows to be measured on, the groups of a batch."""

AT_ONCE = 32
"""Pieces whose gradients may be in memory together."""


class Corpus(Protocol):
    """A model's arithmetic, and the rows of each group that it learns from and is measured on."""

    train: list[np.ndarray]
    """Of each group the rows to learn from, int64."""
    held: list[np.ndarray]
    """Of each group the rows that its loss is measured on, int64; none of them is learned from."""
    threads: bool
    """Whether several threads may be in the model at once."""

    def initial(self) -> dict[str, np.ndarray]:
        """Weights to begin with, float32, by name."""
        ...

    def pieces(self, batch: np.ndarray, places: np.ndarray, least: int = 1) -> list[np.ndarray]:
        """Places in a batch in parts, about `least` at least, that a loss is summed over."""
        ...

    def loss(self, weights: Weights, batch: np.ndarray, places: np.ndarray) -> Loss:
        """Sum of the training losses of the rows at these places of a batch, and what a sum is to be divided by."""
        ...

    def held_pieces(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows in parts that a validation loss is summed over."""
        ...

    def held_loss(self, weights: Weights, rows: np.ndarray) -> Loss:
        """Sum of the validation losses of some rows, and what a sum is to be divided by."""
        ...


class GroupProxy:
    """A `tasks.mix.proxy.GradientProxy` over any corpus.

    Attributes:
        groups: m.
        step: Optimiser steps done.
        total: Steps of the schedule; later ones have the rate 0.
    """

    PIECES = 4
    """Parts of a batch in training, at least, where a corpus can divide one: what may be in the model at once."""

    def __init__(self, corpus: Corpus, config: Learned, device: str, total: int | None = None) -> None:
        import torch

        self.groups, self.step, self.total = len(corpus.train), 0, config.steps if total is None else total
        if self.total < 1:
            raise ValueError(f"`total` is {self.total}; it must be at least 1")
        self._corpus, self._config, self._device = corpus, config, device
        self._weights = {n: torch.from_numpy(w.copy()).to(device) for n, w in corpus.initial().items()}
        for value in self._weights.values():
            value.requires_grad_(True)
        self._adam = torch.optim.AdamW(
            self._weights.values(), lr=config.learning_rate, betas=(0.9, 0.999), weight_decay=0.0, foreach=False
        )
        self._train = Streams(corpus.train, [config.proxy_seed, TRAINING])
        self._held = Streams(corpus.held, [config.proxy_seed, VALIDATION])
        self._run = in_threads if device == "cpu" and corpus.threads else in_turn
        self._reference: tuple[State, Weights] | None = None

    # ------------------------------------------------------------------------------------------------------- a `Proxy`
    def fresh(self, total: int) -> GroupProxy:
        """The same model before its first step, on the same rows, to be trained for `total` steps."""
        return GroupProxy(self._corpus, self._config, self._device, total)

    def losses(self) -> np.ndarray:
        """Validation loss of each group, in nats: float64 `(m,)`; not finite where the model has diverged."""
        return group_losses(self._corpus, self._weights, self._device)

    def train(self, proportions: np.ndarray, steps: int, *, composed: bool = False) -> np.ndarray:
        """Train for `steps` on batches with these shares of the groups; returns the realised shares, float64 `(m,)`.

        Raises:
            ValueError: For proportions that are none, and for no steps.
        """
        shares, total = self._checked(proportions), np.zeros(self.groups, np.int64)
        if steps < 1:
            raise ValueError(f"`steps` is {steps}; it must be at least 1")
        owed = np.zeros(self.groups)
        with steady(self._device):
            for _ in range(steps):
                if composed:
                    counts, owed = composed_counts(shares, self._config.batch_size, owed)
                else:
                    counts = self._counts(shares)
                batch = np.concatenate(self._train.take(counts))
                places = self._corpus.pieces(batch, np.arange(len(batch)), self.PIECES)
                ((_, gradient),) = self._gradients(partial(self._corpus.loss, self._weights, batch), [places])
                self._update(gradient)
                total += counts
        return total / total.sum()

    def state(self) -> State:
        """All that `restore` needs, as arrays: weights, optimiser, places in the groups' streams of rows."""
        state: State = {"step": np.int64(self.step), "total": np.int64(self.total)}
        state |= {"train": self._train.places.copy(), "held": self._held.places.copy()}
        for name, value in self._weights.items():
            state[f"weight/{name}"] = _copied(value)
            moments = self._adam.state[value]  # empty before the first step
            state |= {f"{k}/{name}": _copied(moments[k]) if moments else np.zeros_like(_copied(value)) for k in MOMENTS}
        return state

    def restore(self, state: State) -> None:
        """Go on from `state`, to the same bytes."""
        import torch

        self.step, self.total = int(state["step"]), int(state["total"])
        self._train.places, self._held.places = state["train"].copy(), state["held"].copy()
        for name, value in self._weights.items():
            with torch.no_grad():
                value.copy_(torch.from_numpy(state[f"weight/{name}"]))
            moments = {k: torch.from_numpy(state[f"{k}/{name}"].copy()).to(self._device) for k in MOMENTS}
            self._adam.state[value] = moments | {"step": torch.tensor(float(self.step))}

    # ----------------------------------------------------------------------------------------------- a `GradientProxy`
    def weights(self) -> State:
        """The weights alone, as arrays: what `gradients` takes as a reference."""
        return {name: _copied(value) for name, value in self._weights.items()}

    def gradients(self, proportions: np.ndarray, reference: State | None = None) -> GroupGradients:
        """Losses and gradients by group of the next batch, drawn as in `train`; no step is taken.

        Every call goes on in the groups' streams. A group's loss is the mean of the training loss over its own part of
        the batch, so that the batch's gradient is the mean of theirs by what they are divided by: tokens, or rows.

        Args:
            proportions: float64 `(m,)`, non-negative with sum one.
            reference: As of `weights`; measured on the same rows.
        """
        import torch

        counts = self._counts(self._checked(proportions))
        batch, group = np.concatenate(self._train.take(counts)), np.repeat(np.arange(self.groups), counts)
        there = np.flatnonzero(counts)
        places = [self._corpus.pieces(batch, np.flatnonzero(group == g)) for g in there]
        losses, known = np.full(self.groups, np.nan), np.full(self.groups, np.nan)
        with steady(self._device):
            vectors = torch.empty(len(there), self._size, device=self._device)
            found = self._gradients(partial(self._corpus.loss, self._weights, batch), places)
            for place, (loss, vector) in enumerate(found):
                losses[there[place]], vectors[place] = loss, vector
            if reference is not None:
                work = partial(self._corpus.loss, self._placed(reference), batch)
                known[there] = measured(work, places, self._run)
        return GroupGradients(losses, there, vectors, known)

    def validation_gradient(self) -> torch.Tensor:
        """Gradient of the mean, over groups, of the losses of the next batch of validation rows: float32 `(P,)`.

        A batch has as many rows of every group: `batch_size` over m, at least one.
        """
        import torch

        each = max(1, self._config.batch_size // self.groups)
        rows = self._held.take(np.full(self.groups, each))
        with steady(self._device):
            places = [self._corpus.held_pieces(own) for own in rows]
            total = torch.zeros(self._size, device=self._device)
            for _, vector in self._gradients(partial(self._corpus.held_loss, self._weights), places):
                total += vector
            return total / self.groups

    def apply(self, gradient: torch.Tensor) -> None:
        """Take one optimiser step with this gradient, float32 `(P,)`; clipped to norm 1."""
        if tuple(gradient.shape) != (self._size,):
            raise ValueError(f"`gradient` is {tuple(gradient.shape)}; it must be ({self._size},)")
        with steady(self._device):
            self._update(gradient)

    def rate(self) -> float:
        """The learning rate of the next step: a cosine to 0 at `total` behind a linear warm-up."""
        return self._config.learning_rate * scheduled(self.step, self.total)

    # ---------------------------------------------------------------------------------------------------------- within
    @property
    def _size(self) -> int:
        """P: numbers in the weights."""
        return sum(value.numel() for value in self._weights.values())

    def _checked(self, proportions: np.ndarray) -> np.ndarray:
        shares = np.asarray(proportions, np.float64)
        if shares.shape != (self.groups,) or not (shares >= 0).all() or not abs(shares.sum() - 1) < 1e-6:
            raise ValueError(
                f"`proportions` is {shares.tolist()}; it must be {self.groups} numbers, none negative, with sum 1"
            )
        return shares / shares.sum()

    def _counts(self, shares: np.ndarray) -> np.ndarray:
        return drawn_counts(shares, self._config.batch_size, [self._config.proxy_seed, GROUPS, self.step])

    def _gradients(
        self, loss: Callable[[Any], Loss], parts: list[list[np.ndarray]]
    ) -> Iterator[tuple[float, torch.Tensor]]:
        """Of each part the mean loss over its pieces, summed in their order, and its gradient, float32 `(P,)`."""
        flat = [piece for pieces in parts for piece in pieces]
        work = partial(_gradient, loss, list(self._weights.values()))
        found = (one for at in range(0, len(flat), AT_ONCE) for one in self._run(work, flat[at : at + AT_ONCE]))
        for pieces in parts:
            value, vector, count = next(found)
            for _ in pieces[1:]:
                more, other, number = next(found)
                value, count = value + more, count + number
                vector += other
            yield value / count, vector.div_(count)

    def _update(self, gradient: torch.Tensor) -> None:
        norm = float(gradient.square().sum().sqrt())
        self._adam.param_groups[0]["lr"] = self.rate()
        scaled = gradient * min(1.0, CLIP / max(norm, 1e-12))
        at = 0
        for value in self._weights.values():
            value.grad = scaled[at : at + value.numel()].view_as(value)
            at += value.numel()
        self._adam.step()
        self.step += 1

    def _placed(self, state: State) -> Weights:
        """Weights on the device; those of the reference are sent there once."""
        import torch

        if self._reference is None or self._reference[0] is not state:
            placed = {n: torch.from_numpy(np.array(state[n], np.float32)).to(self._device) for n in self._weights}
            self._reference = (state, placed)
        return self._reference[1]


def group_losses(corpus: Corpus, weights: Weights, device: str) -> np.ndarray:
    """Mean validation loss of each group, in nats: float64 `(m,)`."""
    run = in_threads if device == "cpu" and corpus.threads else in_turn
    with steady(device):
        return measured(partial(corpus.held_loss, weights), [corpus.held_pieces(rows) for rows in corpus.held], run)


def measured(loss: Callable[[Any], Loss], parts: list[list[np.ndarray]], run: Callable[..., Any]) -> np.ndarray:
    """Mean loss over the pieces of each part, without gradients: float64 `(parts,)`."""
    flat = [piece for pieces in parts for piece in pieces]
    found = iter(list(run(partial(_value, loss), flat)))
    sums = [[next(found) for _ in pieces] for pieces in parts]
    return np.array([sum(value for value, _ in one) / sum(count for _, count in one) for one in sums])


def _value(loss: Callable[[Any], Loss], piece: np.ndarray) -> tuple[float, int]:
    import torch

    with torch.no_grad():
        value, count = loss(piece)
        return float(value), count


def _gradient(
    loss: Callable[[Any], Loss], weights: list[torch.Tensor], piece: np.ndarray
) -> tuple[float, torch.Tensor, int]:
    """Of a piece the sum of its losses, the gradient of that sum, float32 `(P,)`, and what to divide by."""
    import torch

    value, count = loss(piece)
    gradients = torch.autograd.grad(value, weights)
    return float(value.detach()), torch.cat([one.reshape(-1) for one in gradients]), count


def _copied(value: torch.Tensor) -> np.ndarray:
    return np.array(value.detach().cpu().numpy())
