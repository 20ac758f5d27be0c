"""Aioli (Chen et al., arXiv 2411.05735): proportions by the effect that training on each group has on each loss.

Within one training, each round begins with short bursts of perturbed mixtures. The drops of the validation losses over
them give the matrix A, A[i, j] being the effect on loss i of training on j; proportions then move by an exponentiated
gradient on its column sums. Written after the released code (`HazyResearch/aioli`), whose order of steps it keeps. What
differs: the solve takes the mixtures that the bursts' batches really had, where the code rounds batches in a way that
can leave a group out and still assumes the intended ones; the update without a moving average is the paper's, and the
default, where the released scripts all take the other; a prior with no steps is refused, where the code never ends.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from configs.errors import ConfigError
from tasks.mix.course import Course
from tasks.mix.group_streams import composed_counts
from tasks.mix.learning import LearnedMix
from tasks.mix.simplex import finite, shares, tilted, uniform

CONDITION = 1e6
"""Highest condition number of mixtures that a matrix is solved for; beyond it, only noise is blown up."""


def perturbed(groups: int, one_hot_factor: float = 1.0) -> np.ndarray:
    """Mixtures of the bursts: row j has share a for group j, (1 - a) / (m - 1) for the others: float64 `(m, m)`.

    With a share epsilon of the uniform mix in each, a = 1 - epsilon + epsilon / m. With one group it is [[1]].

    Raises:
        ValueError: a is not in (1/m, 1]; at 1/m all rows are the same, and nothing can be solved for.
    """
    if groups < 1:
        raise ValueError(f"`groups` is {groups}; it must be at least 1")
    if not (1 / groups < one_hot_factor <= 1 or (groups == 1 and 0 < one_hot_factor <= 1)):
        raise ValueError(f"`one_hot_factor` is {one_hot_factor}; with {groups} groups it must be in (1/{groups}, 1]")
    rest = (1 - one_hot_factor) / max(1, groups - 1)
    return np.full((groups, groups), rest) + np.eye(groups) * ((one_hot_factor if groups > 1 else 1.0) - rest)


def mixing_matrix(
    loss_drops: ArrayLike,
    one_hot_factor: float | None = None,
    *,
    mixtures: ArrayLike | None = None,
    diagonal: bool = False,
) -> np.ndarray:
    """Returns A: float64 `(m, m)`, A[i, j] the effect on loss i of training on group j, positive if the loss falls.

    Row i of A solves W A[i] = G[i], G being the drops and W the mixtures, so that A reproduces every drop (aioli 3).
    Row sums are kept where mixtures are symmetric, as `perturbed` ones are. One-hot mixtures give A = G.

    Args:
        loss_drops: `(m, m)`: [i, j] is the mean drop of loss i over a burst on group j; array-likes on the CPU.
        one_hot_factor: a, of `perturbed` mixtures; None: one-hot.
        mixtures: `(m, m)`: row j holds the shares that batches of the burst on j really had; they go before a.
        diagonal: Ablation: A[i, i] = G[i, i] / W[i, i], zero elsewhere.

    Raises:
        ValueError: Something is not finite, or of another shape; rows of `mixtures` are no shares, or (nearly) linearly
            dependent; a is not in (1/m, 1].
    """
    given = np.asarray(loss_drops, np.float64)
    if given.ndim != 2 or not given.size or given.shape[0] != given.shape[1]:
        raise ValueError(f"`loss_drops` has shape {given.shape}; it must be a square matrix")
    size = len(given)
    drops = finite("loss_drops", given, size, size)
    if mixtures is None:
        weights = perturbed(size, 1.0 if one_hot_factor is None else one_hot_factor)
    else:
        weights = shares("mixtures", finite("mixtures", mixtures, size, size))
    if diagonal:
        own = weights.diagonal()
        if own.min() <= 0:
            raise ValueError(f"`mixtures` has {own.tolist()} on its diagonal; each burst must train on its own group")
        return np.diag(drops.diagonal() / own)
    if not solvable(weights):
        raise ValueError(f"`mixtures` is {weights.tolist()}; its rows must not be (nearly) linearly dependent")
    return np.linalg.solve(weights, drops.T).T


def solvable(mixtures: np.ndarray) -> bool:
    """Whether a matrix can be solved for: the condition number is at most `CONDITION`."""
    return bool(np.linalg.cond(mixtures) <= CONDITION)


def normalise(matrix: ArrayLike) -> np.ndarray:
    """Returns the matrix with its lowest entry subtracted if that is negative, over its sum: float64, as `matrix`.

    All entries are then at least 0 and have sum one, so that the column sums are shares. Where nothing is left to be
    divided (all entries zero, or all equal and negative), every entry is 1/m²: no group is preferred.

    Raises:
        ValueError: An entry is not finite, or there is none.
    """
    given = np.asarray(matrix, np.float64)
    values = finite("matrix", given, *given.shape)
    if not values.size:
        raise ValueError(f"`matrix` has shape {values.shape}; it must have entries")
    highest = np.abs(values).max()
    values = values / highest if highest > 0 else values  # so that neither difference nor sum overflows
    values = values - min(0.0, values.min())
    total = values.sum()
    return values / total if total > 0 else np.full(values.shape, 1 / values.size)


def update(
    proportions: ArrayLike,
    matrix: ArrayLike,
    eta: float,
    *,
    ema: float | None = None,
    state: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the next proportions, float64 `(m,)`, and the next state.

    Without `ema`, the paper's cumulative update: p_j exp(eta c_j) over their sum, c the column sums of `matrix`, in
    logs. Log ratios can grow by eta a round; a share that becomes 0 stays 0. There is no state.

    With `ema`, the restarting update of the released scripts: the state is E = (1 - ema) matrix + ema E_before, in the
    first round the matrix itself, and p_j is exp(eta e_j) over their sum, e the column sums of E. It restarts from
    uniform every round, so that with a normalised matrix no two groups are ever further apart than a factor of e^eta.

    Args:
        proportions: `(m,)`, non-negative with sum one; array-likes on the CPU.
        matrix: `(m, m)`, as `normalise` returns it, or as it is.
        eta: Step size; 0 changes nothing.
        ema: Weight of the earlier rounds' matrices, in [0, 1).
        state: What the round before returned.

    Raises:
        ValueError: An argument is out of its bounds, or not finite.
    """
    old = shares("proportions", proportions)
    size = len(old)
    effects = finite("matrix", matrix, size, size)
    if not np.isfinite(eta):
        raise ValueError(f"`eta` is {eta}; it must be finite")
    if ema is not None:
        if not 0 <= ema < 1:
            raise ValueError(f"`ema` is {ema}; it must be in [0, 1)")
        if state is not None:
            effects = (1 - ema) * effects + ema * finite("state", state, size, size)
        old, state = uniform(size), effects
    return tilted(old, finite("eta * column sums", eta * effects.sum(axis=0), size)), state


