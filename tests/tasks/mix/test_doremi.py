"""DoReMi: the worked example, properties, and a training in a known world."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear_world import BowlWorld, install, learned

from configs.methods.learned import Doremi
from tasks.mix.doremi import DoremiMix, update

seeds, sizes = st.integers(0, 2**32 - 1), st.integers(1, 7)


def test_the_worked_example():
    for absent in (0.0, np.nan):
        weights, scores = update([0.25, 0.25, 0.5], [0.3, -0.1, absent], [0.0, 0.0, 0.2], mu=1.0, smoothing=1e-3)
        assert scores.tolist() == [0.3, 0, 0.2]
        np.testing.assert_allclose(weights, [0.281703, 0.208777, 0.509520], atol=5e-7)


@given(sizes, seeds, st.floats(0, 0.9), st.floats(0.01, 100))
def test_weights_are_shares_of_at_least_the_smoothing(size, seed, smoothing, mu):
    rng = np.random.default_rng(seed)
    weights, scores = update(
        rng.dirichlet(np.ones(size)), rng.normal(size=size) * 10, np.zeros(size), mu=mu, smoothing=smoothing
    )
    assert weights.sum() == pytest.approx(1) and weights.min() >= smoothing / size - 1e-15 and scores.min() >= 0


@given(sizes, seeds, st.floats(0.001, 5))
def test_equal_excess_changes_nothing_before_smoothing(size, seed, excess):
    weights = np.random.default_rng(seed).dirichlet(np.ones(size))
    told, _ = update(weights, np.full(size, excess), np.zeros(size), smoothing=0)
    np.testing.assert_allclose(told, weights, atol=1e-14)


@given(sizes, seeds)
def test_the_order_of_groups_does_not_matter(size, seed):
    rng = np.random.default_rng(seed)
    weights, excess, before, order = (
        rng.dirichlet(np.ones(size)),
        rng.normal(size=size),
        rng.random(size),
        rng.permutation(size),
    )
    told, scores = update(weights, excess, before)
    moved, its = update(weights[order], excess[order], before[order])
    np.testing.assert_allclose(moved, told[order], atol=1e-14)
    assert its.tolist() == scores[order].tolist()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([0.5, 0.6], [0, 0], [0, 0]), "sum one"),
        (([0.5, 0.5], [np.inf, 0], [0, 0]), "finite"),
        (([0.5, 0.5], [1, 2, 3], [0, 0]), "shape"),
        (([0.5, 0.5], [1, 2], [-1, 0]), "at least 0"),
        (([0.5, 0.5], [1, 2], [0, 0], np.nan), "finite"),
        (([0.5, 0.5], [1, 2], [0, 0], 1.0, 1.0), "smoothing"),
    ],
)
def test_bad_arguments_are_named(arguments, said):
    with pytest.raises(ValueError) as caught:
        update(*arguments)
    assert said in str(caught.value)


def config(**over):
    return Doremi(**{"steps": 120, "rounds": 3, "batch_size": 8, "device": "cpu", "step_size": 0.1} | over)


@pytest.fixture
def world(monkeypatch):
    # Groups 0 and 1 pull alike, and the uniform reference ends near them; group 2 is far off.
    centres = [[1.0, 0, 0], [1.1, 0, 0], [-1.0, 0.5, 0]]
    install(monkeypatch, BowlWorld(centres, [1.0, 1.0, 1.0], [0.5, 0.6, 0.7], batch=8))


def test_what_is_behind_the_reference_gains(world):
    found = learned(DoremiMix(config(), seed=1), (10, 20, 30))
    assert found.rounds.shape == (1, 3)  # the average
    facts = json.loads(json.dumps(found.facts, allow_nan=False))
    rounds = np.array([entry["proportions"] for entry in facts["rounds"]])
    np.testing.assert_allclose(found.rounds[0], rounds.mean(axis=0), atol=1e-15)
    assert [entry["step"] for entry in facts["rounds"]] == [40, 80, 120]
    # An untrained proxy is behind the reference on the near groups, and ahead of it on the far one.
    assert rounds[0][0] > 0.35 > rounds[0][2] and len(facts["reference_losses"]) == 3
    assert facts["kind"] == "doremi" and facts["stopped"] is None and facts["rounds"][0]["matrix"] is None


def test_the_weights_are_those_of_the_pure_function(world):
    """Step by step in plain numpy; the same batches, as they are by seed and turn."""
    centres = np.array([[1.0, 0, 0], [1.1, 0, 0], [-1.0, 0.5, 0]])
    reference = BowlWorld(centres, [1.0] * 3, [0.5, 0.6, 0.7], batch=8)
    reference.train(np.full(3, 1 / 3), 50)
    beside, theta = reference.losses(), np.zeros(3)
    weights, scores, every = np.full(3, 1 / 3), np.full(3, 1e-6), []
    for step in range(120):
        there = np.random.default_rng([0, 10_000 + step]).multinomial(8, [1 / 3] * 3) > 0
        losses = np.array([0.5, 0.6, 0.7]) + np.square(theta - centres).sum(1) / 2
        weights, scores = update(weights, np.where(there, losses - beside, np.nan), scores, 0.1, 1e-3)
        gradient = (weights * there) @ (theta - centres)
        theta = theta - 0.1 * gradient * min(1, 1 / np.linalg.norm(gradient))
        every.append(weights)
    found = learned(DoremiMix(config(reference_steps=50, apply="rounds"), seed=1), (10, 20, 30))
    np.testing.assert_allclose(found.rounds, np.array(every).reshape(3, 40, 3).mean(axis=1), atol=1e-5)


def test_a_reference_that_diverges_leaves_uniform(monkeypatch):
    install(monkeypatch, BowlWorld([[1.0], [2.0]], [30.0, 30.0], [0.0, 0.0]))  # rate 0.1: the step overshoots
    found = learned(DoremiMix(config(), seed=1), (10, 30))
    assert found.rounds.tolist() == [[0.5, 0.5]] and "the beginning are kept" in found.facts["stopped"]
    assert len(found.warnings) == 1 and found.facts["rounds"] == []
