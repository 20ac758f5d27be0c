"""What the report says of the mix: facts from weights, warnings by thresholds, the page and the card."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from parsed import EVIL, Tags, words

from configs.curate import Report
from storage.steps import Step
from tasks.mix.ess import sums
from tasks.report import html, markdown, mixed, pages, rounds, svg, weighed
from tasks.report.subject import Picking

PICKING = Picking("uds", Step("s", "mix", "temperature", "f"), 32, 16, 4, None, 3, ())


def weights_of(uses, group, groups, draws=None):
    """What `concentration.gather` returns of rows with these uses and groups, none of them a copy."""
    uses, group = np.array(uses), np.array(group)
    draws = np.maximum(uses, 1) if draws is None else np.array(draws)
    each = [uses[(group == one) & (uses > 0)] for one in range(groups)]
    columns = {
        "kept": [len(one) for one in each],
        "uses": [float(one.sum()) for one in each],
        "squares": [float((one * one).sum()) for one in each],
        "most": [float(one.max(initial=0)) for one in each],
        "draws": np.bincount(group, draws, groups).tolist(),
        "drawn": np.bincount(group[draws > 0], minlength=groups).tolist(),
        "bytes": [1e6] * groups,
    }
    rows = list(sums(uses[uses > 0]))
    return {"groups": columns, "rows": rows, "drawn": list(sums(uses[draws > 0])), "exact": rows, "near": rows} | {
        "top": 0.1
    }


def plan_of(names, rows, counts, **more):
    return {"groups": list(names), "rows": list(rows), "counts": np.array(counts).tolist()} | more


@pytest.fixture
def facts():
    """Of three groups of 4, 10 and 20 rows, the first of which is repeated."""
    uses = [8, 8, 8, 8] + [1] * 8 + [0] * 2 + [1] * 20
    group = [0] * 4 + [1] * 10 + [2] * 20
    planned = [[0.6, 0.2, 0.2], [0.2, 0.3, 0.5]]
    plan = plan_of("abc", [4, 10, 20], [[16, 8, 8], [18, 4, 10]], planned=planned, facts={})
    return weighed.told(weights_of(uses, group, 3), plan, PICKING, ("image_embedding", 16))


@pytest.fixture
def learned():
    rng = np.random.default_rng(0)
    names = [f"g{at}" for at in range(20)]
    ours = [
        {
            "step": 10 * at,
            "losses": (5 - 0.2 * at + rng.random(20)).tolist(),
            "proportions": rng.dirichlet(np.ones(20)).tolist(),
            "matrix": rng.standard_normal((20, 20)).tolist(),
        }
        for at in range(5)
    ]
    ours[4]["losses"][0] = math.nan
    told = {"kind": "aioli", "mode": "unrestricted", "groups": names, "rounds": ours, "final_losses": [3.5] * 20}
    return told | {"stopped": f"the proxy diverged at step 41 {EVIL}", "left_out": [f"small {EVIL}"]}


def section(page):
    return page[page.index('<section id="mixed">') :].split("</section>")[0]


def with_mix(summary, told):
    return summary | {"mixed": json.loads(json.dumps(told))}


def test_facts_of_groups_and_of_the_whole(facts):
    a, b, c = sorted(facts["groups"], key=lambda one: one["group"])
    assert (a["rows"], a["draws"], a["uses"], a["kept"], a["epochs"]) == (4, 34, 32, 4, 8)
    assert a["planned"] == pytest.approx(0.4) and a["drawn"] == 34 / 64 and a["achieved"] == 32 / 60
    assert a["weight"] == pytest.approx((32 / 60) / (4 / 34)) and (a["ess"], a["rho"]) == (4, 1)
    assert (b["kept"], b["ess"], b["rho"], b["epochs"]) == (8, 8, 1, 0.8) and c["ess"] == 20
    assert facts["rows"]["ess"] == pytest.approx(3600 / 284) and facts["rows"]["n"] == 32
    assert facts["rows"]["deff"] == pytest.approx(32 * 284 / 3600)
    p, q = np.array([32, 8, 20]) / 60, np.array([4, 10, 20]) / 34
    assert facts["efficiency"] == pytest.approx(1 / (p * p / q).sum())
    assert facts["epochs"] == {"group": "a", "most": 8} and facts["heaviest"]["group"] == "a"
    assert facts["sampler"]["taken"] / facts["sampler"]["of"] == 0.25
    assert facts["moved"]["from"] == [("b", 4), ("c", 4)] and facts["moved"]["to"] == [("a", 8)]
    json.dumps(facts, allow_nan=False)


def test_page_and_card(summary, thumbnails, facts):
    page = html.render(with_mix(summary, facts), thumbnails)
    assert Tags(page).open == [] and page.count('href="#mixed"') == 1
    text = words(section(page))
    for expected in (
        "Groups: rho 0.375 of their shares against the natural ones. Rows: the 32 that are used weigh as much as 13 "
        "of equal weight (rho 0.396, design effect 2.52). At most 8 epochs (group a).",
        "rho tells what uneven weight costs: with rho 0.4 an average over the mix is as uncertain as one over 40 %",
        "picks 4 of every 16 draws: rho 0.25 of its draws by choice",
        "a 4 1.0 MB 40.0 % 53.1 % 53.3 % 8 4.53 4 1",
        "8 draws went to other groups than planned. Fewer: b (4), c (4). More: a (8).",
        "2 rounds",
    ):
        assert expected in text, expected
    assert "What was learned" not in text
    assert "Groups: rho 0.375 of their shares" in markdown.card(with_mix(summary, facts))


def test_older_mixes_have_no_such_section(summary, thumbnails):
    page = html.render(summary, thumbnails)
    assert "The mix</h2>" not in page and "#mixed" not in page
    assert "efficiency" not in markdown.card(summary) and mixed.warnings(None, {}) == []


def test_mixes_of_older_stores_are_planned_as_they_were_drawn():
    plan = plan_of("ab", [10, 10], [[15, 5]])
    told = weighed.told(weights_of([1] * 20, [0] * 10 + [1] * 10, 2), plan, PICKING, None)
    assert [one["planned"] for one in told["groups"]] == [0.75, 0.25] and told["moved"]["draws"] == 0
    assert told["near"] is None and told["learned"] is None and told["over"] is None


def test_nothing_is_said_of_an_empty_mix():
    assert weighed.told(weights_of([0, 0], [0, 1], 2), plan_of("ab", [1, 1], [[0, 0]]), PICKING, None) is None


def test_many_groups_are_summed(summary, thumbnails):
    names, rows = [f"g{at:04d}" for at in range(1000)], np.arange(1, 1001)
    uses, group = np.ones(rows.sum(), int), np.repeat(np.arange(1000), rows)
    told = weighed.told(weights_of(uses, group, 1000), plan_of(names, rows.tolist(), [rows]), PICKING, None)
    assert len(told["groups"]) == 60 and told["groups"][0]["group"] == "g0999"
    assert told["others"]["groups"] == 940
    assert told["others"]["rows"] + sum(one["rows"] for one in told["groups"]) == rows.sum()
    assert told["others"]["achieved"] + sum(one["achieved"] for one in told["groups"]) == pytest.approx(1)
    page = html.render(with_mix(summary, told), thumbnails)
    assert section(page).count('<td class="name">') == 60 and "940 more" in words(section(page))
    assert len(json.dumps(told)) < 60_000


# ------------------------------------------------------------------------------------------------------------ warnings
def kinds(told, **settings):
    return [kind for kind, _ in mixed.warnings(told, settings)]


def test_thresholds(facts):
    assert kinds(facts) == ["repeats"]
    (text,) = [text for _, text in mixed.warnings(facts, {})]
    assert text.startswith(
        "1 group is repeated more than 4 times (`report.epochs_warning`), the most 8: 'a'. Set `mix.m"
    )
    assert kinds(facts, epochs_warning=None) == kinds(facts, epochs_warning=8.0) == []
    found = mixed.warnings(facts, {"efficiency_warning": 0.4})
    assert [kind for kind, _ in found] == ["efficiency", "efficiency", "repeats"]
    assert (
        "'a' has 4.533 times its natural share: rho 0.37, below `report.efficiency_warning` (0.4). Bring" in found[0][1]
    )
    assert "few rows are repeated often" in found[1][1] and "`mix.max_epochs`" in found[1][1]
    strong = mixed.warnings(facts, {"efficiency_warning": 0.5, "efficiency_alarm": 0.38})
    assert "below `report.efficiency_alarm` (0.38)" in strong[0][1] and "efficiency_warning` (0.5)" in strong[1][1]
    assert kinds(facts, efficiency_warning=0, efficiency_alarm=0.5, epochs_warning=None) == []
    defaults = Report()
    assert (defaults.efficiency_warning, defaults.efficiency_alarm, defaults.epochs_warning) == (0.3, 0.1, 4)


@pytest.mark.parametrize(
    ("exact", "near", "remedy"),
    [(0.2, 0.2, "`exact_duplicates`"), (1.0, 0.2, "`near_duplicates`"), (0.31, 0.3, None)],
)
def test_copies_are_warned_of_once(facts, exact, near, remedy):
    whole = facts["rows"]["ess"]
    facts["exact"] |= {"ess": exact * whole, "ratio": exact}
    facts["near"] |= {"ess": near * whole, "ratio": near}
    found = [text for kind, text in mixed.warnings(facts, {}) if kind == "efficiency"]
    assert len(found) == (remedy is not None) and all(f"Put {remedy} into `select`" in text for text in found)
    assert all("a share of 0.2, below `report.efficiency_warning`" in text for text in found)


def test_a_skewed_sampler_is_warned_of(facts):
    facts["sampler"]["efficiency"] = 0.05
    assert any("what the sampler picks by group is far from" in text for _, text in mixed.warnings(facts, {}))


def test_drawn_again_with_other_thresholds(tmp_path, summary, thumbnails, facts):
    summary = with_mix(summary, facts)
    old = [text for _, text in mixed.warnings(summary["mixed"], summary["settings"])]
    summary["notes"] = ["another note", *old]
    pages.publish(str(tmp_path), summary, thumbnails)
    pages.draw_again(str(tmp_path), {"efficiency_warning": 0.4, "epochs_warning": None})
    notes = pages.facts(str(tmp_path))["notes"]
    assert notes[0] == "another note" and len(notes) == 3 and not {*notes} & {*old}
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count('class="tile warn"') == 2 and "efficiency_warning" in words(page)
    pages.draw_again(str(tmp_path), {"efficiency_warning": 0.3, "epochs_warning": 4.0})
    assert pages.facts(str(tmp_path))["notes"] == ["another note", *old]


# -------------------------------------------------------------------------------------------------------------- rounds
def test_learned_laws(summary, thumbnails, facts, learned):
    facts["learned"] = rounds.learned(learned)
    json.dumps(facts, allow_nan=False)
    last = learned["rounds"][-1]["proportions"]
    assert facts["learned"]["names"] == [learned["groups"][at] for at in np.argsort(last)[::-1][:8]]
    page = html.render(with_mix(summary, facts), thumbnails)
    found = section(page)
    assert Tags(page).open == [] and EVIL not in page
    text = words(found)
    for expected in (
        "What was learned aioli, unrestricted mode, 5 rounds on 20 groups",
        "the proxy diverged at step 41",
        "Left out of the learning: small",
        "12 more are not drawn",
        "Matrix A at step 0",
        "Matrix A at step 40",
        "Of the groups with the largest proportions alone",
    ):
        assert expected in text, expected
    assert found.count("<polyline") == 16 and found.count('<td style="background:rgb(') == 2 * 12 * 12
    told = facts["learned"]["matrices"][0]
    at = [learned["groups"].index(name) for name in told["names"]]
    assert told["cells"] == np.array(learned["rounds"][0]["matrix"])[np.ix_(at, at)].tolist()


def test_laws_that_say_little(summary, thumbnails, facts):
    assert rounds.learned({}) is None and rounds.learned({"rounds": [], "groups": ["a"]}) is None
    one = {"step": 0, "losses": None, "proportions": [0.5, 0.5], "matrix": None}
    little = {"kind": "mixing_law", "groups": ["a", "b"], "rounds": [one]}
    facts["learned"] = rounds.learned(little)
    text = words(section(html.render(with_mix(summary, facts), thumbnails)))
    assert "What was learned mixing_law, 1 round on 2 groups Proportions" in text and "Losses" not in text
    assert "Matrix" not in text


def test_many_rounds_are_thinned():
    counts = np.random.default_rng(0).integers(0, 9, (1000, 12))
    told = rounds.drawn(counts, [f"g{at:02d}" for at in range(12)])
    assert len(told["first"]) == 60 and told["others"] == 4 and np.sum(told["counts"]) == counts.sum()
    page = rounds.shares(told)
    assert page["drawing"].count("<polygon") == 9 and page["names"][-1] == {"class": "rest", "name": "4 more"}
    assert ">round</text>" in page["drawing"]
    assert rounds.drawn(counts[:1], ["a"]) is None


def test_lines_of_one_point_and_of_one_value():
    drawing = svg.lines([("s0", [(3.0, 2.0)])], title="t", across="step", up="nats")
    assert "<circle" in drawing and "nan" not in drawing
    flat = svg.lines([("s0", [(0, 1.0), (1, 1.0)])], title="t", across="step", up="nats")
    assert flat.count("<polyline") == 1 and "nan" not in flat
