"""Data mixing laws: the fit and the optimum against laws that are known, the cover, and whole learning."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_world import LinearWorld, install, learned

from configs.errors import ConfigError
from configs.methods.learned import MixingLaw
from tasks.mix.mixing_law import Law, MixingLawMix, cover, fit, optimum, pair_optimum

START = np.array([4.0, 4.0, 4.0])


def pair(slopes, intercepts, floors=(0.0, 0.0)):
    """Two losses c_i + exp(k_i p_i + b_i) as a law."""
    return Law(np.exp(intercepts), np.diag(slopes), np.array(floors))


def some_law(size, seed):
    rng = np.random.default_rng(seed)
    matrix = -rng.uniform(0, 0.6, (size, size)) - np.diag(rng.uniform(0.5, 2, size))
    return Law(rng.uniform(0.5, 2, size), matrix, rng.uniform(1, 3, size))


@pytest.mark.parametrize(
    ("slopes", "intercepts", "share"),
    [
        ((-3.0, -2.0), (-0.6, -0.5), 0.461093),
        ((-2.99978, -2.64617), (-0.61924, -0.12864), 0.40401),  # arXiv and StackExchange, seed 0 of the repository
        ((-1.0, -1.0), (0.0, 5.0), 0.0),
        ((-1.0, -1.0), (5.0, 0.0), 1.0),
    ],
)
def test_the_optimum_of_two_groups(slopes, intercepts, share):
    assert pair_optimum(slopes, intercepts) == pytest.approx(share, abs=5e-6)
    best = pair_optimum(slopes, intercepts)
    np.testing.assert_allclose(optimum(pair(slopes, intercepts)), [best, 1 - best], atol=1e-6)


@settings(max_examples=25)
@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_no_mixture_is_better_than_the_optimum(size, seed):
    law = some_law(size, seed)
    best = optimum(law)
    assert best.min() >= 0 and best.sum() == pytest.approx(1)
    others = np.random.default_rng(seed).dirichlet(np.full(size, 0.7), 400)
    nearby = 0.98 * best + 0.02 * others
    assert law.losses(best).mean() <= law.losses(np.concatenate([others, nearby])).mean(axis=-1).min() + 1e-9


@settings(max_examples=8)
@given(st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_a_law_is_found_again(size, seed):
    law = some_law(size, seed)
    mixtures = cover(size, 6 * size, 3)
    told = fit(law.losses(mixtures), mixtures)
    others = np.random.default_rng(seed).dirichlet(np.ones(size), 50)
    np.testing.assert_allclose(told.losses(others), law.losses(others), atol=2e-4)
    np.testing.assert_allclose(told.matrix.mean(axis=0), 0, atol=1e-12)
    again = fit(law.losses(mixtures), mixtures)
    assert all(one.tobytes() == other.tobytes() for one, other in zip(told, again))


def test_a_law_is_found_through_noise_and_where_nothing_changes():
    law, mixtures = some_law(3, 1), cover(3, 30, 3)
    noisy = law.losses(mixtures) + np.random.default_rng(0).normal(size=(30, 3)) * 0.01
    assert np.abs(optimum(fit(noisy, mixtures)) - optimum(law)).max() < 0.1
    flat = fit(np.full((30, 3), 2.0), mixtures)
    np.testing.assert_allclose(flat.losses(mixtures), 2.0, atol=1e-6)
    assert np.isfinite(optimum(flat)).all()
    negative = fit(law.losses(mixtures) - 5, mixtures)
    np.testing.assert_allclose(negative.losses(mixtures), law.losses(mixtures) - 5, atol=1e-3)


def test_the_cover_is_of_shares_that_keep_apart():
    points = cover(3, 9, 0)
    assert points.shape == (9, 3) and points.min() >= 0
    np.testing.assert_allclose(points.sum(axis=1), 1, atol=1e-12)
    assert points.tobytes() == cover(3, 9, 0).tobytes() != cover(3, 9, 1).tobytes()

    def nearest(some):
        apart = np.linalg.norm(some[:, None] - some[None], axis=-1) + 9 * np.eye(len(some))
        return apart.min()

    assert nearest(points) > 2 * nearest(np.random.default_rng(0).dirichlet(np.full(3, 1.5), 9))
    assert cover(7, 600, 0).shape == (600, 7)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: fit(np.ones((2, 2)), [[0.5, 0.5], [0.1, 0.9]]), "2 trainings; 2 groups need at least 3"),
        (lambda: fit(np.ones((3, 3)), [[0.5, 0.5], [0.1, 0.9], [0.9, 0.1]]), "`losses` has shape"),
        (lambda: fit([[1, 1], [1, np.nan], [1, 1]], [[0.5, 0.5], [0.1, 0.9], [0.9, 0.1]]), "nan at (1, 1)"),
        (lambda: fit(np.ones((3, 2)), [[0.5, 0.6], [0.1, 0.9], [0.9, 0.1]]), "sum one"),
        (lambda: pair_optimum([-1, 1], [0, 0]), "negative"),
        (lambda: pair_optimum([-1], [0, 0]), "shape (1,)"),
    ],
)
def test_bad_arguments_are_named(call, said):
    with pytest.raises(ValueError) as caught:
        call()
    assert said in str(caught.value)


# -------------------------------------------------------------------------------------------------------- whole learning
def config(**over):
    return MixingLaw(**{"steps": 40, "batch_size": 64, "device": "cpu"} | over)


def test_what_lowers_every_loss_is_taken(monkeypatch):
    effects = np.diag([0.01, 0.02, 0.01]) + np.array([[0, 0.03, 0.0]] * 3)
    install(monkeypatch, LinearWorld(effects, START, batch=64, saturates=True))
    found = learned(MixingLawMix(config(), seed=1), (10, 20, 30))
    facts = json.loads(json.dumps(found.facts, allow_nan=False))
    assert found.rounds.shape == (1, 3) and found.rounds[0].argmax() == 1 and found.rounds[0][1] > 0.6
    assert len(facts["runs"]) == 9 and len(facts["rounds"]) == 1 and min(facts["law"]["r2"]) > 0.95
    assert facts["final_losses"] in [run["losses"] for run in facts["runs"]]
    assert sum(facts["predicted_losses"]) < sum(facts["final_losses"]) and not found.warnings


def test_too_few_runs_for_the_groups(monkeypatch):
    install(monkeypatch, LinearWorld(np.eye(3), START))
    with pytest.raises(ConfigError) as caught:
        learned(MixingLawMix(config(runs=3), seed=1), (10, 20, 30))
    assert "`mix.runs` is 3; 3 groups need at least 4" in str(caught.value)


@pytest.mark.parametrize(("bad", "rounds"), [((2, 5), 1), (tuple(range(6)), 0)])
def test_trainings_that_diverge_are_left_out(monkeypatch, bad, rounds):
    made = []

    class Sometimes(LinearWorld):
        def fresh(self, total):
            made.append(Sometimes(self.effects, self.start, total, self.batch))
            made[-1].number = len(made) - 2  # the first is what `build` returns
            return made[-1]

        def losses(self):
            return np.full(3, np.nan) if self.step and self.number in bad else super().losses()

    install(monkeypatch, Sometimes(0.01 * np.eye(3), START))
    found = learned(MixingLawMix(config(), seed=1), (10, 20, 30))
    assert len(found.facts["rounds"]) == rounds and len(found.warnings) == 1
    json.dumps(found.facts, allow_nan=False)
    if rounds:
        assert found.warnings[0] == "2 of 9 trainings diverged and are left out of the law"
        assert [run["losses"] is None for run in found.facts["runs"]] == [number in bad for number in range(9)]
    else:
        assert "diverged in 6 of 9 trainings; a law of 3 groups needs at least 4" in found.facts["stopped"]
        np.testing.assert_allclose(found.rounds, 1 / 3)
