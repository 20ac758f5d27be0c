"""Rows kept by cut against brute force; targets and classes in words and figures."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from tasks.report import cuts, scores


class Decided:
    """A select's step: decisions by shard."""

    def __init__(self, parts):
        self.parts = {str(i): part for i, part in enumerate(parts)}

    def read(self, digest, columns):
        assert columns == ["keep", "score"]
        score, keep = self.parts[digest]
        return pa.table({"keep": keep, "score": pa.array(score, pa.float32(), mask=np.isnan(score))})


def subject(parts):
    shards = [(SimpleNamespace(digest=str(i)), 0) for i in range(len(parts))]
    return SimpleNamespace(selects=(("s", Decided(parts)),), own=lambda block: [shards[i] for i in block[1]])


def curve(kind, parts, blocks=None, cut=None):
    """As the tasks of a report go about it; `blocks`: which shards each has."""
    one, numbers = subject(parts), blocks or [[*range(len(parts))]]
    known = cuts.ranges([cuts.spans(one, (0, block)) for block in numbers])
    if "s" not in known:
        return None
    bins = scores.merge(cuts.counted(one, (0, block), {"s": known["s"]["edges"]}) for block in numbers)
    return cuts.curve({"kind": kind, "cut": cut}, known["s"], bins["s"])


def parts_of(score, keep, pieces=4):
    return list(zip(np.array_split(score, pieces), np.array_split(keep, pieces), strict=True))


def level(points, x):
    """The curve at `x`, which is one of its points."""
    return dict(map(tuple, points))[x]


@pytest.mark.parametrize("blocks", [None, [[0, 1], [2, 3]], [[3], [1], [2], [0]]])
@pytest.mark.parametrize("kind", ["near_duplicates", "threshold"])
def test_rows_kept_at_every_cut(kind, blocks):
    rng = np.random.default_rng(1)
    score = rng.random(4000).astype(np.float32)
    score[rng.random(4000) < 0.1] = np.nan
    above = kind == "near_duplicates"
    keep = ~(score >= 0.7) if above else score >= 0.3
    told = curve(kind, parts_of(score, keep), blocks)
    assert told["above"] is above and told["about"] == ("groups" if above else "") and told["outside"] == 0
    assert told["cut"] == (np.nanmin(score[~keep]) if above else np.nanmin(score[keep]))
    assert len(told["points"]) > 300
    for x, rows in told["points"][:-1]:
        # What is rounded for the page may change sides.
        wanted = np.sum(~(score >= x)) if above else np.sum(score >= x)
        assert abs(rows - wanted) <= 1
    at = min(told["points"], key=lambda point: abs(point[0] - told["cut"]))
    assert abs(at[1] - keep.sum()) <= 20  # of one bin in 512


def test_the_direction_is_read_off_for_other_kinds():
    score = np.arange(1000, dtype=np.float32)
    assert curve("mine", parts_of(score, score < 300))["above"] is True
    assert curve("mine", parts_of(score, score >= 300))["above"] is False
    assert curve("threshold", parts_of(score, score > 2000))["above"] is False  # nothing stays


def test_few_large_scores_do_not_make_one_step_of_the_others():
    score = np.concatenate([np.linspace(0, 1, 990), [1e6] * 10]).astype(np.float32)
    told = curve("facility_location", parts_of(score, score > 0.4), cut={"kept": 1})
    assert told["outside"] == 10 and len(told["points"]) > 100 and told["points"][-1][1] >= 10
    assert told["points"][0] == [0.0, 1000] and told["points"][-1][0] < 2


def test_whole_numbers_and_infinite_ones():
    score = np.array([0, 0, 1, 1, 2, 3, np.inf, -np.inf, np.nan], np.float32)
    told = curve("threshold", [(score, score >= 1)])
    assert told["points"][:4] == [[-0.5, 8], [0.5, 5], [1.5, 3], [2.5, 2]] and told["cut"] == 1


@pytest.mark.parametrize(
    ("kind", "score", "keep"),
    [
        ("exact_duplicates", [np.nan] * 4, [True, False, True, False]),  # nothing was scored
        ("threshold", [1, 2, 3, 4], [True] * 4),  # nothing went
        ("near_duplicates", [np.nan, 1, 1, 1], [True, False, False, False]),  # all at once
        ("balance", [0.1, 0.5, 0.7, 1], [True, False, False, True]),  # a probability
        ("near_duplicates", [], []),
    ],
)
def test_no_curve(kind, score, keep):
    assert curve(kind, [(np.array(score, np.float32), np.array(keep, bool))]) is None


def test_balance_with_a_target_has_a_cut():
    score = np.arange(1, 101, dtype=np.float32)
    told = curve("balance", parts_of(score, score < 40), cut={"kept": 39, "rows": 100})
    assert told["above"] is True and told["cut"] == 40 and level(told["points"], 39.5) == 39


def test_each_class_has_a_cut_of_its_own():
    score = np.arange(100, dtype=np.float32)
    told = curve("gais", parts_of(score, score % 50 > 20), cut={"groups": [{}, {}]})
    assert told["cut"] is None and told["about"] == "classes"


def group(name, rows, kept):
    return {"name": name, "rows": rows, "kept": kept, "score": [0.0, 0.1, 0.2, 0.3, 1.0]}


def test_the_largest_classes_are_shown_and_the_rest_is_summed():
    groups = [group(f"c{i}", 10 * i, i) for i in range(1, 61)]
    cut = {"rows": 10 * 1830 + 500, "kept": 1830 + 50, "group_count": 1060, "groups": groups}
    told = cuts.classes(cut)
    assert [one["name"] for one in told["shown"]] == [f"c{i}" for i in range(60, 20, -1)]
    assert told["others"] == 1020 and told["rows"] == 500 + 2100 and told["kept"] == 50 + 210
    assert cuts.classes(None) is None and cuts.classes({"kept": 1, "rows": 2}) is None


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        ({"unit": "rows", "amount": 2000, "wanted": 2000, "size": 2000}, "target 2,000 rows: 1,500 rows are kept"),
        ({"unit": "fraction", "amount": 0.4, "wanted": 1500, "size": 1500}, "target 40.0 %, 1,500 rows: 1,500 rows"),
        ({"unit": "bytes", "amount": 1e7, "wanted": 10**7, "size": 9_980_000}, "10.0 MB: 1,500 rows with 10.0 MB are"),
        ({"unit": "tokens", "amount": 9e3, "wanted": 9000, "size": 8998}, "9,000 tokens: 1,500 rows with 8,998 tokens"),
        (
            {"unit": "rows", "amount": 9999, "wanted": 9999, "size": 1500, "short": True},
            "not reached, all 1,500 rows are",
        ),
        ({"group_count": 12, "groups": []}, "quotas of 12 groups keep 1,500 of 4,000 rows"),
        ({}, ""),
        (None, ""),
    ],
)
def test_what_was_met_in_words(cut, words):
    told = cuts.met(cut and {"rows": 4000, "kept": 1500, "short": False, **cut})
    assert words in told and bool(told) == bool(words)
