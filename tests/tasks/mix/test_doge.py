"""DoGE: the worked example for arrays and tensors, properties, and a training in a known world."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear_world import BowlWorld, install, learned

from configs.methods.learned import Doge
from tasks.mix.doge import DogeMix, update

GRADIENTS = np.array([[1.0, 0, 0], [0, 0.5, 0], [0.6, 0, 0.8]])
VALIDATION = np.array([0.6, 0, 0.8])
UNIFORM = np.full(3, 1 / 3)


@pytest.mark.parametrize("kind", ["float64", "float32", "tensor"])
def test_the_worked_example(kind):
    given_as = [GRADIENTS, VALIDATION]
    if kind == "tensor":
        torch = pytest.importorskip("torch")
        given_as = [torch.from_numpy(a.astype(np.float32)) for a in given_as]
    elif kind == "float32":
        given_as = [a.astype(np.float32) for a in given_as]
    weights, scores = update(UNIFORM, *given_as, 5e-4, 0.01)
    np.testing.assert_allclose(scores, [0.00036, 0, 0.0006], atol=1e-9)
    np.testing.assert_allclose(weights, [0.334568, 0.322738, 0.342695], atol=6e-7)


@pytest.mark.gpu
def test_the_worked_example_on_cuda():
    import torch

    weights, _ = update(UNIFORM, *(torch.from_numpy(a).float().cuda() for a in (GRADIENTS, VALIDATION)), 5e-4, 0.01)
    np.testing.assert_allclose(weights, [0.334568, 0.322738, 0.342695], atol=6e-7)


@given(st.integers(1, 6), st.integers(0, 2**32 - 1), st.floats(0.2, 1))
def test_scores_scale_with_the_gradients_and_the_order_does_not_matter(size, seed, factor):
    rng = np.random.default_rng(seed)
    gradients, validation = (a / 10 for a in (rng.normal(size=(size, 5)), rng.normal(size=5)))  # no clipping
    weights, order = rng.dirichlet(np.ones(size)), rng.permutation(size)
    told, scores = update(weights, gradients, validation, 1e-3)
    np.testing.assert_allclose(
        update(weights, factor * gradients, factor * validation, 1e-3)[1], factor * scores, rtol=2e-4, atol=1e-12
    )
    moved, its = update(weights[order], gradients[order], validation, 1e-3)
    np.testing.assert_allclose(moved, told[order], atol=1e-12)
    np.testing.assert_allclose(its, scores[order], atol=1e-15)
    assert told.sum() == pytest.approx(1) and scores.min() >= 0 and scores.max() <= 5e-3


def test_gradients_are_clipped_and_scores_bounded():
    _, scores = update([0.5, 0.5], np.array([[1e6, 0], [0, 0]]), np.array([1e6, 0]), 1e-3)
    np.testing.assert_allclose(scores, [2e-3, 0], rtol=1e-5)  # norm 1 each, the mean of the norms is a half
    _, scores = update(np.full(9, 1 / 9), np.eye(9)[0][:, None] * np.ones((1, 1)), np.ones(1), 1e-3)
    assert scores[0] == 5e-3  # 9 rates, but for the bound
    weights, scores = update([0.2, 0.8], np.zeros((2, 3)), np.zeros(3), 1e-3)
    assert scores.tolist() == [0, 0] and weights.tolist() == [0.2, 0.8]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([0.5, 0.6], np.eye(2), np.ones(2), 1e-3), "sum one"),
        (([0.5, 0.5], np.eye(3), np.ones(3), 1e-3), "shape (3, 3)"),
        (([0.5, 0.5], np.eye(2), np.ones(2), 0.0), "`rate` is 0.0"),
        (([0.5, 0.5], np.eye(2), np.ones(2), 1e-3, 0.0), "`mu` 0.0"),
        (([0.5, 0.5], np.array([[np.nan, 0], [0, 1]]), np.ones(2), 1e-3), "finite"),
    ],
)
def test_bad_arguments_are_named(arguments, said):
    with pytest.raises(ValueError) as caught:
        update(*arguments)
    assert said in str(caught.value)


def config(**over):
    return Doge(**{"steps": 60, "rounds": 3, "batch_size": 8, "device": "cpu", "mu": 1.0} | over)


def test_what_pulls_with_the_validation_rows_gains(monkeypatch):
    install(monkeypatch, BowlWorld([[3.0, 0], [2.9, 0.1], [0, 3.0]], [1.0] * 3, [0.5] * 3, batch=32))
    found = learned(DogeMix(config(), seed=1), (10, 20, 30))
    facts = json.loads(json.dumps(found.facts, allow_nan=False))
    rounds = np.array([entry["proportions"] for entry in facts["rounds"]])
    np.testing.assert_allclose(found.rounds, rounds.mean(axis=0, keepdims=True), atol=1e-15)
    assert rounds[0][0] > 1 / 3 > rounds[0][2] and np.sum(facts["final_losses"]) < np.sum(facts["rounds"][0]["losses"])


def test_the_weights_are_those_of_the_pure_function(monkeypatch):
    centres = np.array([[3.0, 0], [2.9, 0.1], [0, 3.0]])
    install(monkeypatch, BowlWorld(centres, [1.0] * 3, [0.5] * 3, batch=4))
    theta, weights, every = np.zeros(2), UNIFORM, []
    for step in range(60):
        there = np.random.default_rng([0, 10_000 + step]).multinomial(4, UNIFORM) > 0
        slopes = theta - centres
        weights, _ = update(weights, slopes * there[:, None], slopes.mean(axis=0), 0.1, 1.0)
        clipped = slopes / np.maximum(1, np.linalg.norm(slopes, axis=1, keepdims=True))
        gradient = (weights * there) @ clipped
        theta = theta - 0.1 * gradient * min(1, 1 / max(1e-12, np.linalg.norm(gradient)))
        every.append(weights)
    found = learned(DogeMix(config(apply="rounds"), seed=1), (10, 20, 30))
    np.testing.assert_allclose(found.rounds, np.array(every).reshape(3, 20, 3).mean(axis=1), atol=1e-5)


def test_absent_groups_count_as_none_of_the_norms_and_keep_their_weight_before_the_sum_is_one(monkeypatch):
    """Of 12 groups a batch of 3 has 3 at most; the pure function is given zeros for the others."""
    centres = np.random.default_rng(3).normal(size=(12, 2))
    install(monkeypatch, BowlWorld(centres, [1.0] * 12, [0.5] * 12, batch=3))
    world = BowlWorld(centres, [1.0] * 12, [0.5] * 12, batch=3)
    found, there = world.gradients(np.full(12, 1 / 12)), np.zeros((12, 2))
    assert len(found.vectors) == len(found.there) <= 3
    there[found.there] = found.vectors
    expected, _ = update(np.full(12, 1 / 12), there, world.validation_gradient().numpy(), 0.1, 1.0)
    told = learned(DogeMix(config(steps=1, rounds=1, apply="rounds"), seed=1), (10,) * 12, names="abcdefghijkl")
    np.testing.assert_allclose(told.rounds[0], expected, atol=1e-7)
    assert expected.std() > 1e-4


def test_gradients_that_are_not_finite_stop_it(monkeypatch):
    world = BowlWorld([[3.0], [1.0]], [1.0] * 2, [0.5] * 2)
    real = BowlWorld.gradients

    def broken(self, proportions, reference=None):
        found = real(self, proportions, reference)
        return found._replace(vectors=found.vectors * float("nan")) if self.step == 30 else found

    monkeypatch.setattr(BowlWorld, "gradients", broken)
    install(monkeypatch, world)
    found = learned(DogeMix(config(apply="rounds"), seed=1), (10, 20))
    assert len(found.facts["rounds"]) == 1 and "not finite at step 30; the proportions of round 1" in found.warnings[0]
    assert (found.rounds == found.rounds[0]).all() and len(found.rounds) == 3
