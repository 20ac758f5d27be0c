"""Data mixing laws (Ye et al., arXiv 2403.16952): a law fitted to trainings on several mixtures, and its best mixture.

Loss i of a mixture p is a_i exp((p M)_i) + b_i. Written after the Aioli repository's baseline (DML). What differs: the
fit starts at several floors b, at each from the least squares of log(loss - b), which is linear, and b is kept below
the lowest loss seen (and at 0 or above, if no loss is negative); the law is convex in p, so that its best mixture is
found on the simplex itself, by SLSQP from the uniform one, where the code runs Nelder-Mead on softmax.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from configs.errors import ConfigError
from tasks.mix.course import Course, Diverged
from tasks.mix.learning import LearnedMix
from tasks.mix.simplex import finite, shares, uniform

CONCENTRATION = 1.5
"""Of the Dirichlet distribution that mixtures are drawn from."""
OVERSAMPLED = 16
"""Mixtures drawn for each that is wanted."""
MOST_DRAWN = 1024
"""Or so many in all, but 2 for each at least: merging costs their number cubed."""
STARTS = (0.0, 0.5, 0.8, 0.95, 0.99)
"""Floors that a fit begins at, on the way from the lowest that is allowed to the lowest loss."""
REFINED = 2
"""Of these starts the best so many are gone on from."""


class Law(NamedTuple):
    """Parameters of the law; as shares have sum one, only a_i exp(M) is determined: columns of M have mean zero."""

    scale: np.ndarray
    """a: float64 `(m,)`."""
    matrix: np.ndarray
    """M: float64 `(m, m)`, [j, i] is the effect of group j on loss i, negative if the loss falls."""
    floor: np.ndarray
    """b: float64 `(m,)`."""

    def losses(self, mixtures: np.ndarray) -> np.ndarray:
        """What the law says of mixtures `(..., m)`: float64, as they are."""
        return self.scale * np.exp(mixtures @ self.matrix) + self.floor


def fit(losses: ArrayLike, mixtures: ArrayLike) -> Law:
    """Returns the law that is nearest to trainings, by non-linear least squares for each group; no chance is involved.

    Args:
        losses: `(N, m)`: loss of every group after each training, in nats; N must be above m.
        mixtures: `(N, m)`: shares that each was trained with.

    Raises:
        ValueError: Too few trainings, another shape, or a number that is not finite.
    """
    mixed = shares("mixtures", np.atleast_2d(np.asarray(mixtures, np.float64)))
    runs, size = mixed.shape
    if runs <= size:
        raise ValueError(f"`losses` has {runs} trainings; {size} groups need at least {size + 1}")
    values = finite("losses", losses, runs, size)
    logs, floors = zip(*(_fit_one(values[:, i], mixed) for i in range(size)), strict=True)
    matrix = np.stack(logs, axis=1)
    level = matrix.mean(axis=0)
    return Law(np.exp(level), matrix - level, np.array(floors))


def _fit_one(losses: np.ndarray, mixtures: np.ndarray) -> tuple[np.ndarray, float]:
    """t `(m,)` and b of exp(p t) + b: the best of what the nearest starts lead to."""
    from scipy.optimize import least_squares

    lowest, spread = float(losses.min()), float(np.ptp(losses))
    bottom = 0.0 if lowest >= 0 else lowest - 100 * spread - 1
    # A loss at the floor has no logarithm: floors stay a little below the lowest.
    top = lowest - 1e-6 * max(spread, abs(lowest), 1e-6)
    bottom = min(bottom, top - 1e-9)

    def off(at: np.ndarray) -> np.ndarray:
        return np.exp(np.minimum(mixtures @ at[:-1], 700.0)) + at[-1] - losses

    def slopes(at: np.ndarray) -> np.ndarray:
        raised = np.exp(np.minimum(mixtures @ at[:-1], 700.0))
        return np.column_stack([raised[:, None] * mixtures, np.ones(len(losses))])

    starts = []
    for share in STARTS:
        floor = bottom + (share + 1e-9) * (top - bottom)
        starts.append(np.append(np.linalg.lstsq(mixtures, np.log(losses - floor), rcond=None)[0], floor))
    starts.sort(key=lambda at: float(np.square(off(at)).sum()))
    free = np.full(mixtures.shape[1], np.inf)
    exact: dict[str, Any] = {"x_scale": "jac", "xtol": 1e-12, "ftol": 1e-14, "gtol": 1e-14, "max_nfev": 500}
    found = [
        least_squares(off, at, jac=slopes, bounds=(np.append(-free, bottom), np.append(free, top)), **exact)
        for at in starts[:REFINED]
    ]
    best = min(found, key=lambda one: float(one.cost)).x
    return best[:-1], float(best[-1])


def optimum(law: Law) -> np.ndarray:
    """Returns the mixture whose mean loss over groups is lowest by the law: float64 `(m,)`."""
    from scipy.optimize import minimize

    size = len(law.scale)
    scale = max(float(law.losses(uniform(size)).mean() - law.floor.mean()), 1e-300)

    def mean(at: np.ndarray) -> tuple[float, np.ndarray]:
        raised = law.scale * np.exp(at @ law.matrix) / (size * scale)
        return float(raised.sum()), law.matrix @ raised

    whole = {"type": "eq", "fun": lambda at: at.sum() - 1, "jac": lambda at: np.ones(size)}
    found = minimize(
        mean,
        uniform(size),
        jac=True,
        bounds=[(0, 1)] * size,
        constraints=[whole],
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    best = np.clip(found.x, 0, None)
    return best / best.sum() if np.isfinite(best).all() and best.sum() > 0 else uniform(size)


def pair_optimum(slopes: ArrayLike, intercepts: ArrayLike) -> float:
    """Returns the first share that is best for two losses c_i + exp(k_i p_i + b_i), both k negative, in [0, 1].

    In closed form: (k2 + b2 - b1 + ln(k2 / k1)) / (k1 + k2).
    """
    k, b = finite("slopes", slopes, 2), finite("intercepts", intercepts, 2)
    if k.max() >= 0:
        raise ValueError(f"`slopes` is {k.tolist()}; both must be negative: a group's own rows lower its loss")
    return float(np.clip((k[1] + b[1] - b[0] + math.log(k[1] / k[0])) / k.sum(), 0, 1))


def cover(groups: int, runs: int, seed: int) -> np.ndarray:
    """Returns mixtures that cover the simplex: float64 `(runs, groups)`.

    From many draws of a Dirichlet(1.5) distribution, the two nearest are replaced by their midpoint until `runs` are
    left.
    """
    rng = np.random.default_rng([seed, 89])
    drawn = runs * max(2, min(OVERSAMPLED, MOST_DRAWN // runs))
    points = rng.dirichlet(np.full(groups, CONCENTRATION), size=drawn)
    apart = np.stack([np.square(points - point).sum(1) for point in points])
    np.fill_diagonal(apart, np.inf)
    left = np.ones(drawn, bool)
    for _ in range(drawn - runs):
        one, other = np.unravel_index(np.argmin(apart), apart.shape)
        points[one] = (points[one] + points[other]) / 2
        left[other] = False
        away = np.where(left, np.square(points - points[one]).sum(1), np.inf)
        away[one] = np.inf
        apart[one], apart[:, one], apart[other], apart[:, other] = away, away, np.inf, np.inf
    return points[left]


class MixingLawMix(LearnedMix):
    """A fresh proxy is trained on each mixture of a cover; the law fitted to their losses gives one mixture.

    A training that diverges is left out of the fit and told; with too few others learning stops.
    """

    def __init__(self, config: Any, *, seed: int) -> None:
        super().__init__(config, seed=seed)
        self.libraries = (*self.libraries, "scipy")

    def begins_with(self, names: list[str]) -> np.ndarray:
        """Uniform; see `LearnedMix`."""
        runs = self._runs(len(names))
        if runs <= len(names):
            raise ConfigError(f"`mix.runs` is {runs}; {len(names)} groups need at least {len(names) + 1} to fit a law")
        return uniform(len(names))

    def _runs(self, groups: int) -> int:
        return int(self.config.runs or 3 * groups)

    def follow(self, course: Course) -> None:
        """See `LearnedMix`."""
        config, values, m = self.config, course.values, course.groups
        mixtures = cover(m, self._runs(m), self.seed)
        values.setdefault("run_losses", np.full(mixtures.shape, np.nan))
        for run in range(max(0, int(values["run"])), len(mixtures)):
            course.begin(run, config.steps)
            if "first" not in values:
                course.losses()
            course.train(mixtures[run], config.steps)
            with suppress(Diverged):  # its row stays NaN
                values["run_losses"][run] = course.losses()
        sound = np.isfinite(values["run_losses"]).all(axis=1)
        if sound.sum() <= m:
            raise Diverged(
                f"the proxy diverged in {int((~sound).sum())} of {len(mixtures)} trainings; a law of {m} groups needs "
                f"at least {m + 1} sound ones"
            )
        losses = values["run_losses"][sound]
        law = fit(losses, mixtures[sound])
        off = np.square(law.losses(mixtures[sound]) - losses).sum(0)
        explained = 1 - off / np.maximum(np.square(losses - losses.mean(0)).sum(0), 1e-300)
        values |= {"mixtures": mixtures, **law._asdict(), "r2": explained}
        values["losses"] = losses[np.argmin(losses.mean(axis=1))]
        course.record(values["losses"], optimum(law))

    def doubts(self, course: Course) -> list[str]:
        """Trainings that are left out."""
        losses = course.values.get("run_losses", np.zeros((0, 1)))
        out = int(np.isnan(losses).any(axis=1).sum()) if course.rounds else 0
        return [f"{out} of {len(losses)} trainings diverged and are left out of the law"] if out else []

    def more(self, course: Course) -> dict[str, Any]:
        """The trainings, the law, how much of the losses' variance it explains, what it says of its best mixture."""
        values = course.values
        if not course.rounds:
            return {}
        runs = [
            {"mixture": mixture.tolist(), "losses": losses.tolist() if np.isfinite(losses).all() else None}
            for mixture, losses in zip(values["mixtures"], values["run_losses"], strict=True)
        ]
        law = Law(values["scale"], values["matrix"], values["floor"])
        told = {name: value.tolist() for name, value in law._asdict().items()} | {"r2": values["r2"].tolist()}
        return {"runs": runs, "law": told, "predicted_losses": law.losses(course.proportions[-1]).tolist()}
