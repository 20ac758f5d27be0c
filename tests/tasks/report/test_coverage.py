"""What is told of the batches of concept-aware samplers: bins, distances, fill, and stores that know nothing."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from accounts import batches, labels, leave

from configs.errors import Defect
from storage.steps import Step
from tasks.report import coverage
from tasks.sample.coverage import CONCEPTS


def test_bins_by_hand():
    table = batches(5, rows=8, fill=1)
    at = table.column_names.index("concepts")
    table = table.set_column(at, "concepts", pa.array([10, 20, 30, 40, 7], pa.int32()))
    told = coverage.thinned([table.slice(0, 3), table.slice(3)], 5, points=2)
    assert (told["steps"], told["rows"], told["fill"]) == (5, 40, 5)
    assert told["first"] == [0, 3]  # steps 0-2 and 3-4
    assert told["bins"]["concepts"] == [20.0, 23.5] and told["mean"]["concepts"] == 21.4
    assert (told["low"]["concepts"], told["high"]["concepts"]) == ([10, 7], [30, 40])


@pytest.mark.parametrize("steps", [1, 2, 59, 60, 61, 119, 1000, 12_345])
def test_bins_against_brute_force_for_any_division(steps):
    table = batches(steps, seed=steps)
    parts = [table.slice(at, 97) for at in range(0, steps, 97)]
    told = coverage.thinned(parts, steps)
    first = told["first"]
    sizes = np.diff([*first, steps])
    assert (
        first[0] == 0
        and len(first) == min(coverage.POINTS, steps)
        and sizes.min() >= 1
        and sizes.max() - sizes.min() <= 1
    )
    for name in coverage.SERIES:
        pieces = np.split(table[name].to_numpy(), first[1:])
        assert told["bins"][name] == pytest.approx([piece.mean() for piece in pieces], abs=1e-3)
        assert told["mean"][name] == pytest.approx(table[name].to_numpy().mean())
    for name in coverage.BANDS:
        pieces = np.split(table[name].to_numpy(), first[1:])
        assert told["low"][name] == [piece.min() for piece in pieces]
        assert told["high"][name] == [piece.max() for piece in pieces]
    assert coverage.thinned([table], steps) == told == json.loads(json.dumps(told))


@pytest.mark.parametrize("steps", [4, 6])
def test_steps_that_do_not_fit_the_plan_are_a_defect(steps):
    with pytest.raises(Defect, match=f"the batch plan has {steps} steps"):
        coverage.thinned([batches(5)], steps)


def test_distances_by_hand():
    told = coverage.distribution(labels(), 2)
    # Offered .8 .15 .05, wanted .375 .375 .25, achieved .5 .375 .125.
    assert told["distance"] == pytest.approx({"offered": 0.425, "achieved": 0.125, "moved": 0.3})
    assert told["names"] == ["common", "middle"] and told["shares"]["wanted"] == [0.375, 0.375]
    assert told["distinct"] == {"offered": 3, "wanted": 3, "achieved": 3}
    assert told["curves"]["achieved"] == [[1, 0.5], [2, 0.375], [3, 0.125]]
    json.dumps(told)


def test_equal_counts_are_ordered_by_name_and_nothing_is_lost():
    told = coverage.distribution(labels(("b", "a", "c"), (5, 5, 9), (1.0, 0.0, 1.0), (0, 0, 4)), 10)
    assert told["names"] == ["c", "a", "b"]
    assert told["distinct"] == {"offered": 3, "wanted": 2, "achieved": 1}


def test_a_sampler_without_target_is_compared_with_what_was_offered():
    told = coverage.distribution(labels(wanted=None), 10)
    assert told["distance"] == pytest.approx({"moved": 0.3}) and "wanted" not in told["shares"]


def test_no_labels():
    told = coverage.distribution(CONCEPTS.empty_table(), 10)
    assert told["distance"] == {"moved": None} and told["names"] == []
    none = coverage.distribution(labels(("a",), (4,), (2.0,), (0,)), 10)
    assert none["distance"] == {"moved": None, "offered": 0.0, "achieved": None}


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [([1, 0], [0, 1], 1), ([0.5, 0.5], [0.5, 0.5], 0), ([0.7, 0.2, 0.1], [0.1, 0.2, 0.7], 0.6), ([0, 0], [1, 0], None)],
)
def test_total_variation(one, other, distance):
    found = coverage.variation(np.array(one, float), np.array(other, float))
    assert found is None if distance is None else found == pytest.approx(distance)


@pytest.fixture
def step(tmp_path):
    return Step(str(tmp_path), "sample", "cabs_dm", "0" * 12)


def test_parts_add_up_and_empty_ones_have_no_files(step):
    table = batches(7)
    leave(step, 0, table.slice(0, 4), labels())
    leave(step, 2, table.slice(4), labels())
    told = coverage.found(step, [256, 0, 192], 7, 10)
    assert told["bins"] == coverage.thinned([table], 7)["bins"]
    assert told["labels"] == coverage.distribution(labels(), 10)  # shares of twice the same are the same


def test_a_store_that_knows_nothing_or_not_all(step):
    assert coverage.found(step, [64], 1, 10) is None
    leave(step, 0, batches(1), labels())
    assert coverage.found(step, [64, 64], 2, 10) is None
    assert coverage.found(step, [64], 1, 10)["steps"] == 1
    assert coverage.found(step, [0], 0, 10) is None and coverage.found(step, [], 0, 10) is None


def told(**changes):
    means = {"concepts": 812, "iid_concepts": 497, "offered_concepts": 1000}
    means |= {"rare": 30, "iid_rare": 10, "offered_rare": 60} | changes
    table = batches(4, rows=100, **{k: v for k, v in means.items()})
    return coverage.thinned([table], 4) | {"labels": coverage.distribution(labels(), 10)}


def test_headlines():
    first, rare, moved = coverage.headlines(told())
    assert first == (
        "A batch holds 812 distinct concepts on average; an IID batch of the same draws 497: 1.6 times as many."
    )
    assert rare == "Of 60.0 rare concepts of its draws a batch holds 30.0, an IID batch 10.0: 3.0 times as many."
    assert moved.startswith("The batches moved towards the target: their distance from it is 0.1")


def test_headlines_of_what_is_not_there():
    assert len(coverage.headlines(told(rare=0, iid_rare=0, offered_rare=0))) == 2
    assert coverage.headlines(told(iid_rare=0))[1].endswith("an IID batch 0.0.")
    assert ": 1.01 times as many" in coverage.headlines(told(iid_concepts=804))[0]
    assert len(coverage.headlines(told(offered_concepts=0))) == 1


@pytest.mark.parametrize(("fill", "warned"), [(0, False), (50, False), (51, True)])
def test_warning_above_a_twentieth(fill, warned):
    mean = {"mean": {"concepts": 2.0, "iid_concepts": 2.0}, "labels": {"shares": {"wanted": [1.0]}}}
    for capped, bare, remedy in ((True, 0, "`sample.maximum`"), (False, 0, "`annotate`"), (True, 40, "`annotate`")):
        words = coverage.warnings({"rows": 1000, "fill": fill, "bare": bare} | mean, capped)
        assert len(words) == warned and all(remedy in line for line in words)
    assert coverage.warnings(None, True) == []


def test_a_sampler_that_covers_less_than_chance_is_told():
    one = {"rows": 10, "fill": 0, "mean": {"concepts": 1.9, "iid_concepts": 2.0}}
    wanting = one | {"labels": {"shares": {"wanted": [1.0]}}}
    assert "fewer than the 2.0 of an IID batch" in coverage.warnings(wanting, True)[0]
    assert coverage.warnings(one | {"labels": {"shares": {}}}, False) == [], "FM is not for coverage"


def test_equal_distances_are_no_movement():
    same = told()
    same["labels"]["distance"] |= {"achieved": 0.351, "offered": 0.349}
    assert "The batches stayed as far from the target" in coverage.headlines(same)[2]
    same["labels"]["distance"] |= {"achieved": 0.36}
    assert "The batches moved away from the target" in coverage.headlines(same)[2]
