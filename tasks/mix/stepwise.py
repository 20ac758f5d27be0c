"""Laws that weigh groups anew at every step of one training, by what its batch says of each (DoReMi, DoGE).

Batches have the same share of every group; what is weighed are the gradients. A round's proportions are the mean of the
weights of its steps, so that the mean over the rounds is that over all steps, which is what both papers take over.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tasks.mix.course import Course, Diverged
from tasks.mix.learning import LearnedMix
from tasks.mix.proxy import GroupGradients
from tasks.score.proxy_training import steady

if TYPE_CHECKING:
    import torch


class StepwiseMix(LearnedMix):
    """Base of such laws; one of its own has `weigh`."""

    run = 0
    """Number of the training among those of the course."""

    def follow(self, course: Course) -> None:
        """One training; see `LearnedMix`."""
        config, values = self.config, course.values
        course.begin(self.run, config.steps)
        length = config.steps // config.rounds
        values.setdefault("weights", np.full(course.groups, 1.0 / course.groups))
        values.setdefault("sum", np.zeros(course.groups))
        if "first" not in values:
            course.losses()
        while course.rounds < config.rounds:
            with steady(self.device):
                while course.proxy.step < (course.rounds + 1) * length:
                    self._step(course)
            losses = course.losses()
            course.record(losses, values["sum"] / values["sum"].sum())
            values["sum"] = np.zeros(course.groups)
            course.save()

    def _step(self, course: Course) -> None:
        gradient = self.weigh(course)
        if not math.isfinite(float(gradient.sum())):
            raise Diverged(f"the proxy's gradient is not finite at step {course.proxy.step:,}")
        course.values["sum"] = course.values["sum"] + course.values["weights"]
        course.proxy.apply(gradient)
        course.save()

    def weigh(self, course: Course) -> torch.Tensor:
        """Set `weights` by the next batch; returns the gradient to apply, float32 `(P,)`."""
        raise NotImplementedError


def weighted(found: GroupGradients, weights: np.ndarray) -> torch.Tensor:
    """Sum over groups of weight, float64 `(m,)`, times gradient: float32 `(P,)`, on the gradients' device."""
    import torch

    vectors = found.vectors
    return torch.as_tensor(weights[found.there], dtype=vectors.dtype, device=vectors.device) @ vectors
