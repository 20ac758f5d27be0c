"""The passport: what `check` says beforehand, and what the report makes of it afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from corpora import config, digests, run, write_corpus
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from configs import loading
from configs.errors import ConfigError, RunFailed
from configs.methods.learned import Aioli
from configs.methods.mix import Static
from flows import kept_passports, measuring
from flows.ahead import ahead
from flows.cli import app
from flows.group_fit import refuse_unfit
from flows.group_table import planned, sizes, table
from flows.measuring import Cost, Sizes, _line, fitted, task_runs
from flows.passport import look, passport
from flows.passport_shown import _name, groups, stages, verdict
from flows.pipeline import examine
from flows.planning import score_sections
from flows.sampled import _quotas, rows_of, take, thinned
from flows.sampling_run import ran
from flows.shrinking import factors, scaled, shrunk, with_batches
from tasks.mix.aioli import perturbed, solvable

runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})


class Here:
    """Runs samples in this process."""

    def run(self, values):
        return ran(values)


@pytest.fixture
def here(monkeypatch):
    """No process of its own for runs over samples."""
    from contextlib import nullcontext

    monkeypatch.setattr(measuring, "child", lambda folder: nullcontext(Here()))


def made(settings, rows=64):
    found, _ = examine(settings)
    return passport(settings, found, look(settings, found, rows), rows, lambda line: None)


def call(folder: Path, over: dict | None = None, *arguments: str):
    (folder / "c.yaml").write_text(yaml.safe_dump(config(folder, over).model_dump(mode="json")))
    return runner.invoke(app, ["check", str(folder / "c.yaml"), *arguments])


# ------------------------------------------------------------------------------------------------------------- sample
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=80), st.integers(1, 3000))
def test_quotas_are_no_more_than_there_is_and_about_what_is_wanted(rows, wanted):
    taken = _quotas(np.array(rows, np.int64), wanted)
    assert (taken <= rows).all() and (taken >= 0).all()
    if wanted >= sum(rows):
        assert (taken == rows).all()
    elif len(rows) <= 32:
        assert taken.sum() == wanted
    else:
        assert 0 < taken.sum() <= wanted + 32


def test_a_sample_is_spread_over_files_and_the_same_every_time(corpus):
    found, _ = examine(config(corpus))
    pieces = take(found, 70)
    assert rows_of(pieces) == 70 and len(pieces) == 7
    again = take(found, 70)
    assert all(a.table.equals(b.table) for a, b in zip(pieces, again, strict=True))
    keys = pieces[0].table["key"].to_pylist()  # of row groups of 25, 25 and 10 rows
    assert {"k-1-0", "k-1-25", "k-1-50"} <= {*keys}
    assert rows_of(take(found, 10_000)) == 420
    assert rows_of(thinned(pieces, 20)) == 20


def test_a_damaged_file_is_no_reason_to_fail(corpus):
    data = bytearray((corpus / "in" / "00003.parquet").read_bytes())
    data[4:400] = bytes(396)  # the footer is whole
    (corpus / "in" / "00003.parquet").write_bytes(bytes(data))
    told = call(corpus, None, "--sample", "0")
    assert told.exit_code == 0 and "7 files, 420 rows" in told.output


# ---------------------------------------------------------------------------------------------------------- shrinking
def test_budgets_shrink_with_the_sample_and_shares_do_not():
    values = {"kind": "x", "target_rows": 1000, "target_fraction": 0.5, "budget_tokens": 800, "budget": None, "n": 7}
    assert scaled(values, 0.01, learns=True) == values | {"target_rows": 10, "budget_tokens": 8}
    balance = {"kind": "balance", "threshold": 500.0}
    assert scaled(balance, 0.1, learns=True) == {"kind": "balance", "threshold": 50.0}
    assert scaled({"kind": "minhash", "threshold": 0.8}, 0.1, learns=True)["threshold"] == 0.8
    nested = {"kind": "trajectories", "proxy": {"kind": "trajectory", "train_rows": 200_000}}
    assert scaled(nested, 0.01, learns=True)["proxy"]["train_rows"] == 2000
    assert scaled(nested, 0.01, learns=False)["proxy"]["train_rows"] == 200_000


def test_a_law_that_looks_at_counts_alone_is_measured_as_natural(corpus):
    settings = config(corpus, {"mix": {"kind": "static", "proportions": {"web": 1.0, "rare": 2.0}, "budget": 100}})
    values = shrunk(settings, [{"name": None}], "/x", 0.1, learn=True)
    assert values["mix"] == {"kind": "natural", "groups": None, "budget": 10, "max_epochs": None} | {
        name: None for name in Static.model_fields if name.startswith("budget_")
    }
    assert values["store"] == "/x/store" and values["emit"]["out"] == "/x/out"


@pytest.mark.parametrize("kind", ["static", "aioli"])
def test_a_listed_score_that_makes_the_groups_shrinks_with_them(corpus, kind):
    """Saw: where one of the two was not scaled, StageError: two settings of `train_rows`."""
    over = {"score": [{"kind": "cluster"}], "mix": {"kind": kind, "groups": {"kind": "cluster"}}}
    settings = config(corpus, over)
    assert score_sections(settings)
    values = shrunk(settings, [{"name": None, "path": "/x"}], "/x", 0.01, learn=True)
    small = loading.validate(values)
    made_ = [section for section, _ in score_sections(small) if section.kind == "cluster"]
    assert [section.train_rows for section in made_] == [2000] == [small.mix.groups.train_rows]


@pytest.mark.parametrize(
    "sample",
    [
        {"kind": "iid", "batch_size": 4096, "world_size": 4},
        {"kind": "cabs_dm", "superbatch_size": 20_000, "filter_ratio": 0.8},
        {"kind": "cabs_fm", "batch_size": 900, "filter_ratio": 0.05, "world_size": 3},
    ],
)
def test_batches_become_so_small_that_the_sample_fills_two(corpus, sample):
    settings = loading.validate(config(corpus).model_dump(mode="json") | {"sample": sample})
    small = loading.validate(with_batches(settings.model_dump(mode="json"), 100)).sample
    assert small.superbatch <= 50 and small.world_size == settings.sample.world_size
    assert small.filter_ratio == settings.sample.filter_ratio
    assert with_batches(settings.model_dump(mode="json"), 10**6)["sample"]["batch_size"] == settings.sample.batch_size


LEARNED = {"kind": "language", "text": "text"}


@pytest.mark.parametrize("kind", ["aioli", "doremi", "doge", "skill_it", "mixing_law"])
def test_trainings_are_shortened_and_the_short_ones_are_valid(corpus, kind):
    rounds = {} if kind == "mixing_law" else {"rounds": 8}
    rounds |= {"sweeps": 4} if kind == "aioli" else {}
    settings = config(corpus, {"mix": {"kind": kind, "steps": 2000, "proxy": LEARNED, **rounds}})
    short, factor = settings.mix.shortened()
    assert short.steps == 32 and short.rounds == 1 and factor == 2000 / 32
    assert loading.validate(settings.model_dump(mode="json") | {"mix": short.model_dump(mode="json")}).mix == short
    assert factors(settings) == {"mix": factor}


def test_a_shortened_aioli_has_room_for_as_many_groups_as_the_whole():
    whole = Aioli(steps=6400, rounds=2, sweeps=4, burst_steps=10)  # 80 groups fit
    short, _ = whole.shortened()
    assert short.round_steps >= 80 * short.sweeps * short.burst_steps and Aioli.model_validate(short.model_dump())
    assert solvable(perturbed(80, 1 - short.perturbation + short.perturbation / 80))


def test_what_does_not_train_is_left_as_it_is(corpus):
    settings = config(corpus)
    assert all(one.shortened() == (one, 1.0) for one in (*settings.select, settings.mix, settings.sample))
    assert factors(settings) == {}
    gais = config(corpus, {"select": [{"kind": "gais", "tune_trials": 3}]}).select[0]
    assert gais.shortened()[0].network.epochs == 10 and gais.shortened()[1] == 200.0
    curves = {"kind": "pools", "samples_seen": 100, "curves": {"passes": 10}}
    assert config(corpus, {"select": [curves]}).select[0].shortened()[1] == 5.0


# ---------------------------------------------------------------------------------------------------------------- fit
@given(st.floats(0, 10), st.floats(0, 1), st.floats(0, 0.1))
def test_a_cost_that_is_a_line_is_found(fixed, shard, row):
    true = Cost(fixed, shard, row)
    sizes = [Sizes(100, 2), Sizes(100, 8), Sizes(400, 8)]
    line = _line([true.of(one.shards, one.rows) for one in sizes], *sizes)
    assert line.of(50, 10_000) == pytest.approx(true.of(50, 10_000), rel=1e-6, abs=1e-6)


def test_no_part_of_a_cost_is_below_nothing():
    line = _line([3.0, 2.0, 1.0], Sizes(100, 2), Sizes(100, 8), Sizes(400, 8))
    assert (line.fixed, line.shard, line.row) == (1.0, 0.0, 0.0)


def told(seconds, plan=0.0, calls=None):
    stage = {"seconds": seconds, "cpu": seconds, "bytes": 10, "calls": calls or [["plan", 0, 1, plan]]}
    return {"stages": {"mix": stage}, "funnel": [], "groups": {}}


def test_a_short_training_is_made_whole_and_what_it_loads_is_counted_once(corpus):
    settings = config(corpus, {"mix": {"kind": "aioli", "steps": 2000, "rounds": 8, "sweeps": 4, "proxy": LEARNED}})
    runs = [(Sizes(100, 2), told(1.0)), (Sizes(100, 8), told(1.0)), (Sizes(400, 8), told(5.0, plan=4.0))]
    found = fitted(settings, told(15.0, plan=14.0), runs, 10_000, 64)
    assert found.seconds["mix"].of(8, 10_000) == pytest.approx(1.0 + 4.0 * 2000 / 32)
    assert found.cold["mix"] == pytest.approx(10.0)


def test_task_runs_follow_the_shards(corpus):
    calls = [["embed", 8, 8, 0.1], ["decide", 8, 4, 0.1], ["fit", 0, 1, 0.1], ["write", 2, 2, 0.1]]
    assert task_runs(config(corpus), calls, 8, 8) == 8 + 4 + 1 + 2
    assert task_runs(config(corpus), calls, 8, 1000) == 16 + 6 + 1 + 2


# ------------------------------------------------------------------------------------------------------------- groups
def test_groups_are_counted_and_planned(corpus):
    over = {"mix": {"kind": "uniform", "budget": 4000, "max_epochs": 2}}
    found = made(config(corpus, over), rows=0)
    rows = {}
    for file in (corpus / "in").iterdir():
        for name in pq.read_table(file)["source"].to_pylist():
            rows[name] = rows.get(name, 0) + 1
    lines = {line["group"]: line for line in found["groups"]["lines"]}
    assert {name: line["rows"] for name, line in lines.items()} == rows
    assert all(line["epochs"] <= 2 for line in lines.values()) and found["mix"]["draws"] == 840
    assert found["mix"]["short"] == 8000 - 840  # a filter ratio of a half draws two rows for each
    q = np.array([rows[name] for name in sorted(rows)]) / 420
    assert found["mix"]["rho"] == pytest.approx(1 / (np.array([1, 1, 1]) * q).sum())  # capped: each drawn twice


def test_what_the_law_refuses_is_refused_before_anything_is_measured(corpus, monkeypatch):
    monkeypatch.setattr(measuring, "child", None)
    told = call(corpus, {"mix": {"kind": "static", "proportions": {"web": 1.0, "moon": 2.0}}})
    assert told.exit_code == 2 and "moon" in told.output and "is fine" not in told.output
    with pytest.raises(ConfigError):
        settings = config(corpus, {"mix": {"kind": "static", "proportions": {"moon": 1.0}}})
        look(settings, examine(settings)[0], 10)


def test_a_group_that_the_sample_lost_is_planned_with_a_guess(corpus):
    """Saw: 3 rows sampled of 3,000, none kept; the mix has the group all the same, and a note says so."""
    settings = config(corpus, {"mix": {"kind": "static", "proportions": {"web": 9.0, "rare": 1.0}}})
    measures = {
        name: {"rows": n, "bytes": 10.0 * n, "tokens": n} for name, n in ((None, 1024), ("web", 1021), ("rare", 3))
    }
    lines = table({"web": 997_000, "rare": 3000}, measures, {"web": 817})
    assert [line["kept"] for line in lines] == [817 / 1021, 0.0]
    lines, told = planned(settings, lines, 1_000_000, 817 / 1024, measures)
    assert [line["proportion"] for line in lines] == pytest.approx([0.9, 0.1], abs=1e-5)
    assert lines[1]["draws"] / lines[1]["epochs"] == pytest.approx(3000 * 817 / 1024 / 4, abs=1)
    assert any("no sampled row is kept of rare" in note for note in told["notes"])
    _, told = planned(settings, table({"rare": 3}, measures, {"web": 1}), 3, 0.0, measures)
    assert told["draws"] is None and told["notes"] == ["no sampled row is kept: nothing is planned"]


def test_what_the_law_does_not_find_in_a_sample_is_a_note(corpus):
    shares = {"cluster 0": 1.0, "cluster 7": 1.0}
    settings = config(corpus, {"mix": {"kind": "static", "groups": {"kind": "cluster"}, "proportions": shares}})
    lines = table({}, {}, {"cluster 0": 40, "cluster 1": 60})
    found, told = planned(settings, lines, 1000, 0.5, {})
    assert found == lines and told["draws"] is None
    assert [
        note
        for note in told["notes"]
        if "by the sample's groups the mix would be refused" in note and "cluster 7" in note
    ]


def test_a_budget_in_tokens_takes_the_mean_where_the_run_makes_the_groups(corpus):
    over = {"mix": {"kind": "uniform", "groups": {"kind": "cluster"}, "budget_tokens": 3200, "max_epochs": 100}}
    settings = config(corpus, over | {"sample": {"kind": "iid", "batch_size": 16}})
    every = {None: {"rows": 100.0, "bytes": 0.0, "tokens": 400.0}}
    _, told = planned(settings, table({}, every, {"cluster 0": 40, "cluster 1": 60}), 1000, 1.0, every)
    assert told["unit"] == "words" and told["mean"] == pytest.approx(4.0) and told["draws"] in (784, 800)


@pytest.mark.parametrize(
    ("mix", "wrong"),
    [
        ({"kind": "aioli", "steps": 80, "rounds": 8, "sweeps": 4, "burst_steps": 4}, "`mix.sweeps` 4"),
        ({"kind": "aioli", "prior": {"moon": 1.0}, "prior_steps": 400}, "moon"),
        ({"kind": "mixing_law", "runs": 3}, "`mix.runs` is 3"),
    ],
)
def test_what_a_learned_law_cannot_do_is_refused_before_the_run(corpus, mix, wrong, monkeypatch):
    """Saw: counted groups refuse; estimated ones, and as many as a score may make, are a note."""
    monkeypatch.setattr(measuring, "child", None)
    mix = mix | {"proxy": LEARNED}
    told = call(corpus, {"mix": mix})
    assert told.exit_code == 2 and wrong in told.output and "is fine" not in told.output
    settings, rows = config(corpus, {"mix": mix}), {"art": 100, "books": 100, "web": 100}
    with pytest.raises(ConfigError, match=wrong):
        refuse_unfit(settings, rows, True)
    refuse_unfit(settings, rows, False)
    lines = table(rows, {}, {})
    assert any(wrong in note for note in planned(settings, lines, 300, 1.0, {})[1]["notes"])


def test_groups_too_small_to_be_learned_on_refuse_nothing(corpus):
    settings = config(corpus, {"mix": {"kind": "mixing_law", "runs": 3, "proxy": LEARNED}})
    refuse_unfit(settings, {"art": 7, "books": 100, "web": 100}, True)
    refuse_unfit(config(corpus, {"mix": {"kind": "mixing_law", "runs": 2, "proxy": LEARNED}}), {"web": 100}, True)


@pytest.mark.parametrize(
    ("groups", "bound"),
    [
        ({"kind": "cluster", "clusters": 8}, 9),
        ({"kind": "concept_group", "count": 30}, 31),
        ({"kind": "concept_group", "concepts": ["red", "blue"]}, 3),
    ],
)
def test_groups_that_the_run_makes_are_bounded_by_the_configuration(corpus, groups, bound):
    def told(runs):
        settings = config(corpus, {"mix": {"kind": "mixing_law", "runs": runs, "proxy": LEARNED, "groups": groups}})
        return planned(settings, [], 420, 1.0, {})[1]["notes"]

    assert told(bound + 1) == [] and len(told(bound)) == 1
    assert f"with {bound} groups, as many as there may be, the mix would be refused" in told(bound)[0]
    prior = {
        "kind": "aioli",
        "groups": groups,
        "proxy": LEARNED,
        "prior": {"x": 1.0},
        "prior_steps": 400,
        "steps": 8400,
    }
    assert planned(config(corpus, {"mix": prior}), [], 420, 1.0, {})[1]["notes"] == []


def test_the_group_of_empty_strings_is_not_all_rows(tmp_path):
    (tmp_path / "in").mkdir()
    rows = pa.table({"text": ["a b"] * 4 + ["c"] * 6, "source": [""] * 4 + ["x"] * 6})
    pq.write_table(rows, tmp_path / "in" / "a.parquet")
    over = {"input": {"image": None, "key": None, "source": "source"}, "embed": None, "annotate": None, "score": []}
    over |= {"select": [{"kind": "exact_duplicates"}], "sample": {"kind": "iid", "batch_size": 2}}
    settings = loading.validate(loading.merged(config(tmp_path).model_dump(mode="json"), over))
    found = sizes(settings, look(settings, examine(settings)[0], 10).pieces)
    assert {name: (one["rows"], one["tokens"]) for name, one in found.items()} == {
        None: (10, 14),
        "": (4, 8),
        "x": (6, 6),
    }
    assert [line["kept"] for line in table({"": 4, "x": 6}, found, {"": 4, "x": 3})] == [1.0, 0.5]


def test_bytes_and_tokens_of_a_whole_sample_are_exact(corpus):
    found = made(config(corpus), rows=0)
    tables = [pq.read_table(file) for file in (corpus / "in").iterdir()]
    texts = [text for table in tables for text in table["text"].to_pylist()]
    pictures = sum(len(one or b"") for table in tables for one in table["image"].to_pylist())
    assert found["input"]["tokens"] == sum(len(text.split()) for text in texts)
    assert found["input"]["content_bytes"] == pictures + sum(len(text) for text in texts)
    assert found["groups"]["whole"] and found["tokens"] == "words"


def test_texts_alone_without_sources_are_one_group(tmp_path):
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": [f"word {i}" for i in range(50)]}), tmp_path / "in" / "a.parquet")
    over = {"input": {"image": None, "key": None, "source": None}, "embed": None, "annotate": None, "score": []}
    over |= {"select": [{"kind": "exact_duplicates"}], "sample": {"kind": "iid", "batch_size": 10}}
    found = made(loading.validate(loading.merged(config(tmp_path).model_dump(mode="json"), over)), rows=0)
    assert [line["group"] for line in found["groups"]["lines"]] == ["all"]
    assert found["input"]["tokens"] == 100 and found["mix"]["emitted"] == 50


def test_an_input_without_rows_has_an_empty_passport(tmp_path):
    write_corpus(tmp_path / "in", shards=1, count=9)
    table = pq.read_table(tmp_path / "in" / "00000.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "in" / "00000.parquet")
    told = call(tmp_path)
    assert told.exit_code == 0 and "1 files, 0 rows" in told.output, told.output


# ---------------------------------------------------------------------------------------------------------- the whole
@pytest.mark.nightly
def test_estimate_run_and_comparison(corpus, here):
    """Saw: every stage estimated; nothing but the passport written; the report and the log compare; a rerun is free."""
    told = call(corpus, None, "--sample", "200")
    assert told.exit_code == 0, told.output
    assert told.output.splitlines()[0].endswith("is fine: 7 files, 420 rows.")
    assert "verdict: about" in told.output and "in batches of" not in told.output
    settings = config(corpus)
    assert [*digests(corpus, "store")] == [
        str(Path(kept_passports.url_of(settings)).relative_to(corpus)),
    ] and not (corpus / "out").exists()
    found = kept_passports.read(settings)
    names = "ingest embed annotate score/alignment select/exact_duplicates select/near_duplicates select/threshold mix"
    assert [one["stage"] for one in found["stages"]] == [*names.split(), "sample", "emit", "report"]
    assert all(one["seconds"] > 0 and one["bytes"] >= 0 and not one["done"] for one in found["stages"])
    assert 0.6 < found["kept"]["select/threshold"] < 1

    told = runner.invoke(app, ["curate", str(corpus / "c.yaml"), "--dry-run"])
    assert told.exit_code == 0 and told.output.count("by the passport") == 10, told.output

    log: list[str] = []
    mix = run(settings, log)
    line = [one for one in log if one.startswith("estimate and actual: ")]
    assert len(line) == 1 and " estimated, " in line[0] and " taken (x " in line[0]
    facts = json.loads((Path(mix.url) / "report" / "report.json").read_text())
    stages = {one["stage"]: one for one in facts["estimates"]["stages"]}
    assert stages["embed"]["actual"] == pytest.approx(facts["seconds"]["embed"], abs=1e-3)
    assert stages["report"]["note"] == "not over yet" and stages["mix"]["ratio"] > 0
    page = (Path(mix.url) / "report" / "index.html").read_text()
    assert "Estimate and actual" in page and 'href="#estimates"' in page
    written = {one["stage"]: one["written"] for one in facts["stages"]}
    for stage in ("embed", "score/alignment", "ingest"):
        estimated = next(one["bytes"] for one in found["stages"] if one["stage"] == stage)
        assert estimated == pytest.approx(written[stage], rel=0.3), stage

    log.clear()
    run(settings, log)
    assert not [one for one in log if one.startswith("estimate and actual")]  # nothing was to do


@pytest.mark.nightly
def test_where_all_is_done_nothing_is_measured(corpus, monkeypatch):
    monkeypatch.setattr(measuring, "child", None)
    run(config(corpus))
    whole = made(config(corpus))
    assert all(one["done"] for one in whole["stages"]) and whole["total"] == {"seconds": 0, "bytes": 0}
    assert kept_passports.read(config(corpus)) is None
    anew = config(corpus, {"seed": 1})
    left = {one.stage: one.rows for one in ahead(anew, examine(anew)[0])}
    assert {stage for stage, rows in left.items() if not rows} == {"ingest", "embed", "annotate", "score/alignment"}
    assert left["mix"] == left["report"] == 420
    write_corpus(corpus / "more", shards=1)
    table = pq.read_table(corpus / "more" / "00000.parquet").slice(0, 20)
    pq.write_table(table, corpus / "in" / "z.parquet")
    left = {one.stage: (one.shards, one.rows) for one in ahead(config(corpus), examine(config(corpus))[0])}
    assert left["embed"] == left["ingest"] == (1, 20) and left["emit"] == (8, 440)


@pytest.mark.nightly
def test_what_is_done_is_left_out(corpus, here):
    run(config(corpus))
    found = made(config(corpus, {"seed": 1}))
    done = {one["stage"] for one in found["stages"] if one["done"]}
    assert done == {"ingest", "embed", "annotate", "score/alignment"}
    assert all(one["seconds"] == 0 and one["bytes"] == 0 for one in found["stages"] if one["done"])
    assert found["total"]["seconds"] == pytest.approx(sum(one["seconds"] for one in found["stages"]))


def test_a_run_over_the_sample_that_fails_refuses_nothing(corpus, monkeypatch):
    from contextlib import nullcontext

    def fail(values):
        raise RunFailed("no")

    monkeypatch.setattr(measuring, "child", lambda folder: nullcontext(SimpleNamespace(run=fail)))
    told = call(corpus)
    assert told.exit_code == 0 and "nothing is measured: a run over a sample of 420 rows failed: no" in told.output
    assert "times were not measured" in told.output and kept_passports.read(config(corpus)) is None


def test_a_narrow_terminal_tells_groups_and_stages_apart(corpus):
    """Saw: at 80 columns, of 1,000 groups with one long beginning and 420 rows, 40 by name and the rest in one line."""
    found = made(config(corpus, {"mix": {"kind": "uniform", "budget_tokens": 1000}}), rows=0)
    line = found["groups"]["lines"][0]
    names = [f"https://www.example.org/datasets/number-{i:04d}" for i in range(1000)]
    found["groups"]["lines"] = [line | {"group": name, "rows": 2000 - i} for i, name in enumerate(names)]
    with (console := Console(width=80, no_color=True)).capture() as printed:
        console.print(groups(found, 80), stages(found | {"total": {"seconds": 1.0, "bytes": 1}}))
    cells = [row.split("│")[1].strip() for row in printed.get().splitlines() if row.startswith("│")]
    said = "".join(cells)
    assert all(f"number-{i:04d}" in said for i in range(40)) and "and960smallerones" in said.replace(" ", "")
    assert all(one["stage"] in said for one in found["stages"]) and "epochs" in printed.get()
    assert max(map(len, printed.get().splitlines())) <= 80
    assert f"{sum(2000 - i for i in range(40, 1000)):,}" in printed.get()
    assert [_name(one, 26) for one in ("", "a\nb", "web")] == ["''", "'a\\nb'", "web"] and len(
        _name("x" * 99, 26)
    ) == 26
    assert "words, in" in [*verdict(found)][-1]


def test_json_is_json_and_says_the_same(corpus):
    told = call(corpus, None, "--sample", "0", "--json")
    found = json.loads(told.output)
    assert found["input"]["rows"] == 420 and found["mix"]["law"] == "static" and found["total"] is None


@pytest.mark.nightly
def test_samples_run_in_a_process_of_their_own(corpus):
    told = call(corpus, None, "--sample", "100")
    assert told.exit_code == 0 and "verdict: about" in told.output, told.output
    assert not [*corpus.rglob("mixwright-check-*")]


def test_a_ruinous_mix_is_warned_of_before_it_runs(corpus):
    over = {"select": [], "mix": {"proportions": {"web": 0.01, "books": 0.01, "art": 0.98}, "budget": 4000}}
    settings = config(corpus, over | {"report": {"efficiency_warning": 0.6}})
    found, _ = examine(settings)
    told = passport(settings, found, look(settings, found, 0), 0, lambda line: None)
    far, often = told["mix"]["warnings"]
    assert far.startswith("the shares of the groups are far from the natural ones: rho 0.3")
    assert "of 3 groups will be repeated more than 4 times" in often and "most 'art'" in often
    bounded, _ = examine(settings := config(corpus, {"select": [], "mix": {"kind": "natural"}}))
    assert passport(settings, bounded, look(settings, bounded, 0), 0, lambda line: None)["mix"]["warnings"] == []
