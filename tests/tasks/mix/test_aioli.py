"""Aioli: the worked examples, the properties of its parts, and whole trainings in a world that is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear_world import LinearWorld, Memory, bytes_of, install, learned
from pydantic import ValidationError

from configs.errors import ConfigError
from configs.methods.learned import Aioli
from tasks.mix.aioli import AioliMix, fidelity, mixing_matrix, normalise, perturbed, update

G1 = [[0.30, 0.10, 0.12], [0.08, 0.20, 0.10], [0.14, 0.09, 0.25]]
G2 = [[0.10, 0.04, 0.05], [0.05, 0.15, 0.06], [0.04, 0.05, 0.08]]
A1 = [[0.68, -0.12, -0.04], [-0.06, 0.42, 0.02], [0.08, -0.12, 0.52]]
A2 = [[0.21, -0.03, 0.01], [-0.06, 0.34, -0.02], [-0.01, 0.03, 0.15]]
UNIFORM = np.full(3, 1 / 3)
EFFECTS = np.array([[0.004, 0.001, 0.0], [0.001, 0.002, 0.0005], [0.0, 0.001, 0.003]])

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(2, 7)


def some_matrix(size, seed):
    return np.random.default_rng(seed).normal(size=(size, size))


# ------------------------------------------------------------------------------------------------------ worked examples
def test_the_matrix_of_the_worked_example():
    assert perturbed(3, 0.5).tolist() == [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]
    np.testing.assert_allclose(mixing_matrix(G1, 0.5), A1, atol=1e-14)
    np.testing.assert_allclose(mixing_matrix(G2, 0.5), A2, atol=1e-14)
    np.testing.assert_allclose(mixing_matrix(G1, mixtures=perturbed(3, 0.5)), A1, atol=1e-14)
    assert mixing_matrix(G1).tolist() == G1 and mixing_matrix(G1, 1.0).tolist() == G1
    np.testing.assert_allclose(mixing_matrix(G1, 0.5, diagonal=True), np.diag([0.6, 0.4, 0.5]), atol=1e-14)


def test_normalisation_of_the_worked_example():
    told = normalise(A1)
    expected = [[0.325203, 0, 0.032520], [0.024390, 0.219512, 0.056911], [0.081301, 0, 0.260163]]
    np.testing.assert_allclose(told, expected, atol=5e-7)
    np.testing.assert_allclose(told.sum(axis=0), [0.430894, 0.219512, 0.349593], atol=6e-7)
    np.testing.assert_allclose(normalise(A2).sum(axis=0), [0.275862, 0.448276, 0.275862], atol=5e-7)


def test_both_updates_of_the_worked_example():
    p1, state = update(UNIFORM, normalise(A1), 0.5)
    np.testing.assert_allclose(p1, [0.349667, 0.314596, 0.335738], atol=6e-7)
    assert state is None
    p2, _ = update(p1, normalise(A2), 0.5)
    np.testing.assert_allclose(p2, [0.340036, 0.333474, 0.326490], atol=5e-7)
    first, state = update(UNIFORM, normalise(A1), 0.5, ema=0.5)
    np.testing.assert_allclose(first, p1, atol=1e-15)
    second, state = update(first, normalise(A2), 0.5, ema=0.5, state=state)
    np.testing.assert_allclose(state.sum(axis=0), [0.353378, 0.333894, 0.312728], atol=5e-7)
    np.testing.assert_allclose(second, [0.336679, 0.333415, 0.329905], atol=6e-7)


# ----------------------------------------------------------------------------------------------------------- properties
@given(sizes, seeds, st.floats(0.01, 1), st.integers(1, 4))
def test_bursts_in_a_linear_world_give_back_its_matrix(size, seed, way, sweeps):
    a = 1 / size + way * (1 - 1 / size)
    rng, truth = np.random.default_rng(seed), some_matrix(size, seed)
    losses = start = rng.normal(size=size)
    drops = np.zeros((size, size))
    for j in np.concatenate([rng.permutation(size) for _ in range(sweeps)]):
        after = losses - truth @ perturbed(size, min(a, 1))[j]
        drops[:, j] += losses - after
        losses = after
    np.testing.assert_allclose(drops.sum(axis=1), start - losses, atol=1e-12)  # columns telescope
    drops /= sweeps
    told = mixing_matrix(drops, min(a, 1))
    np.testing.assert_allclose(told, truth, atol=1e-13 / way)
    np.testing.assert_allclose(told.sum(axis=1), drops.sum(axis=1), atol=1e-12 / way)


@given(sizes, seeds)
def test_realised_mixtures_give_back_the_matrix_where_the_wanted_ones_do_not(size, seed):
    rng, truth = np.random.default_rng(seed), some_matrix(size, seed)
    realised = perturbed(size, 0.8) + rng.uniform(0, 0.1, (size, size))
    realised /= realised.sum(axis=1, keepdims=True)
    drops = truth @ realised.T
    np.testing.assert_allclose(mixing_matrix(drops, 0.8, mixtures=realised), truth, atol=1e-12)
    assert np.abs(mixing_matrix(drops, 0.8) - truth).max() > 1e-6


@given(sizes, seeds, st.sampled_from([1e-300, 1e-9, 1.0, 1e9, 1e308]))
def test_a_normalised_matrix_is_shares(size, seed, scale):
    matrix = np.clip(some_matrix(size, seed) / 5, -1, 1) * scale
    told = normalise(matrix)
    assert told.min() >= 0 and told.sum() == pytest.approx(1)
    positive = np.abs(matrix)
    np.testing.assert_allclose(normalise(positive) * (positive / scale).sum(), positive / scale, atol=1e-12)  # no shift


def test_a_matrix_with_nothing_to_divide_is_uniform():
    for matrix in (np.full((3, 3), -0.2), np.zeros((3, 3)), np.full((3, 3), 0.1)):
        np.testing.assert_allclose(normalise(matrix), np.full((3, 3), 1 / 9), atol=1e-15)


@given(sizes, seeds, st.sampled_from([None, 0.0, 0.5]), st.floats(0, 5))
def test_an_update_does_not_know_the_order_of_groups(size, seed, ema, eta):
    rng = np.random.default_rng(seed)
    matrix, p, order = normalise(some_matrix(size, seed)), rng.dirichlet(np.ones(size)), rng.permutation(size)
    told, _ = update(p, matrix, eta, ema=ema)
    moved, _ = update(p[order], matrix[np.ix_(order, order)], eta, ema=ema)
    np.testing.assert_allclose(moved, told[order], atol=1e-14)
    assert told.sum() == pytest.approx(1) and told.min() >= 0


@given(sizes, seeds, st.floats(0, 3))
def test_equal_columns_and_no_step_change_nothing(size, seed, eta):
    p = np.random.default_rng(seed).dirichlet(np.ones(size))
    matrix = some_matrix(size, seed)
    np.testing.assert_allclose(update(p, matrix, 0.0)[0], p, atol=1e-15)
    np.testing.assert_allclose(update(p, matrix, 0.0, ema=0.3)[0], 1 / size, atol=1e-15)
    equal = matrix - matrix.sum(axis=0) / size
    np.testing.assert_allclose(update(np.full(size, 1 / size), equal, eta)[0], 1 / size, atol=1e-14)


@given(sizes, seeds, st.floats(0.01, 3), st.floats(0, 0.99))
def test_the_moving_average_stays_in_a_narrow_band_and_the_cumulative_update_leaves_it(size, seed, eta, ema):
    rng, p, q, state = np.random.default_rng(seed), np.full(size, 1 / size), np.full(size, 1 / size), None
    one = np.zeros((size, size))
    one[0, 0] = 1.0
    for turn in range(1, 9):
        p, state = update(p, normalise(rng.normal(size=(size, size))), eta, ema=ema, state=state)
        assert p.max() / p.min() <= np.exp(eta) * (1 + 1e-12)
        q, _ = update(q, one, eta)
        assert q[0] / q[1] == pytest.approx(np.exp(eta * turn), rel=1e-9)


def test_huge_steps_do_not_overflow():
    told, _ = update(UNIFORM, [[1, 0, 0], [0, 0.5, 0], [0, 0, 0.5]], 1e5)
    assert told.tolist() == [1, 0, 0]
    assert update(told, np.eye(3), -1e5)[0].tolist() == [1, 0, 0]  # a share of 0 stays 0


def test_one_group_is_defined():
    assert perturbed(1, 0.3).tolist() == [[1]] and mixing_matrix([[0.4]], 0.3).tolist() == [[0.4]]
    assert normalise([[-2.0]]).tolist() == [[1]] and normalise([[0.0]]).tolist() == [[1]]
    assert update([1.0], [[5.0]], 100.0)[0].tolist() == [1]


def test_fidelity():
    truth = np.array([[3.0, 1, 0], [0, 1, 0], [0, 0, 1]])
    assert fidelity(truth, truth) == pytest.approx(1) and fidelity(5 * truth, truth) == pytest.approx(1)
    assert fidelity(-truth, truth) == pytest.approx(-1)
    # column sums (1, 2, 3) and (3, 2, 1): cosine 10/14, Spearman -1
    assert fidelity(np.diag([1, 2, 3]), np.diag([3, 2, 1])) == pytest.approx(0.5 * (10 / 14 - 1))
    assert fidelity(np.zeros((2, 2)), np.eye(2)) == 0.5 and fidelity(np.zeros((2, 2)), np.diag([1, 2])) == 0
    assert fidelity([[2.0]], [[3.0]]) == 1


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: mixing_matrix(G1, 1 / 3), "in (1/3, 1]"),
        (lambda: mixing_matrix(G1, 0.1), "in (1/3, 1]"),
        (lambda: mixing_matrix(G1, 1.1), "in (1/3, 1]"),
        (lambda: mixing_matrix(G1, mixtures=np.full((3, 3), 1 / 3)), "linearly dependent"),
        (lambda: mixing_matrix(G1, mixtures=perturbed(3, 1 / 3 + 1e-8)), "linearly dependent"),
        (lambda: mixing_matrix(G1, mixtures=np.eye(3)[::-1], diagonal=True), "own group"),
        (lambda: mixing_matrix(G1, mixtures=np.eye(3) * 2), "sum one"),
        (lambda: mixing_matrix(G1, mixtures=np.eye(2)), "shape (2, 2)"),
        (lambda: mixing_matrix([[1, np.nan], [0, 1]]), "holds nan at (0, 1)"),
        (lambda: mixing_matrix([[1, 2, 3]]), "square"),
        (lambda: mixing_matrix(np.empty((0, 0))), "square"),
        (lambda: normalise([[np.inf, 0], [0, 1]]), "finite"),
        (lambda: normalise(np.empty((0, 0))), "entries"),
        (lambda: update([0.5, 0.6], np.eye(2), 1.0), "sum one"),
        (lambda: update([1.5, -0.5], np.eye(2), 1.0), "at least 0"),
        (lambda: update([0.5, 0.5], [[1, np.nan], [0, 1]], 1.0), "finite"),
        (lambda: update([0.5, 0.5], np.eye(3), 1.0), "shape (3, 3)"),
        (lambda: update([0.5, 0.5], np.eye(2), np.inf), "`eta` is inf"),
        (lambda: update([0.5, 0.5], np.eye(2), 1.0, ema=1.0), "[0, 1)"),
        (lambda: update([0.5, 0.5], np.eye(2), 1.0, ema=0.5, state=np.eye(3)), "`state`"),
    ],
)
def test_bad_arguments_are_named(call, said):
    with pytest.raises(ValueError) as caught:
        call()
    assert said in str(caught.value)


# -------------------------------------------------------------------------------------------------------- whole trainings
def config(**over):
    base = {"steps": 240, "rounds": 4, "sweeps": 2, "burst_steps": 4, "batch_size": 8, "device": "cpu"}
    return Aioli(**base | over)


@pytest.fixture
def world(monkeypatch):
    def at(**over):
        install(monkeypatch, LinearWorld(**{"effects": EFFECTS, "start": [3.0, 2.0, 4.0]} | over))

    at()
    return at


@pytest.mark.parametrize("batch", [8, 2])
def test_the_rounds_measure_the_matrix_of_the_world(world, batch):
    world(batch=batch)  # with two rows a batch there are fewer rows than groups
    found = learned(AioliMix(config(normalise=False, batch_size=batch), seed=5), (10, 20, 30))
    assert len(found.facts["rounds"]) == 4
    for entry in found.facts["rounds"]:
        np.testing.assert_allclose(entry["matrix"], 4 * EFFECTS, atol=1e-12)
    assert [entry["step"] for entry in found.facts["rounds"]] == [24, 84, 144, 204]
    assert found.rounds.shape == (4, 3)


def test_proportions_are_those_of_the_pure_functions(world):
    found, p = learned(AioliMix(config(eta=2.0), seed=5), (10, 20, 30)), UNIFORM
    for entry, row in zip(found.facts["rounds"], found.rounds):
        p, _ = update(p, normalise(EFFECTS), 2.0)
        np.testing.assert_allclose(entry["proportions"], p, atol=1e-9)
        np.testing.assert_allclose(row, p, atol=1e-9)
    assert (
        found.rounds[-1][0] > 0.5 > 0.44 > found.rounds[0][0]
    )  # its column has the largest sum: the cumulative update goes there
    facts = json.loads(json.dumps(found.facts, allow_nan=False))
    assert facts["kind"] == "aioli" and facts["mode"] == "unrestricted" and facts["stopped"] is None
    assert facts["delta"] == 0.4 and facts["one_hot_factor"] == 0.5 and facts["groups"] == ["a", "b", "c"]
    assert facts["rounds"][0]["losses"] == [3.0, 2.0, 4.0] and len(facts["final_losses"]) == 3
    assert sum(facts["final_losses"]) < sum(facts["rounds"][-1]["losses"]) < 9


def test_the_moving_average_restarts(world):
    found = learned(AioliMix(config(eta=2.0, ema=0.1), seed=5), (10, 20, 30))
    expected = update(UNIFORM, normalise(EFFECTS), 2.0, ema=0.1)[0]
    np.testing.assert_allclose(found.rounds, np.tile(expected, (4, 1)), atol=1e-9)
    assert found.facts["form"] == "restarting, with a moving average"


def test_the_moving_average_remembers_the_rounds_before(world):
    world(effects=[[0.02, 0.0, 0.0], [0.0, 0.004, 0.0], [0.0, 0.0, 0.001]], saturates=True)
    found = learned(AioliMix(config(eta=3.0, ema=0.5), seed=5), (10, 20, 30))
    p, state = UNIFORM, None
    for entry in found.facts["rounds"]:
        p, state = update(p, entry["matrix"], 3.0, ema=0.5, state=state)
        np.testing.assert_allclose(entry["proportions"], p, atol=1e-12)
    assert np.abs(p - update(UNIFORM, found.facts["rounds"][-1]["matrix"], 3.0, ema=0.5)[0]).max() > 0.01


def test_the_diagonal_ablation(world):
    found = learned(AioliMix(config(diagonal=True, normalise=False, perturbation=0.0), seed=5), (10, 20, 30))
    np.testing.assert_allclose(found.facts["rounds"][0]["matrix"], np.diag(4 * EFFECTS.diagonal()), atol=1e-12)


def test_a_prior_comes_first(world):
    mixer = AioliMix(config(prior={"a": 3, "c": 1}, prior_steps=40), seed=5)
    memory = Memory()
    found = learned(mixer, (10, 20, 30), memory)
    assert found.facts["mode"] == "restricted" and found.facts["prior"] == [0.75, 0, 0.25]
    assert found.facts["rounds"][0]["step"] == 40 + 24 and found.facts["rounds"][0]["losses"][0] < 3
    assert list(found.notes) == ["`prior` has sum 4; it is normalised to one"]
    told = [line.split("; losses")[0] for line in memory.lines]
    assert told == [
        f"aioli: round {r} of 4, training 1, step {s} of 240"
        for r, s in ((1, 64), (2, 114), (3, 164), (4, 214), (4, 240))
    ]


@pytest.mark.parametrize(
    ("settings", "small", "said"),
    [
        ({"prior": {"a": 1, "z": 1}, "prior_steps": 40}, (), "names 'z'"),
        ({"prior": {"a": 0.0}, "prior_steps": 40}, (), "share above 0"),
        ({"prior": {"c": 1.0}, "prior_steps": 40}, ("c",), "can be learned on"),
        (
            {"sweeps": 4, "burst_steps": 6},
            (),
            "`mix.sweeps` 4 x `mix.burst_steps` 6 x 3 groups are 72 steps, and a round has 60",
        ),
    ],
)
def test_settings_that_do_not_fit_the_groups(monkeypatch, settings, small, said):
    install(monkeypatch, LinearWorld(EFFECTS, [3.0, 2.0, 4.0]), small)
    with pytest.raises(ConfigError) as caught:
        learned(AioliMix(config(**settings), seed=5), (10, 20, 30))
    assert said in str(caught.value)


def test_bursts_that_just_fit(world):
    found = learned(AioliMix(config(sweeps=5), seed=5), (10, 20, 30))
    assert found.facts["delta"] == 1.0 and len(found.facts["rounds"]) == 4


def test_batches_that_cannot_tell_groups_apart(world):
    world(effects=np.eye(4) * 1e-3, start=np.ones(4), batch=2)
    with pytest.raises(ConfigError) as caught:  # two rows a burst: one of its group, one of the first of the others
        learned(AioliMix(config(burst_steps=1, batch_size=2), seed=5), (10, 20, 30, 40))
    assert "1 steps of 2 rows cannot tell the 4 groups apart" in str(caught.value)
    found = learned(AioliMix(config(burst_steps=2, batch_size=2, normalise=False), seed=5), (10, 20, 30, 40))
    np.testing.assert_allclose(found.facts["rounds"][0]["matrix"], 2e-3 * np.eye(4), atol=1e-12)


@pytest.mark.parametrize("effects", [-EFFECTS, np.zeros((3, 3)), np.full((3, 3), -1e-4)])
def test_training_that_does_harm_or_nothing(world, effects):
    world(effects=effects)
    found = learned(AioliMix(config(eta=0.5), seed=5), (10, 20, 30))
    assert np.isfinite(found.rounds).all() and found.rounds.min() > 0
    if np.ptp(effects) == 0 and not effects.any():
        np.testing.assert_allclose(found.rounds, 1 / 3, atol=1e-12)


@pytest.mark.parametrize(("broken", "word"), [(np.nan, "nan"), (np.inf, "inf"), (7.1, "7.1"), (1e30, "1e+30")])
@pytest.mark.parametrize(("breaks", "good"), [(130, 2), (100, 2), (10, 0), (0, 0), (239, 4)])
def test_a_diverging_proxy_stops_it(world, broken, word, breaks, good):
    world(breaks=breaks, broken=broken)
    if breaks == 0 and np.isfinite(broken):
        return  # the first loss is what others are compared with
    found = learned(AioliMix(config(eta=2.0), seed=5), (10, 20, 30))
    assert len(found.facts["rounds"]) == good and found.rounds.shape == (4, 3)
    kept = f"round {good}" if good else "the beginning"
    assert f"its mean loss is {word}" in found.facts["stopped"] and f"of {kept} are kept" in found.facts["stopped"]
    assert len(found.warnings) == 1 and found.facts["stopped"] in found.warnings[0]
    json.dumps(found.facts, allow_nan=False)
    world()
    sound = learned(AioliMix(config(eta=2.0), seed=5), (10, 20, 30)).rounds
    expected = [*sound[:good], *[sound[good - 1] if good else UNIFORM] * (4 - good)]
    np.testing.assert_allclose(found.rounds, expected, atol=1e-12)


def test_what_is_above_the_first_loss_but_not_far_goes_on(world):
    world(breaks=100, broken=6.9)  # 3 before any training: up to 7
    assert learned(AioliMix(config(), seed=5), (10, 20, 30)).facts["stopped"] is None


def test_the_order_of_bursts_is_by_seed(world):
    world(saturates=True)
    one, two, other = (bytes_of(learned(AioliMix(config(), seed=s), (10, 20, 30))) for s in (5, 5, 6))
    assert one == two and one[0] != other[0]


def test_settings_are_checked():
    with pytest.raises(ValidationError):
        config(prior={"a": 1.0})
    with pytest.raises(ValidationError):
        config(perturbation=1.0)
