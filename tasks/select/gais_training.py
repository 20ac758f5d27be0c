"""Training of the graph attention network (GAIS-style, reconstructed): focal loss, Adam, early stop, best epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.select.gais_graphs import Nodes
from tasks.select.gais_network import Network, steady, steps, tensors

if TYPE_CHECKING:
    import torch

    from tasks.select.gais_attention import Arcs

State = dict[str, Any]
PLATEAU, FLOOR = 10, 1e-5


class Training:
    """A network, its optimiser, and the graphs it learns from and stops by.

    Attributes:
        epoch: Epochs done.
        best: Lowest validation loss so far (training loss where nothing is held out).
        losses: That loss after every epoch.
    """

    def __init__(self, network: Network, learn: tuple[np.ndarray, np.ndarray, Nodes], stop: Any, *, seed: int) -> None:
        import torch

        self.network, self._seed = network, seed
        self._learn, self._stop = self._steps(*learn), self._steps(*stop) if stop else None
        counts = np.bincount(learn[1], minlength=network.scale.shape[0])
        weights = np.where(counts, len(learn[1]) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 0)
        self._weights = torch.from_numpy(weights.astype(np.float32)).to(network.device)
        config = network.config
        self._parameters = network.parameters()
        self._adam = torch.optim.Adam(self._parameters.values(), lr=config.learning_rate)
        self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._adam, "min", factor=0.5, patience=PLATEAU, min_lr=FLOOR
        )
        self.epoch, self.best, self.losses, self._since = 0, float("inf"), [], 0  # type: ignore[var-annotated]
        self._kept = self._copied()

    @property
    def done(self) -> bool:
        """Whether there is nothing more to learn."""
        return self.epoch >= self.network.config.epochs or self._since >= self.network.config.patience

    def run(self, saved: Callable[[State], None] | None = None) -> Network:
        """Train to the end and give back the best epoch's network; `saved` is told the state after every epoch."""
        import torch

        while not self.done:
            self.advance()
            if saved:
                saved(self.state())
        with torch.no_grad():
            for name, value in self._kept.items():
                self._parameters[name].copy_(value)
        return self.network

    def advance(self) -> None:
        """One epoch."""
        with steady([self._seed, 1, self.epoch]):
            order = np.random.default_rng([self._seed, self.epoch]).permutation(len(self._learn))
            self.network.layers.train()
            losses = [self._stepped(*self._learn[place]) for place in order]
            if self._stop is not None:
                losses = self._measured(self._stop)
        loss = float(np.average([value for value, _ in losses], weights=[n for _, n in losses]))
        self._plateau.step(loss)
        self.epoch += 1
        self.losses.append(loss)
        self._since += 1
        if loss < self.best:
            self.best, self._since, self._kept = loss, 0, self._copied()

    def _stepped(self, x: torch.Tensor, along: Arcs, y: torch.Tensor) -> tuple[float, int]:
        self._adam.zero_grad(set_to_none=True)
        loss = self._loss(x, along, y)
        loss.backward()
        self._adam.step()
        return float(loss.detach()), len(y)

    def _measured(self, every: list[Any]) -> list[tuple[float, int]]:
        import torch

        self.network.layers.eval()
        with torch.no_grad():
            return [(float(self._loss(*step)), len(step[2])) for step in every]

    def _loss(self, x: torch.Tensor, along: Arcs, y: torch.Tensor) -> torch.Tensor:
        """Mean of w_y * -log p_y * (1 - p_y)^gamma, w balanced class weights."""
        own = self.network.forward(x, along, y).gather(1, y[:, None])[:, 0]
        return (self._weights[y] * -own * (1 - own.exp()).clamp(min=1e-12) ** self.network.config.focus).mean()

    def _steps(self, x: np.ndarray, y: np.ndarray, nodes: Nodes) -> list[Any]:
        return [tensors(self.network, x, y, nodes.rows[step.nodes], step.edges) for step in steps(nodes)]

    def _copied(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self._parameters.items()}

    def state(self) -> State:
        """All that `restore` needs, as arrays."""
        state: State = {"epoch": np.int64(self.epoch), "since": np.int64(self._since), "losses": np.array(self.losses)}
        state |= {f"weight/{name}": value for name, value in self._copied().items()}
        state |= {f"best/{name}": value for name, value in self._kept.items()}
        for name, parameter in self._parameters.items():
            state |= {f"adam/{key}/{name}": value for key, value in self._adam.state.get(parameter, {}).items()}
        plateau = {key: self._plateau.state_dict()[key] for key in ("best", "num_bad_epochs", "last_epoch")}
        state |= {f"plateau/{key}": np.float64(value) for key, value in plateau.items()}
        state["rate"] = np.float64(self._adam.param_groups[0]["lr"])
        # Copies: Adam changes its moments in place.
        return {
            name: np.array(value.numpy(force=True) if hasattr(value, "numpy") else value)
            for name, value in state.items()
        }

    def restore(self, state: State) -> None:
        """Go on from `state`, as if nothing had happened."""
        import torch

        device = self.network.device
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(torch.from_numpy(state[f"weight/{name}"]))
                self._kept[name] = torch.from_numpy(state[f"best/{name}"]).to(device)
                keys = ("step", "exp_avg", "exp_avg_sq")
                moments = {k: torch.from_numpy(np.array(state[f"adam/{k}/{name}"])) for k in keys}
                self._adam.state[parameter] = {k: v if k == "step" else v.to(device) for k, v in moments.items()}
        self._plateau.best = float(state["plateau/best"])
        self._plateau.num_bad_epochs = int(state["plateau/num_bad_epochs"])
        self._plateau.last_epoch = int(state["plateau/last_epoch"])
        self._adam.param_groups[0]["lr"] = float(state["rate"])
        self.epoch, self._since, self.losses = int(state["epoch"]), int(state["since"]), state["losses"].tolist()
        self.best = min(self.losses, default=float("inf"))
