"""What all learned mixes have in common: crashes at every save, seeds, groups left out, what the mix takes over."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from linear_world import BowlWorld, LinearWorld, Memory, bytes_of, groups, install, learned
from mix_samples import KINDS, SMALL, mixed

from configs.methods.learned import Aioli, Doge, Doremi, MixingLaw, SkillIt
from tasks import load
from tasks.mix import METHODS, Group, course
from tasks.mix.course import Course
from tasks.mix.learning import LearnedMix

EFFECTS = np.array([[0.004, 0.001, 0.0], [0.001, 0.002, 0.0005], [0.0, 0.001, 0.003]])
CENTRES = [[1.0, 0, 0.2], [0.5, 0.8, 0], [-1.0, 0.5, 0]]
COMMON = {"batch_size": 4, "device": "cpu"}
LAWS = {
    "aioli": Aioli(steps=60, rounds=3, sweeps=1, burst_steps=3, **COMMON),
    "aioli, moving average": Aioli(steps=60, rounds=3, sweeps=2, burst_steps=2, ema=0.5, **COMMON),
    "aioli, prior": Aioli(
        steps=60, rounds=2, sweeps=1, burst_steps=2, prior={"a": 1.0}, prior_steps=20, diagonal=True, **COMMON
    ),
    "doremi": Doremi(steps=12, rounds=3, reference_steps=10, **COMMON),
    "doge": Doge(steps=12, rounds=3, apply="rounds", **COMMON),
    "skill_it": SkillIt(steps=30, rounds=3, **COMMON),
    "mixing_law": MixingLaw(steps=10, runs=4, **COMMON),
}
every_law = pytest.mark.parametrize("name", list(LAWS))


def mixer(config, seed=3):
    return load(METHODS, config, seed=seed)


@pytest.fixture(autouse=True)
def world(monkeypatch, request):
    """A world where order matters; every possible save takes place."""
    monkeypatch.setattr(course, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr(course, "SAVE_SHARE", 1e9)
    name = request.node.callspec.params.get("name", "aioli") if hasattr(request.node, "callspec") else "aioli"
    if name.startswith("do"):
        install(monkeypatch, BowlWorld(CENTRES, [1.0, 0.7, 0.4], [0.5, 0.6, 0.7], batch=4))
    else:
        install(monkeypatch, LinearWorld(EFFECTS, [3.0, 2.0, 4.0], batch=4, saturates=True))


# ------------------------------------------------------------------------------------------------------ crash and resume
@every_law
def test_a_crash_at_every_save_leads_to_the_same_bytes(name):
    whole = Memory()
    expected = bytes_of(learned(mixer(LAWS[name]), (10, 20, 30), whole))
    assert whole.saves >= 8
    for crash in range(1, whole.saves + 1):
        memory = Memory(crash)
        with pytest.raises(KeyboardInterrupt):
            learned(mixer(LAWS[name]), (10, 20, 30), memory)
        assert bytes_of(learned(mixer(LAWS[name]), (10, 20, 30), memory)) == expected, f"after save {crash}"
        assert memory.saves == whole.saves  # nothing was done twice, or left out


@every_law
def test_a_crash_after_each_save_in_turn_leads_to_the_same_bytes(name):
    expected = bytes_of(learned(mixer(LAWS[name]), (10, 20, 30)))
    memory, crashes = Memory(1), 0
    while True:
        try:
            found = learned(mixer(LAWS[name]), (10, 20, 30), memory)
            break
        except KeyboardInterrupt:
            crashes += 1
            memory.most = memory.saves + 1
    assert bytes_of(found) == expected and crashes == memory.saves


@pytest.mark.parametrize(
    ("kind", "settings"), [("aioli", {"sweeps": 1, "burst_steps": 2}), ("doremi", {}), ("doge", {})]
)
def test_a_crash_with_a_real_model_leads_to_the_same_bytes(kind, settings, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(course, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr(course, "SAVE_SHARE", 1e9)
    rows, labels = mixed(40)
    base = {"proxy": SMALL, "steps": 16, "rounds": 2, "batch_size": 6, "train_rows": 24, "validation_rows": 4}
    config = type(LAWS[kind])(**base | settings, device="cpu", learning_rate=1e-2)

    def run(memory):
        one = mixer(config)
        return one.learn([Group(name, 40) for name in KINDS], [one.summarise(rows, labels)], memory)

    whole = Memory()
    expected = bytes_of(run(whole))
    for crash in (1, whole.saves // 2, whole.saves - 1):
        memory = Memory(crash)
        with pytest.raises(KeyboardInterrupt):
            run(memory)
        assert bytes_of(run(memory)) == expected
    assert expected[0] != np.full((1, 3), 1 / 3).tobytes()


def test_saves_are_rare_where_they_cost_much(monkeypatch):
    monkeypatch.setattr(course, "SAVE_SECONDS", 3600.0)
    memory = Memory()
    learned(mixer(LAWS["aioli"]), (10, 20, 30), memory)
    assert memory.saves == 0


@every_law
def test_the_same_seed_gives_the_same_bytes(name):
    one, two = (bytes_of(learned(mixer(LAWS[name]), (10, 20, 30))) for _ in range(2))
    assert one == two


# --------------------------------------------------------------------------------------------------------------- results
@every_law
def test_what_is_told(name):
    memory, config = Memory(), LAWS[name]
    found = learned(mixer(config), (10, 20, 30), memory)
    facts = json.loads(json.dumps(found.facts, allow_nan=False))
    assert facts["kind"] == config.kind and facts["groups"] == ["a", "b", "c"] and facts["left_out"] == []
    assert facts["stopped"] is None and len(facts["rounds"]) == config.rounds and len(facts["final_losses"]) == 3
    for entry in facts["rounds"]:
        assert {len(entry[key]) for key in ("losses", "proportions")} == {3} and isinstance(entry["step"], int)
        assert (entry["matrix"] is None) == (config.kind != "aioli")
    assert found.rounds.min() >= 0
    np.testing.assert_allclose(found.rounds.sum(axis=1), 1, atol=1e-12)
    assert [line for line in memory.lines if f"round {config.rounds} of {config.rounds}, " in line]
    assert "proportions " in memory.lines[-1] and "losses " in memory.lines[-1]


@pytest.mark.parametrize("apply", ["rounds", "average", "last"])
def test_what_the_mix_takes_over(apply):
    config = LAWS["aioli"]
    rounds = learned(mixer(config), (10, 20, 30)).rounds
    found = learned(mixer(config.model_copy(update={"apply": apply})), (10, 20, 30)).rounds
    expected = {"rounds": rounds, "average": rounds.mean(axis=0)[None], "last": rounds[-1:]}[apply]
    np.testing.assert_allclose(found, expected, atol=1e-15)


def test_how_far_it_is_is_told_now_and_then(monkeypatch):
    monkeypatch.setattr(course, "TELL_SECONDS", -1.0)
    memory = Memory()
    learned(mixer(LAWS["aioli"]), (10, 20, 30), memory)
    assert memory.lines[0].startswith("aioli: round 0 of 3, training 1, step 3 of 60; losses a ")
    many = Course(LinearWorld(np.eye(9), np.ones(9)), "aioli", 1, Memory(), list("abcdefghi"))
    assert many._numbers(np.zeros(9)) == ", ".join(f"{name} 0.000" for name in "abcdefgh") + ", …"


# ---------------------------------------------------------------------------------------------------------------- groups
@every_law
def test_groups_that_cannot_be_learned_on_keep_their_natural_share(name, monkeypatch):
    whole = learned(mixer(LAWS[name]), (10, 20, 30)).rounds
    monkeypatch.setattr("tasks.mix.learning.Samples.too_small", ("d",))
    found = learned(mixer(LAWS[name]), (10, 20, 30, 40))
    np.testing.assert_allclose(found.rounds, np.column_stack([whole * 0.6, np.full(len(whole), 0.4)]), atol=1e-12)
    assert found.facts["left_out"] == ["d"] and found.facts["groups"] == ["a", "b", "c"]
    assert found.warnings[0] == "'d' is too small" and "natural shares are kept for 'd'" in found.warnings[1]


@every_law
def test_one_group_needs_no_training(name, monkeypatch):
    monkeypatch.setattr("tasks.mix.learning.Samples.too_small", ("b",))
    for rows, expected in (((10,), [[1.0]]), ((10, 30), [[0.25, 0.75]])):
        memory = Memory()
        found = learned(mixer(LAWS[name]), rows, memory)
        assert found.rounds.tolist() == expected and memory.saves == 0 and not memory.lines
        assert found.facts["rounds"] == [] and found.facts["stopped"] is None and found.facts["final_losses"] == []


@every_law
def test_no_group_to_learn_on(name, monkeypatch):
    monkeypatch.setattr("tasks.mix.learning.Samples.too_small", ("a", "b", "c"))
    found = learned(
        mixer(LAWS[name].model_copy(update={"prior": None} if name.startswith("aioli") else {})), (10, 20, 10)
    )
    assert found.rounds.tolist() == [[0.25, 0.5, 0.25]] and found.facts["left_out"] == ["a", "b", "c"]


def test_it_is_a_learned_mixer(monkeypatch):
    one = mixer(LAWS["aioli"])
    assert isinstance(one, LearnedMix) and one.needs == ("text",) and one.device == "cpu"
    one.check()
    one.check_columns(pa.schema([]))
    assert one.depends_on() == {"device": "cpu"} and one.input_columns == () and one.libraries == ()
    assert one.summarise(pa.table({"row": [1]}), pa.array(["a"])).num_rows == 1
    assert len(groups(1, 2)) == 2
