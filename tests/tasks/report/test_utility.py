"""What is found of a sampler's values: counts, means, what each term decided, rows at the ends; against brute force."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from valued import draws, leave, table

from configs.errors import Defect
from storage.exchange import SHARD
from storage.steps import Step
from tasks.report import scores, utility


@pytest.fixture
def step(tmp_path):
    return Step(str(tmp_path), "sample", "uds", "0" * 12)


def found(step, told, *, parts=3, micro=4, size=8):
    """What is found of `told` in equal parts of whole superbatches."""
    rows = told.num_rows // parts
    for number in range(parts):
        leave(step, number, told.slice(number * rows, rows))
    return utility.found(step, [rows] * parts, told.num_rows // size, size, micro)


def column(told, name):
    return told[name].to_numpy().astype(np.float64)


def test_distributions_and_means_are_of_all_candidates_and_of_the_picks(step):
    told = draws(240)
    one = found(step, told)
    picked = told["picked"].to_numpy()
    assert one["values"] == ["intra", "inter", "total"] and (one["draws"], one["picked"]) == (240, 60)
    for shape in one["distributions"]:
        value, edges = column(told, shape["name"]), np.array(shape["edges"])
        assert shape["before"] == np.histogram(value, edges)[0].tolist() and shape["outside"] == [0]
        assert shape["after"] == np.histogram(value[picked], edges)[0].tolist() and sum(shape["after"]) == 60
        assert one["means"][shape["name"]] == pytest.approx([value.mean(), value[picked].mean()])
    assert json.loads(json.dumps(one)) == one


def test_parts_change_nothing_but_the_order_of_sums(step, tmp_path):
    told = draws(240)
    one, other = found(step, told, parts=1), found(Step(str(tmp_path), "sample", "uds", "1" * 12), told, parts=3)
    assert one["distributions"] == other["distributions"] and one["over"]["first"] == other["over"]["first"]
    assert one["terms"]["agree"] == other["terms"]["agree"]
    assert one["terms"]["spread"] == pytest.approx(other["terms"]["spread"])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(4, 1), (4, 4), (8, 3), (2, 1)]), st.sampled_from([0.0, 0.5, 40.0]))
def test_terms_against_brute_force(seed, share, alpha):
    (micro, taken), count = share, 80
    told = draws(count, micro=micro, taken=taken, seed=seed, alpha=alpha)
    terms = utility.Terms(micro)
    intra, inter, total = (column(told, name) for name in utility.TERMS)
    picked = told["picked"].to_numpy()
    terms.add({"intra": intra, "inter": inter, "total": total}, picked)
    agree, rho, variances = {"intra": 0, "inter": 0}, {"intra": [], "inter": []}, {"intra": [], "inter": []}
    for at in range(0, count, micro):
        here = slice(at, at + micro)
        mine = {at + i for i in np.flatnonzero(picked[here])}
        for name, values in (("intra", intra), ("inter", inter)):
            best = sorted(range(at, at + micro), key=lambda i: (-values[i], i))[:taken]
            agree[name] += len(mine & {*best})
            rho[name].append(stats.spearmanr(values[here], total[here]).statistic)
        variances["intra"].append(intra[here].var())
        variances["inter"].append((total - intra)[here].var())
    one = terms.told()
    assert (one["batches"], one["left_out"], one["picks"]) == (count // micro, 0, count // micro * taken)
    assert one["agree"] == agree | {"chance": pytest.approx(count // micro * taken**2 / micro)}
    assert one["correlation"] == pytest.approx({name: np.mean(values) for name, values in rho.items()})
    assert one["spread"] == pytest.approx({name: np.sqrt(np.mean(values)) for name, values in variances.items()})
    if alpha == 0:  # what utility alone would pick is what was picked
        assert one["agree"]["intra"] == one["picks"] and one["spread"]["inter"] == 0


def test_micro_batches_with_a_value_that_is_not_finite_are_left_out(step):
    told = draws(48)
    total = column(told, "total")
    total[5], total[9] = np.nan, np.inf
    one = found(step, told.set_column(8, "total", pa.array(total, pa.float32())))
    assert (one["terms"]["batches"], one["terms"]["left_out"]) == (10, 2)
    assert one["missing"] == {"intra": 0, "inter": 0, "total": 2}
    assert np.isfinite(one["means"]["total"]).all()


def test_nothing_but_nan(step):
    nothing = np.full(48, np.nan)
    one = found(step, draws(48, intra=nothing, inter=nothing, total=nothing))
    assert one["distributions"] == [] and one["means"]["total"] == [None, None] and one["missing"]["total"] == 48
    assert one["terms"]["batches"] == 0 and one["terms"]["correlation"] == {"intra": None, "inter": None}
    assert one["over"]["bins"]["candidates"] == [None] * 6 and one["over"]["low"]["candidates"] == [None] * 6
    assert utility.extremes(step, [16] * 3, 4, str) == {"high": [], "low": []}
    json.dumps(one, allow_nan=False)


def test_constant_values(step):
    same = np.full(48, 7.0)
    one = found(step, draws(48, intra=same, inter=same * 0, total=same))
    assert one["terms"]["correlation"] == {"intra": None, "inter": None}
    assert one["terms"]["spread"] == {"intra": 0, "inter": 0}
    assert sum(sum(shape["before"]) for shape in one["distributions"]) == 3 * 48


def test_no_picks(step):
    one = found(step, draws(48, picked=np.zeros(48, bool)))
    assert one["picked"] == 0 and one["means"]["total"][1] is None and one["terms"]["picks"] == 0
    assert one["over"]["bins"]["picks"] == [None] * 6
    assert all(not sum(shape["after"]) for shape in one["distributions"])


def test_diversity_over_steps(step):
    count, size = 480, 4
    inter = np.repeat(np.arange(count // size), size) + np.tile([0.0, 1, 2, 3], count // size)
    told = draws(count, inter=inter)
    over = found(step, told, size=size)["over"]
    first = np.array([*over["first"], over["steps"]])
    assert len(over["first"]) == 60 and over["steps"] == 120 and (np.diff(first) == 2).all()
    pieces, picked = inter.reshape(60, 8), told["picked"].to_numpy().reshape(60, 8)
    assert over["bins"]["candidates"] == pytest.approx(pieces.mean(axis=1).tolist())
    means = [piece[mask].mean() for piece, mask in zip(pieces, picked, strict=True)]
    assert over["bins"]["picks"] == pytest.approx(means)
    assert over["low"]["candidates"] == pieces.min(axis=1).tolist()
    assert over["high"]["candidates"] == pieces.max(axis=1).tolist()


def test_other_samplers_have_no_terms(step):
    names = {"total": "excess_loss", "intra": "loss", "inter": "x"}
    told = draws(48)
    told = told.rename_columns([names.get(name, name) for name in told.column_names])
    one = found(step, told)
    assert one["values"] == ["loss", "x", "excess_loss"] and one["terms"] is None and one["over"] is None


def test_a_store_that_knows_nothing_or_not_all(step):
    assert utility.found(step, [8], 1, 8, 4) is None  # a sampler without values, or an old store
    leave(step, 0, draws(8))
    assert utility.found(step, [2, 2], 2, 8, 4) is None
    assert utility.found(step, [2], 1, 8, 4)["draws"] == 8
    assert utility.found(step, [2, 0], 1, 8, 4)["draws"] == 8  # a part without a whole superbatch has no file
    assert utility.found(step, [0], 0, 8, 4) is None and utility.found(step, [], 0, 8, 4) is None


def test_values_that_do_not_fit_the_plan_are_a_defect(step):
    leave(step, 0, draws(48))
    with pytest.raises(Defect, match="no whole micro-batches of 5"):
        utility.found(step, [12], 6, 8, 5)
    with pytest.raises(Defect, match="the batch plan has 5 steps, but step 5 is told of"):
        utility.found(step, [12], 5, 8, 4)


def test_rows_at_the_ends(step):
    # Rows 0-9 of two files; row 3 of the second file is drawn twice: once as the best of all, once as the worst.
    total = [5.0, 9, 1, np.nan, 9, 2, 7, 0, 12, -4]
    columns = {"draw": range(10), "round": [0] * 10, "group": [0] * 10, "picked": [True, False] * 5}
    columns |= {"row": [0, 1, 2, 3, 4, 5, 6, 7, 3, 3], SHARD: [0] * 8 + [1] * 2, "total": total}
    for number in range(2):
        leave(step, number, table({k: list(v)[5 * number : 5 * number + 5] for k, v in columns.items()}))
    ends = utility.extremes(step, [1, 1], 3, lambda shard: f"file-{shard}")
    assert [(one.file, one.row, one.draw, one.picked) for one in ends["high"]] == [
        ("file-1", 3, 8, True),
        ("file-0", 1, 1, False),  # of equal ones the earlier draw
        ("file-0", 4, 4, True),
    ]
    assert [(one.row, one.values["total"]) for one in ends["low"]] == [(7, 0.0), (2, 1.0), (5, 2.0)]  # 3 is shown above
    assert utility.extremes(step, [1, 1], 0, str) == {"high": [], "low": []}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 4))
def test_ends_do_not_depend_on_the_parts(tmp_path_factory, seed, most, parts):
    rng = np.random.default_rng(seed)
    told = draws(48, seed=seed, row=rng.integers(0, 30, 48), total=rng.integers(0, 20, 48))
    step = Step(str(tmp_path_factory.mktemp("ends")), "sample", "uds", "0" * 12)
    begins = [0, *sorted(rng.choice(48, parts - 1, replace=False).tolist()), 48]
    for number, (begin, end) in enumerate(zip(begins, begins[1:], strict=False)):
        leave(step, number, told.slice(begin, end - begin))
    ends = utility.extremes(step, [1] * parts, most, str)
    total, row = column(told, "total"), told["row"].to_numpy()
    best = {one: max(total[row == one]) for one in set(row.tolist())}
    high = sorted(best, key=lambda one: (-best[one], min(np.flatnonzero((row == one) & (total == best[one])))))[:most]
    assert [one.row for one in ends["high"]] == high
    worst = {one: min(total[row == one]) for one in best if one not in high}
    low = sorted(worst, key=lambda one: (worst[one], min(np.flatnonzero((row == one) & (total == worst[one])))))[:most]
    assert [one.row for one in ends["low"]] == low


def test_common_bins_are_those_of_scores(step):
    told = draws(240)
    shape = found(step, told)["distributions"][2]
    spans = [scores.span([column(told.slice(at, 80), "total")]) for at in (0, 80, 160)]
    assert shape["edges"] == scores.edges(spans).tolist() and len(shape["before"]) == scores.BINS
