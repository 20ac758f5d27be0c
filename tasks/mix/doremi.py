"""DoReMi (Xie et al., arXiv 2305.10429): weights by how much worse than a reference the proxy still is on each group.

Written after the Aioli repository's baseline. The reference is trained on the uniform mix; then a fresh proxy is
trained with weights that an exponentiated gradient moves by the excess losses. What differs from that code: it
back-propagates and clips group by group, here the weighted gradient is clipped once, as any step's; it looks at the
last of several micro-batches, here there is one batch a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from tasks.mix.course import Course, Diverged
from tasks.mix.simplex import finite, shares, tilted, uniform
from tasks.mix.stepwise import StepwiseMix, weighted

if TYPE_CHECKING:
    import torch

UNSEEN = 1e-6
"""Score of a group before it was in any batch."""


def update(
    weights: ArrayLike, excess: ArrayLike, previous: ArrayLike, mu: float = 1.0, smoothing: float = 1e-3
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the new weights and the scores that they were moved by: two float64 `(m,)`.

    Score: max(excess, 0); where the excess is NaN or exactly 0, the group was absent and keeps its previous score.
    Weights: w exp(mu score) over their sum, then (1 - smoothing) w + smoothing / m. (One reading of the paper has
    min(loss - reference, 0) instead; this is what the released code does.)

    Args:
        weights: `(m,)`, non-negative with sum one; array-likes on the CPU.
        excess: `(m,)`: loss less the reference's, in nats.
        previous: `(m,)`: the scores of the step before, at the first `UNSEEN`.
        mu: Step of the exponentiated gradient.
        smoothing: Share of the uniform mix in the result.

    Raises:
        ValueError: An argument is out of its bounds, or infinite.
    """
    old = shares("weights", weights)
    size = len(old)
    last = finite("previous", previous, size)
    given = np.asarray(excess, np.float64)
    absent = np.isnan(given) | (given == 0)
    if last.min() < 0 or not 0 <= smoothing < 1 or not np.isfinite(mu):
        raise ValueError(
            f"`previous` is {last.tolist()}, `smoothing` {smoothing}, `mu` {mu}; scores must be at least "
            "0, smoothing in [0, 1), mu finite"
        )
    scores = np.where(absent, last, np.maximum(finite("excess", np.where(absent, 0, given), size), 0))
    new = tilted(old, finite("mu * scores", mu * scores, size))
    return (1 - smoothing) * new + smoothing / size, scores


class DoremiMix(StepwiseMix):
    """A reference on the uniform mix, then one training whose weights move at every step; see the module."""

    run = 1

    def follow(self, course: Course) -> None:
        """Reference first; see `LearnedMix`."""
        config, values = self.config, course.values
        steps = config.reference_steps or config.steps
        course.begin(0, steps)
        if int(values["run"]) == 0:
            if "first" not in values:
                course.losses()
            course.train(uniform(course.groups), steps)
            values["reference_losses"] = course.losses()
            values |= {f"reference/{name}": weight for name, weight in course.proxy.weights().items()}
            values["scores"] = np.full(course.groups, UNSEEN)
        self._reference = {n.removeprefix("reference/"): v for n, v in values.items() if n.startswith("reference/")}
        super().follow(course)

    def weigh(self, course: Course) -> torch.Tensor:
        """See `StepwiseMix`."""
        values = course.values
        found = course.proxy.gradients(uniform(course.groups), self._reference)
        excess = found.losses - found.reference
        if np.isinf(excess).any():
            raise Diverged(f"the proxy's loss is not finite at step {course.proxy.step:,}")
        moved = update(values["weights"], excess, values["scores"], self.config.step_size, self.config.smoothing)
        values["weights"], values["scores"] = moved
        return weighted(found, values["weights"])

    def more(self, course: Course) -> dict[str, Any]:
        """What the reference reached."""
        return {"reference_losses": np.asarray(course.values.get("reference_losses", ())).tolist()}
