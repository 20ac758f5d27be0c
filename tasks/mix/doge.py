"""DoGE (Fan et al., arXiv 2310.15393): weights by how well each group's gradient agrees with that of validation rows.

Written after the Aioli repository's baseline. What differs from that code: training and validation rows are two batches
of full size instead of parts of one, and the sum of the clipped gradients is clipped once more, as any step's.
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

CLIP = 1.0
"""Largest norm of a gradient."""
HIGHEST = 5.0
"""Times the learning rate: the highest score."""


def update(
    weights: ArrayLike, gradients: Any, validation: Any, rate: float, mu: float = 0.01
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the new weights and the scores that they were moved by: two float64 `(m,)`.

    With gradients clipped to norm 1: score_i = rate <g_i, g_v> / (mean of the norms |g_i| + 1e-6), within
    [0, 5 rate]. Weights: w exp(score / mu) over their sum.

    Args:
        weights: `(m,)`, non-negative with sum one.
        gradients: `(m, P)`: of each group's loss; 0 of an absent group. A numpy array, or a tensor on any device.
        validation: `(P,)`, likewise.
        rate: The learning rate.
        mu: What scores are divided by.

    Raises:
        ValueError: An argument is out of its bounds, or not finite.
    """
    old = shares("weights", weights)
    if tuple(gradients.shape) != (len(old), len(validation)):
        raise ValueError(
            f"`gradients` has shape {tuple(gradients.shape)}; it must be {(len(old), len(validation))}, a row for each "
            "of `weights` as long as `validation`"
        )
    if not (rate > 0 and mu > 0 and np.isfinite([rate, mu]).all()):
        raise ValueError(f"`rate` is {rate} and `mu` {mu}; both must be above 0 and finite")
    norms, own = group_norms(gradients), group_norms(validation[None])[0]
    return _moved(old, norms, _floats(gradients @ validation), own, rate, mu)


def _moved(
    old: np.ndarray, norms: np.ndarray, dots: np.ndarray, own: float, rate: float, mu: float
) -> tuple[np.ndarray, np.ndarray]:
    """As `update`, of the norms of the groups' gradients and their products with the validation rows': `(m,)` each."""
    dots = finite("gradients @ validation", dots, len(old)) * _clip(norms) * _clip(own)
    mean = float((norms * _clip(norms)).mean())
    scores = np.clip(rate * dots / (mean + 1e-6), 0.0, HIGHEST * rate)
    return tilted(old, scores / mu), scores


def group_norms(gradients: Any) -> np.ndarray:
    """Norm of each row: float64 `(m,)`; no copy of the gradients is made."""
    return np.sqrt([float(row @ row) for row in gradients])


def _clip(norms: Any) -> Any:
    return np.minimum(1.0, CLIP / np.maximum(norms, 1e-12))


def _floats(values: Any) -> np.ndarray:
    """An array, or a tensor on any device, as float64."""
    return np.array(values.tolist(), np.float64)


class DogeMix(StepwiseMix):
    """One training whose weights move at every step; see the module."""

    def weigh(self, course: Course) -> torch.Tensor:
        """See `StepwiseMix`."""
        proxy, values = course.proxy, course.values
        found, wanted = proxy.gradients(uniform(course.groups)), proxy.validation_gradient()
        norms, dots = np.zeros((2, course.groups))  # 0 of the groups that are not in the batch
        norms[found.there], own = group_norms(found.vectors), group_norms(wanted[None])[0]
        if not np.isfinite([*norms, own]).all():
            raise Diverged(f"the proxy's gradient is not finite at step {proxy.step:,}")
        dots[found.there] = _floats(found.vectors @ wanted)
        values["weights"], _ = _moved(values["weights"], norms, dots, own, proxy.rate(), self.config.mu)
        return weighted(found, values["weights"] * _clip(norms))
