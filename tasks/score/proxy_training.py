"""Training of a small proxy, with its weights kept at checkpoints: AdamW, a cosine behind a warm-up, batches by seed.

A batch is divided into pieces whose gradients are summed in their order, each computed by one thread on a CPU: so the
weights do not depend on how many threads there are. Training goes on where a checkpoint was saved, to the same bytes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from configs.errors import ConfigError
from configs.methods.proxies import Trajectory
from storage.states import Checkpoint, State
from tasks import stopping
from tasks.score.blockwise import worker_threads

if TYPE_CHECKING:
    import torch

    Weights = dict[str, torch.Tensor]

WARM_UP = 0.03
"""Of all steps, as in the released code of S2L."""
CLIP = 1.0
"""Largest norm of a gradient."""
SAVE_SECONDS = 5.0
"""Between two checkpoints at least: what a crash may cost."""
SAVE_SHARE = 0.05
"""Of the time, at most, to be spent on saving."""


def scheduled(step: int, total: int) -> float:
    """Share of the highest learning rate at a step: a cosine to 0 at `total` behind a linear warm-up."""
    warm = max(1, round(WARM_UP * total))
    left = min(1.0, (step - warm) / max(1, total - warm))
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * left))


class Learner(Protocol):
    """A model and the rows that it learns from."""

    count: int
    """Rows."""
    threads: bool
    """Whether several threads may be in the model at once."""

    def initial(self) -> dict[str, np.ndarray]:
        """Weights to begin with, float32, by name."""
        ...

    def pieces(self, rows: np.ndarray) -> list[np.ndarray]:
        """A batch in parts, int64 each, that the loss is a sum over."""
        ...

    def loss(self, weights: Weights, rows: np.ndarray) -> tuple[torch.Tensor, int]:
        """Sum of the losses of a piece, and what the sum over a batch is to be divided by."""
        ...


class Training:
    """Weights, their optimiser, and the checkpoints so far.

    Attributes:
        step: Steps done.
        total: Steps in all.
        losses: Mean loss of the steps that led to each checkpoint.
    """

    def __init__(self, learner: Learner, config: Trajectory, device: str) -> None:
        import torch

        self._learner, self._config, self._device = learner, config, device
        self._batch = min(config.batch_size, learner.count)
        self.total = max(config.checkpoints, math.ceil(config.epochs * learner.count / self._batch))
        self._ends = [math.ceil((t + 1) * self.total / config.checkpoints) for t in range(config.checkpoints)]
        self._weights = {n: torch.from_numpy(w.copy()).to(device) for n, w in learner.initial().items()}
        for value in self._weights.values():
            value.requires_grad_(True)
        # `foreach` is the default on CUDA alone, and adds nothing there for weights this small.
        self._adam = torch.optim.AdamW(
            self._weights.values(), lr=config.learning_rate, betas=(0.9, 0.999), weight_decay=0.0, foreach=False
        )
        self.step, self._kept, self.losses, self._since = 0, {}, [], []  # type: ignore[var-annotated]
        self._latest = math.nan
        self._run = in_threads if device == "cpu" and learner.threads else in_turn

    def run(self, checkpoint: Checkpoint | None, more: State) -> State:
        """Train to the end: weights as `<t>/<name>` and `losses`; `more` is saved along in `checkpoint`."""
        saved = checkpoint.load() if checkpoint else None
        if saved is not None and "step" in saved:
            self.restore(saved)
        last, took = time.monotonic(), 0.0
        with steady(self._device):
            while self.step < self.total:
                if stopping.is_told() and checkpoint:
                    checkpoint.save(self.state() | more)
                stopping.check()
                self.advance()
                if checkpoint and time.monotonic() - last >= max(SAVE_SECONDS, took / SAVE_SHARE):
                    began = time.monotonic()
                    checkpoint.save(self.state() | more)
                    checkpoint.tell(f"proxy: step {self.step:,} of {self.total:,}, loss {self._latest:.4f}")
                    last = time.monotonic()
                    took = last - began
        if checkpoint:
            checkpoint.tell(f"proxy: {self.total:,} steps, loss {self.losses[0]:.4f} -> {self.losses[-1]:.4f}")
        return self._kept | {"losses": np.array(self.losses, np.float32)}

    def advance(self) -> None:
        """One step."""
        import torch

        found = list(self._run(self._gradients, self._learner.pieces(self._rows())))
        weight = sum(count for _, _, count in found)
        loss = sum(loss for loss, _, _ in found) / weight
        if not math.isfinite(loss):
            raise ConfigError(
                f"the proxy's loss is {loss} at step {self.step} of {self.total}: training does not converge with "
                f"`learning_rate: {self._config.learning_rate:g}`; take a lower one"
            )
        with torch.no_grad():
            sums = [torch.stack(parts).sum(0) / weight for parts in zip(*(g for _, g, _ in found), strict=True)]
        list(self._run(self._update, [sums]))
        self.step += 1
        self._since.append(loss)
        self._latest = loss
        if self.step == self._ends[len(self.losses)]:
            self._kept |= {f"{len(self.losses):02d}/{n}": self._copied(w) for n, w in self._weights.items()}
            self.losses.append(float(np.mean(self._since)))
            self._since = []

    def _rows(self) -> np.ndarray:
        """The rows of this step: every epoch is a permutation of its own, cut into whole batches."""
        batches = self._learner.count // self._batch
        epoch, place = divmod(self.step, batches)
        order = np.random.default_rng([self._config.seed, 1, epoch]).permutation(self._learner.count)
        return order[place * self._batch : (place + 1) * self._batch]

    def _gradients(self, rows: np.ndarray) -> tuple[float, tuple[torch.Tensor, ...], int]:
        import torch

        loss, count = self._learner.loss(self._weights, rows)
        return float(loss.detach()), torch.autograd.grad(loss, list(self._weights.values())), count

    def _update(self, gradients: list[torch.Tensor]) -> None:
        import torch

        norm = float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt())
        self._adam.param_groups[0]["lr"] = self._config.learning_rate * scheduled(self.step, self.total)
        for value, gradient in zip(self._weights.values(), gradients, strict=True):
            value.grad = gradient * min(1.0, CLIP / max(norm, 1e-12))
        self._adam.step()

    @staticmethod
    def _copied(value: torch.Tensor) -> np.ndarray:
        return np.array(value.detach().cpu().numpy())

    def state(self) -> State:
        """All that `restore` needs, as arrays."""
        state: State = {"step": np.int64(self.step), "since": np.array(self._since), **self._kept}
        state["losses"] = np.array(self.losses)
        for name, value in self._weights.items():
            state[f"weight/{name}"] = self._copied(value)
            for key in ("exp_avg", "exp_avg_sq"):
                state[f"{key}/{name}"] = self._copied(self._adam.state[value][key])
        return state

    def restore(self, state: State) -> None:
        """Go on from `state`, as if nothing had happened."""
        import torch

        self.step, self.losses, self._since = int(state["step"]), state["losses"].tolist(), state["since"].tolist()
        checkpoints = {f"{t:02d}/{name}" for t in range(len(self.losses)) for name in self._weights}
        self._kept = {name: state[name] for name in checkpoints}
        for name, value in self._weights.items():
            with torch.no_grad():
                value.copy_(torch.from_numpy(state[f"weight/{name}"]))
            moments = {k: torch.from_numpy(state[f"{k}/{name}"]).to(self._device) for k in ("exp_avg", "exp_avg_sq")}
            self._adam.state[value] = moments | {"step": torch.tensor(float(self.step))}


def weights_at(state: State, t: int, device: str) -> Weights:
    """The weights of checkpoint `t`, on the device."""
    import torch

    own = f"{t:02d}/"
    return {n.removeprefix(own): torch.from_numpy(w).to(device) for n, w in state.items() if n.startswith(own)}


def in_threads(work: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
    """`work` on every item, in threads that compute with one thread each; the order is that of the items."""
    return worker_threads(os.cpu_count() or 1).map(work, items)


def in_turn(work: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
    """`work` on every item, one after the other, where the caller is, as they are asked for."""
    return map(work, items)


@contextmanager
def steady(device: str) -> Iterator[None]:
    """Within the block sums have one order: torch takes one thread, and on CUDA attention that is the same each time.

    The faster kernels of attention add up gradients in any order.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with sdpa_kernel(SDPBackend.MATH) if device == "cuda" else nullcontext():
            yield
    finally:
        torch.set_num_threads(threads)