def fidelity(matrix: ArrayLike, truth: ArrayLike) -> float:
    """Returns how well a matrix tells the truth about groups, in [-1, 1]: sim(A, A*) of the paper.

    The mean of cosine and Spearman's correlation of the two vectors of column sums. Either is 1 if both vectors are
    constant (for the cosine: zero), 0 if one is.
    """
    from scipy.stats import rankdata

    one, other = (np.asarray(values, np.float64).sum(axis=0) for values in (matrix, truth))
    ranks = [rankdata(sums) - (len(sums) + 1) / 2 for sums in (one, other)]
    return 0.5 * (_cosine(one, other) + _cosine(*ranks))


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    norms = np.linalg.norm(one), np.linalg.norm(other)
    return float(one @ other / (norms[0] * norms[1])) if min(norms) > 0 else float(norms[0] == norms[1])


class AioliMix(LearnedMix):
    """One training, whose rounds measure the matrix and then train on; see the module.

    Restricted mode trains with `prior` first; the rounds then begin from uniform, as in the released code.
    """

    @property
    def mode(self) -> str:
        """`restricted` with a prior."""
        return "restricted" if self.config.prior else "unrestricted"

    def begins_with(self, names: list[str]) -> np.ndarray:
        """The prior, or uniform; see `LearnedMix`."""
        config, m = self.config, len(names)
        needed = config.sweeps_of(m) * config.burst_steps * m
        if needed > config.round_steps:
            raise ConfigError(
                f"`mix.sweeps` {config.sweeps_of(m)} x `mix.burst_steps` {config.burst_steps} x {m} groups are "
                f"{needed:,} steps, and a round has {config.round_steps:,}; take more `steps`, fewer `rounds`, or "
                "fewer sweeps or steps of a burst"
            )
        self._check_apart(m)
        self._prior = uniform(m)
        if config.prior:
            self._prior = np.array([config.prior.get(name, 0.0) for name in names])
            if self._prior.sum() <= 0:
                raise ConfigError(
                    f"`mix.prior` is {config.prior}; one of the groups that can be learned on needs a share above 0: "
                    f"{', '.join(names)}"
                )
            self._prior = self._prior / self._prior.sum()
        return self._prior

    def knows(self, names: list[str]) -> list[str]:
        """See `LearnedMix`; `prior` names groups that there are."""
        prior = self.config.prior or {}
        unknown = sorted(set(prior) - set(names))
        if unknown:
            raise ConfigError(
                f"`mix.prior` names {unknown[0]!r}, but no row of that group survived selection; the groups are "
                f"{', '.join(names)}"
            )
        total = sum(prior.values())
        return [f"`prior` has sum {total:g}; it is normalised to one"] if prior and abs(total - 1) > 1e-6 else []

    def follow(self, course: Course) -> None:
        """See `LearnedMix`."""
        config, values = self.config, course.values
        course.begin(0, config.steps)
        if "first" not in values:
            course.losses()
        course.train(self._prior, config.prior_steps)
        while True:
            done = course.rounds
            if done:
                course.train(course.proportions[-1], config.prior_steps + done * config.round_steps)
            if done == config.rounds:
                course.losses()
                return
            self._sweep(course)
            matrix = self._matrix(course)
            before = course.proportions[-1] if done else uniform(course.groups)
            after, state = update(before, matrix, config.eta, ema=config.ema, state=values.get("ema"))
            course.record(values["opened"], after, matrix)
            if state is not None:
                values["ema"] = state
            del values["burst"]
            course.save()

    def _sweep(self, course: Course) -> None:
        """Train every perturbed mixture `sweeps` times; sums of drops and realised mixtures are in the values."""
        config, values, m = self.config, course.values, course.groups
        if "burst" not in values:
            values["opened"] = values["before"] = course.losses()
            values |= {"burst": np.int64(0), "drops": np.zeros((m, m)), "mixtures": np.zeros((m, m))}
        wanted = perturbed(m, self._one_hot_factor(m))
        rng = np.random.default_rng([self.seed, course.rounds, 83])
        order = np.concatenate([rng.permutation(m) for _ in range(config.sweeps_of(m))])
        for burst in range(int(values["burst"]), len(order)):
            group = order[burst]
            values["mixtures"][group] += course.proxy.train(wanted[group], config.burst_steps, composed=True)
            losses = course.losses()
            values["drops"][:, group] += values["before"] - losses
            values["before"], values["burst"] = losses, np.int64(burst + 1)
            course.save()

    def _check_apart(self, groups: int) -> None:
        """Raise ConfigError if the mixtures that the bursts' batches will really have cannot be told apart."""
        config, realised = self.config, np.zeros((groups, groups))
        for row, wanted in zip(realised, perturbed(groups, self._one_hot_factor(groups)), strict=True):
            owed = np.zeros(groups)
            for _ in range(config.burst_steps):
                counts, owed = composed_counts(wanted, config.batch_size, owed)
                row += counts / (config.batch_size * config.burst_steps)
        if not (realised.diagonal().all() if config.diagonal else solvable(realised)):
            raise ConfigError(
                f"the batches of {config.burst_steps} steps of {config.batch_size} rows cannot tell the {groups} "
                "groups apart; take a larger `batch_size` or `burst_steps`, or a lower `perturbation`"
            )

    def _one_hot_factor(self, groups: int) -> float:
        return 1 - self.config.perturbation + self.config.perturbation / groups

    def _matrix(self, course: Course) -> np.ndarray:
        """The round's matrix, normalised if that is wanted."""
        config = self.config
        sweeps = config.sweeps_of(course.groups)
        mixtures = course.values["mixtures"] / sweeps
        matrix = mixing_matrix(course.values["drops"] / sweeps, mixtures=mixtures, diagonal=config.diagonal)
        return normalise(matrix) if config.normalise else matrix

    def more(self, course: Course) -> dict[str, Any]:
        """Delta, the share of bursts among a round's steps, and what the bursts were."""
        config = self.config
        sweeps = config.sweeps_of(course.groups)
        used = sweeps * config.burst_steps * course.groups
        told: dict[str, Any] = {
            "delta": used / config.round_steps,
            "sweeps": sweeps,
            "one_hot_factor": self._one_hot_factor(course.groups),
        }
        told["form"] = "cumulative" if config.ema is None else "restarting, with a moving average"
        return told | ({"prior": self._prior.tolist(), "prior_steps": config.prior_steps} if config.prior else {})
