"""Skill-It (Chen et al., arXiv 2307.14430): weights by recent losses, spread over a graph of who learns from whom.

Written after the Aioli repository's baseline. graph[i, j] is the share of its loss that group j loses when a fresh
proxy is trained on group i alone, so row i is what training on i does for all (the notebooks say that their stored
matrix is transposed against the paper's). What differs from that code: losses are those at the beginnings of the last
rounds instead of twenty checkpoints a run, and an entry beside the diagonal that is exactly 1 stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tasks.mix.course import Course
from tasks.mix.learning import LearnedMix
from tasks.mix.simplex import finite, tilted, uniform


def update(graph: ArrayLike | None, window: ArrayLike, eta: float = 0.2) -> np.ndarray:
    """Returns proportions w_i = exp(eta sum_j graph_ij L_j) over their sum, L the sum of `window`: float64 `(m,)`.

    They do not depend on the proportions before. At the start, when there are no losses yet, `window` is one row of 1.

    Args:
        graph: `(m, m)`, array-like on the CPU; None: the identity, which favours the group with the largest loss.
        window: `(w, m)`: the last w validation losses of every group, in nats.
        eta: Step size.

    Raises:
        ValueError: An argument is of another shape, or not finite.
    """
    losses = np.asarray(window, np.float64)
    if losses.ndim != 2 or not losses.size:
        raise ValueError(f"`window` has shape {losses.shape}; it must have a row of losses for each round")
    size = losses.shape[1]
    total = finite("window", losses, *losses.shape).sum(axis=0)
    matrix = np.eye(size) if graph is None else finite("graph", graph, size, size)
    if not np.isfinite(eta):
        raise ValueError(f"`eta` is {eta}; it must be finite")
    return tilted(uniform(size), finite("eta * graph @ losses", eta * (matrix @ total), size))


def gained(before: ArrayLike, after: ArrayLike) -> np.ndarray:
    """A row of the graph: the share of its loss that each group lost, 0 of one that had none: float64 `(m,)`."""
    start, end = np.asarray(before, np.float64), np.asarray(after, np.float64)
    return np.where(start > 0, (start - end) / np.where(start > 0, start, 1.0), 0.0)


class SkillItMix(LearnedMix):
    """A fresh proxy on each group alone measures the graph, then one training follows it; see the module."""

    def follow(self, course: Course) -> None:
        """See `LearnedMix`."""
        config, values, m = self.config, course.values, course.groups
        length = config.steps // config.rounds
        self._measure(course, config.graph_steps or length)
        course.begin(m, config.steps)
        while True:
            done = course.rounds
            if done:
                course.train(course.proportions[-1], done * length)
            losses = course.losses()
            if done == config.rounds:
                return
            # As in the code, the first proportions are by the graph alone.
            window = np.ones((1, m))
            if done:
                window = np.concatenate([values["round_losses"], losses[None]])[-config.window :]
            course.record(losses, update(values["graph"], window, config.eta))
            course.save()

    def _measure(self, course: Course, steps: int) -> None:
        """The graph, row by row: float64 `(m, m)`."""
        values, m = course.values, course.groups
        values.setdefault("graph", np.zeros((m, m)))
        for group in range(max(0, int(values["run"])), m):
            course.begin(group, steps)
            if "untrained" not in values:
                values["untrained"] = course.losses()
            course.train(np.eye(m)[group], steps)
            values["graph"][group] = gained(values["untrained"], course.losses())

    def more(self, course: Course) -> dict[str, Any]:
        """The graph."""
        return {"graph": np.asarray(course.values["graph"]).tolist()}
