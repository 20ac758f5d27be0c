"""The course of a learned mix: a proxy in training, what was learned so far, and the checkpoint that both go to."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from storage.states import Checkpoint, State
from tasks import stopping
from tasks.mix.proxy import Proxy
from tasks.score.proxy_training import SAVE_SECONDS, SAVE_SHARE

PIECE = 8
"""Steps of a proxy at a time: between two of them it can be saved."""
TELL_SECONDS = 20.0
"""Between two lines about how far it is."""
TOLD_GROUPS = 8
"""Groups whose numbers such a line holds at most."""


class Diverged(Exception):
    """Raised when the losses of the proxy are not sound any more; the message says which."""


def too_high(first: float) -> float:
    """The mean loss, in nats, above which a proxy counts as diverged: a nat more than twice that before any training.

    A model that has learned nothing is at the first loss, and one that gets groups wrong which it has not seen for a
    while comes back from somewhat above; this is beyond both. No source gives a rule.
    """
    return first + abs(first) + 1.0


class Course:
    """One or several trainings of a proxy, numbered, one after the other, and the rounds of proportions they led to.

    A state is saved only where a method says so, between two pieces of work: what a method keeps in `values` and the
    proxy then belong together, and a method that is begun again with them goes on to the same bytes.

    Attributes:
        values: What the method knows, arrays by name.
        proxy: The one in training.
        rounds: Rounds that have proportions.
    """

    proxy: Any  # a Proxy, or a GradientProxy for the methods that need one

    def __init__(self, proxy: Proxy, kind: str, rounds: int, checkpoint: Checkpoint, names: Sequence[str] = ()) -> None:
        """Goes on from what is saved in `checkpoint`; the log tells the `rounds` to be had, and groups by `names`."""
        self._new, self._kind, self._of, self._checkpoint = proxy, kind, rounds, checkpoint
        self._names = names or [str(number + 1) for number in range(proxy.groups)]
        self.groups, self.proxy = proxy.groups, proxy
        self.values: State = {"run": np.int64(-1), "total": np.int64(0)}
        saved = checkpoint.load() or {}
        if "values/run" in saved:
            parts = {k: _under(f"{k}/", saved) for k in ("values", "proxy")}
            self.values = parts["values"]
            self.proxy = proxy.fresh(int(self.values["total"]))
            self.proxy.restore(parts["proxy"])
            checkpoint.tell(f"{kind}: goes on from {self._place()}")
        self._last, self._took, self._told = time.monotonic(), 0.0, time.monotonic()

    # ------------------------------------------------------------------------------------------------------- training
    def begin(self, run: int, total: int) -> None:
        """Go over to training number `run`, of a fresh proxy for `total` steps, unless it has begun already."""
        if int(self.values["run"]) < run:
            self.proxy = self._new.fresh(total)
            self.values |= {"run": np.int64(run), "total": np.int64(total)}

    def train(self, proportions: np.ndarray, until: int) -> None:
        """Train until step `until`, in pieces between which is saved."""
        while self.proxy.step < until:
            self.proxy.train(proportions, min(PIECE, until - self.proxy.step))
            self.save()

    def losses(self) -> np.ndarray:
        """Validation loss of each group: float64 `(m,)`.

        Raises:
            Diverged: One is not finite, or their mean is above `too_high` of that of the first ever measured.
        """
        losses = np.asarray(self.proxy.losses(), np.float64)
        mean = float(losses.mean())
        first = float(self.values.get("first", mean))
        if not math.isfinite(mean) or mean > too_high(first):
            before = f", before any training {first:.4g}" if "first" in self.values else ""
            where = f"step {self.proxy.step:,} of {self.proxy.total:,} of training {int(self.values['run']) + 1}"
            raise Diverged(f"the proxy diverged by {where}: its mean loss is {mean:.4g}{before}")
        self.values |= {"first": np.float64(first), "losses": losses}
        return losses

    # -------------------------------------------------------------------------------------------------------- results
    @property
    def rounds(self) -> int:
        """Rounds that have proportions."""
        return len(self.values.get("steps", ()))

    @property
    def proportions(self) -> np.ndarray:
        """Those of every round so far: float64 `(rounds, m)`."""
        return np.asarray(self.values.get("proportions", np.empty((0, self.groups))))

    def record(self, losses: np.ndarray, proportions: np.ndarray, matrix: np.ndarray | None = None) -> None:
        """Add a round: the losses that it was set by, its proportions, and the matrix behind them."""
        found = {"steps": np.int64(self.proxy.step), "round_losses": losses, "proportions": proportions}
        if matrix is not None:
            found["matrices"] = matrix
        for name, value in found.items():
            row = np.asarray(value)[None]
            self.values[name] = np.concatenate([self.values[name], row]) if name in self.values else row
        self.tell()

    def facts(self) -> dict[str, Any]:
        """`rounds` and `final_losses` as `tasks.mix.learning` describes them, JSON-ready."""
        values = self.values
        rounds = [
            {
                "step": int(values["steps"][r]),
                "losses": values["round_losses"][r].tolist(),
                "proportions": values["proportions"][r].tolist(),
                "matrix": values["matrices"][r].tolist() if "matrices" in values else None,
            }
            for r in range(self.rounds)
        ]
        return {"rounds": rounds, "final_losses": np.asarray(values.get("losses", ())).tolist()}

    # ------------------------------------------------------------------------------------------------- log, checkpoint
    def save(self) -> None:
        """Save, if the last time is long ago; tell how far it is now and then. Call it between two pieces of work.

        Raises:
            Interrupted: The run is to end; it is saved.
        """
        if time.monotonic() - self._told >= TELL_SECONDS:
            self.tell()
        began = time.monotonic()
        if stopping.is_told() or began - self._last >= max(SAVE_SECONDS, self._took / SAVE_SHARE):
            state = {f"values/{name}": value for name, value in self.values.items()}
            self._checkpoint.save(state | {f"proxy/{name}": value for name, value in self.proxy.state().items()})
            self._last = time.monotonic()
            self._took = self._last - began
        stopping.check()

    def tell(self) -> None:
        """Tell the log how far it is."""
        parts = [f"{self._kind}: {self._place()}"]
        if "losses" in self.values:
            parts.append(f"losses {self._numbers(self.values['losses'])}")
        if self.rounds:
            parts.append(f"proportions {self._numbers(self.proportions[-1])}")
        self._checkpoint.tell("; ".join(parts))
        self._told = time.monotonic()

    def _place(self) -> str:
        training = f"training {int(self.values['run']) + 1}, step {self.proxy.step:,} of {self.proxy.total:,}"
        return f"round {self.rounds} of {self._of}, {training}"

    def _numbers(self, values: np.ndarray) -> str:
        told = [f"{name} {value:.3f}" for name, value in zip(self._names, values, strict=True)]
        return ", ".join(told[:TOLD_GROUPS]) + (", …" if len(told) > TOLD_GROUPS else "")


def _under(prefix: str, state: State) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
