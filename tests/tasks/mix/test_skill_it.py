"""Skill-It: the worked example, properties, and a training in a known world."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear_world import LinearWorld, install, learned

from configs.methods.learned import SkillIt
from tasks.mix.skill_it import SkillItMix, gained, update

GRAPH = [[0.76, 0.52], [0.67, 0.72]]
EFFECTS = np.array([[0.004, 0.001, 0.0], [0.001, 0.002, 0.0005], [0.0, 0.001, 0.003]])
START = np.array([3.0, 2.0, 4.0])


def test_the_worked_example():
    np.testing.assert_allclose(update(GRAPH, np.ones((1, 2)), 0.2), [0.494500, 0.505500], atol=5e-7)
    window = [[3.0, 4.0], [3.1, 3.6], [3.0, 3.6]]  # sum (9.1, 11.2)
    np.testing.assert_allclose(update(GRAPH, window, 0.2), [0.429424, 0.570576], atol=5e-7)
    raised = np.array([12.781515, 16.982782])
    np.testing.assert_allclose(update(GRAPH, window, 0.2), raised / raised.sum(), atol=5e-8)


@given(st.integers(1, 7), st.integers(0, 2**32 - 1), st.floats(0.01, 1e6))
def test_without_a_graph_the_largest_loss_is_favoured(size, seed, eta):
    rng = np.random.default_rng(seed)
    window, order = rng.uniform(1, 5, (3, size)), rng.permutation(size)
    told = update(None, window, eta)
    assert told[window.sum(axis=0).argmax()] == told.max() and told.sum() == pytest.approx(1)
    assert told.tolist() == update(np.eye(size), window, eta).tolist()
    np.testing.assert_allclose(update(None, window[:, order], eta), told[order], atol=1e-14)
    np.testing.assert_allclose(update(None, window, 0.0), 1 / size, atol=1e-15)


def test_the_graph_is_of_relative_losses():
    np.testing.assert_allclose(gained([4.0, 2.0, 0.0], [3.0, 3.0, 1.0]), [0.25, -0.5, 0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((np.eye(3), [[1.0, 2.0]]), "`graph` has shape (3, 3)"),
        ((None, [1.0, 2.0]), "`window` has shape (2,)"),
        ((None, np.empty((0, 2))), "`window` has shape (0, 2)"),
        ((None, [[1.0, np.nan]]), "holds nan"),
        (([[np.inf]], [[1.0]]), "holds inf"),
        ((None, [[1.0]], np.nan), "`eta` is nan"),
    ],
)
def test_bad_arguments_are_named(arguments, said):
    with pytest.raises(ValueError) as caught:
        update(*arguments)
    assert said in str(caught.value)


def config(**over):
    return SkillIt(**{"steps": 80, "rounds": 4, "batch_size": 8, "device": "cpu", "eta": 0.5} | over)


def test_the_rounds_are_those_of_the_pure_functions(monkeypatch):
    install(monkeypatch, LinearWorld(EFFECTS, START))
    found = learned(SkillItMix(config(window=2), seed=1), (10, 20, 30))
    facts = json.loads(json.dumps(found.facts, allow_nan=False))
    graph = 20 * EFFECTS.T / START  # a run of one round's steps on each group alone
    np.testing.assert_allclose(facts["graph"], graph, atol=1e-12)
    losses = np.array([entry["losses"] for entry in facts["rounds"]])
    assert [entry["step"] for entry in facts["rounds"]] == [0, 20, 40, 60] and losses[0].tolist() == START.tolist()
    expected = [update(graph, np.ones((1, 3)), 0.5), *(update(graph, losses[r - 1 : r + 1], 0.5) for r in (1, 2, 3))]
    np.testing.assert_allclose(found.rounds, expected, atol=1e-9)
    assert sum(facts["final_losses"]) < losses[-1].sum()


def test_the_graph_may_be_measured_longer(monkeypatch):
    install(monkeypatch, LinearWorld(EFFECTS, START))
    found = learned(SkillItMix(config(graph_steps=7), seed=1), (10, 20, 30))
    np.testing.assert_allclose(found.facts["graph"], 7 * EFFECTS.T / START, atol=1e-12)


def test_a_run_for_the_graph_that_diverges_leaves_uniform(monkeypatch):
    install(monkeypatch, LinearWorld(EFFECTS, START, breaks=20))
    found = learned(SkillItMix(config(), seed=1), (10, 20, 30))
    np.testing.assert_allclose(found.rounds, np.full((4, 3), 1 / 3))
    assert "step 20 of 20 of training 1" in found.facts["stopped"] and len(found.warnings) == 1
