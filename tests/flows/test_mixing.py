"""Mixes through the whole pipeline: every kind that is set or derived, groups of all sorts, rounds, bounds, small inputs."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import config, digests, run, sidecars, write_corpus

from configs.errors import ConfigError, StageError
from flows.pipeline import curate
from flows.runners import PlainRunner
from flows.watching import Unwatched
from storage import manifests
from tasks.score.clusters import WITHOUT

PLAIN: dict[str, Any] = {
    "annotate": None,
    "score": [],
    "select": [],
    "sample": {"kind": "iid", "batch_size": 8, "filter_ratio": 0},
    "report": {"gallery_rows": 0},
    "runner": {"workers": 1},
}
SHARDS, ROWS = 3, 40


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixing")
    write_corpus(folder / "in", SHARDS, ROWS)
    return folder


def mixed(folder: Path, mix: dict[str, Any], log: list[str] | None = None, **over: Any):
    """The mix, and what its mix step says."""
    settings = config(folder, PLAIN | {"mix": mix} | over)
    done = run(settings, log)
    assert list(manifests.discrepancies(done.url)) == []
    (newest,) = [f for f in (folder / "store" / "mix").glob("*/*/_done.json") if f.parent.name in fingerprints(done)]
    return done, json.loads(newest.read_text())


def fingerprints(done) -> str:
    """The manifest as text: steps are in it by their fingerprints."""
    return json.dumps(done.manifest)


def emitted(done) -> list[dict]:
    """The rows of the mix."""
    files = sorted(Path(done.url, "data").glob("*.parquet"))
    return [row for f in files for row in pq.read_table(f).drop_columns(["image"]).to_pylist()]


def drawn(facts) -> dict[str, int]:
    """Draws by group."""
    return dict(zip(facts["groups"], np.sum(facts["counts"], axis=0).tolist(), strict=True))


@pytest.mark.parametrize(
    "mix",
    [
        {"kind": "static", "proportions": {"web": 0.5, "art": 0.3, "books": 0.2}},
        {"kind": "natural"},
        {"kind": "uniform"},
        pytest.param({"kind": "temperature", "temperature": 5}, marks=pytest.mark.nightly),
        {"kind": "unimax", "max_epochs": 3},
        pytest.param({"kind": "balance", "threshold": 30}, marks=pytest.mark.nightly),
    ],
    ids=lambda mix: mix["kind"],
)
def test_every_kind_meets_its_budget_and_the_emitted_rows_are_of_the_groups_as_counted(corpus, mix):
    done, facts = mixed(corpus, mix | {"budget": 240})
    seen = Counter(row["source"] for row in emitted(done))
    assert sum(seen.values()) == 240 and dict(seen) == drawn(facts) and facts["warnings"] == []
    times = Counter((row["mix_file"], row["mix_row"]) for row in emitted(done))
    assert max(times.values()) <= np.ceil(max(facts["epochs"]))
    shares = np.array(list(drawn(facts).values())) / 240
    assert np.abs(shares - facts["planned"][0]).max() <= 1 / 240


def test_rounds_are_drawn_one_after_the_other_and_stand_in_the_draw_list(corpus):
    rounds = [{"web": 1}, {"books": 1, "art": 1}, {"art": 1}]
    done, facts = mixed(corpus, {"kind": "static", "proportions": rounds, "budget": 240})
    rows = sorted(emitted(done), key=lambda row: row["mix_draw"])
    assert [row["mix_round"] for row in rows] == [0] * 80 + [1] * 80 + [2] * 80
    by_round = [Counter(row["source"] for row in rows if row["mix_round"] == number) for number in range(3)]
    assert by_round == [{"web": 80}, {"books": 40, "art": 40}, {"art": 80}]
    assert facts["notes"] == ["`mix.proportions.1` sums to 2; it is normalised to one"]
    assert [row["mix_step"] for row in rows] == [i // 8 for i in range(240)]


def test_a_bound_is_kept_and_what_falls_short_is_told_in_log_and_report(corpus):
    log: list[str] = []
    done, facts = mixed(corpus, {"kind": "static", "proportions": {"web": 0.9, "art": 0.1}, "max_epochs": 2}, log)
    rows = dict(zip(facts["groups"], facts["rows"], strict=True))
    assert drawn(facts) == {"art": sum(rows.values()) - 2 * rows["web"], "books": 0, "web": 2 * rows["web"]}
    assert (
        max(Counter((row["mix_file"], row["mix_row"]) for row in emitted(done) if row["source"] == "web").values()) == 2
    )
    notes = facts["notes"]
    assert notes[0].startswith("`mix.proportions` has no entry for books: ")
    assert notes[1].startswith("`max_epochs` is 2: web was to have ") and notes[1].endswith("(2 epochs)")
    assert notes[2].startswith("of other groups' rows come the ") and ": art (+" in notes[2]
    assert all(f"mix: {note}" in log for note in notes) and facts["warnings"] == []
    report = "".join(f.read_text() for f in Path(done.url, "report").rglob("*.html"))
    assert "web was to have" in report and "are not drawn" in report


class Seen(Unwatched):
    """A watch that keeps events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def event(self, name: str, payload: dict[str, Any]) -> None:
        self.events.append((name, payload))


def test_a_budget_that_the_bound_cannot_meet_is_a_warning_an_event_and_a_smaller_mix(corpus):
    settings = config(corpus, PLAIN | {"mix": {"kind": "unimax", "budget": 4_000, "max_epochs": 2.5}})
    watch, log = Seen(), []
    done = curate(settings, PlainRunner(1), log.append, watch)
    told = [payload for name, payload in watch.events if name == "mixwright.warning.mix"]
    assert len(told) == 1 and told[0]["stage"] == "mix"
    assert "the budget takes 4,000 draws, but with `max_epochs` 2.5 the " in told[0]["message"]
    assert "or lower the budget" in told[0]["message"] and told[0]["message"] in log
    kept = done.manifest["counts"]["kept"]
    assert done.manifest["counts"]["emitted"] == len(emitted(done)) <= 2.5 * kept
    assert len(emitted(done)) > 2.5 * kept - 3 - 8  # three groups that are rounded down, a batch that is not whole
    assert (
        max(Counter((row["mix_file"], row["mix_row"]) for row in emitted(done)).values()) == 3
    )  # two whole passes and a half


# ------------------------------------------------------------------------------------------------------ groups of rows
def test_clusters_as_groups_for_any_cut_into_shards_and_any_workers(corpus, tmp_path):
    mix = {"kind": "uniform", "groups": {"kind": "cluster", "clusters": 4, "train_rows": 100}}
    _, facts = mixed(corpus, mix)
    assert [name for name in facts["groups"] if name != WITHOUT] == [f"cluster {i}" for i in range(4)]
    assert max(drawn(facts).values()) - min(drawn(facts).values()) <= 1
    whole = pa.concat_tables(pq.read_table(f) for f in sorted((corpus / "in").glob("*.parquet")))
    (tmp_path / "in").mkdir()
    for number, start in enumerate(range(0, SHARDS * ROWS, 29)):
        pq.write_table(whole.slice(start, 29), tmp_path / "in" / f"{number:02}.parquet")
    _, other = mixed(tmp_path, mix, runner={"workers": 3, "shards_per_task": 2})
    assert (other["groups"], other["rows"], other["counts"]) == (facts["groups"], facts["rows"], facts["counts"])


def test_concepts_as_groups(corpus):
    over = {"annotate": {"kind": "captions", "min_count": 2, "max_words": 1}}
    groups = {"kind": "concept_group", "concepts": ["w000", "w003"], "others": "rest"}
    mix = {"kind": "static", "proportions": {"w000": 0.25, "w003": 0.25, "rest": 0.5}, "groups": groups, "budget": 80}
    done, facts = mixed(corpus, mix, **over)
    assert drawn(facts) == {"rest": 40, "w000": 20, "w003": 20}
    for row in emitted(done):
        words = row["text"].split()
        assert group_of(facts, row) == ("w003" if "w003" in words else "w000" if "w000" in words else "rest")


def test_a_score_as_groups(corpus):
    groups = {"kind": "score_group", "score": "alignment", "buckets": 2}
    shares = {"alignment 1 of 2": 0.75, "alignment 2 of 2": 0.25}
    mix = {"kind": "static", "proportions": shares, "groups": groups, "budget": 80}
    done, facts = mixed(corpus, mix, score=[{"kind": "alignment"}])
    assert drawn(facts) == {"alignment 1 of 2": 60, "alignment 2 of 2": 20}
    scores = {name: [row["alignment"] for row in emitted(done) if group_of(facts, row) == name] for name in shares}
    assert min(scores["alignment 1 of 2"]) > max(scores["alignment 2 of 2"])
    with pytest.raises(StageError, match="needs the column 'goodness'.*list what makes it under `score`"):
        mixed(corpus, mix | {"groups": groups | {"score": "goodness"}})


def group_of(facts, row) -> str:
    """The group of an emitted row, by the weight that its group has, which differs between groups here."""
    rows, counts = np.array(facts["rows"]), np.array(facts["counts"][0])
    weights = (counts / counts.sum()) / (rows / rows.sum())
    return facts["groups"][int(np.argmin(np.abs(weights - row["mix_weight"])))]


@pytest.mark.nightly
def test_same_bytes_for_any_workers(corpus, tmp_path):
    """Groups learned, rounds, a bound that binds: all of it in the store, byte for byte."""
    mix = {"kind": "unimax", "groups": {"kind": "cluster", "clusters": 3}, "budget": 240, "max_epochs": 2.1}
    for name, runner in (("a", {"workers": 1, "shards_per_task": 3}), ("b", {"workers": 3, "shards_per_task": 1})):
        shutil.copytree(corpus / "in", tmp_path / name / "in")
        mixed(tmp_path / name, mix, runner=runner)
    assert sidecars(tmp_path / "a" / "store") == sidecars(tmp_path / "b" / "store")
    assert parts(tmp_path / "a") == parts(tmp_path / "b") != {}


def parts(folder: Path) -> dict[str, str]:
    """Digests of the emitted data, by name."""
    return {name.split("/data/")[1]: d for name, d in digests(folder, "out").items() if "/data/" in name}


def test_groups_by_what_nothing_makes_are_refused_before_anything_runs_with_the_remedy(corpus):
    cluster, concept = ("image_embedding", "of texts alone set `vectors: text`"), ("concepts", "add `annotate`")
    for kind, (missing, remedy) in (("cluster", cluster), ("concept_group", concept)):
        with pytest.raises(StageError, match=f"`mix: natural` needs the column '{missing}', .*{remedy}"):
            mixed(corpus, {"kind": "natural", "groups": {"kind": kind}}, embed=None)


# -------------------------------------------------------------------------------------------------- small and odd inputs
def test_a_group_that_selection_has_emptied_is_no_group_and_naming_it_is_refused(tmp_path):
    write_corpus(tmp_path / "in", 1, 40)
    table = pq.read_table(tmp_path / "in" / "00000.parquet")
    source = ["maps" if i in (4, 7) else name for i, name in enumerate(table["source"].to_pylist())]
    table = table.set_column(table.column_names.index("source"), "source", pa.array(source))
    pq.write_table(table, tmp_path / "in" / "00000.parquet")
    select = [{"kind": "exact_duplicates"}]  # row 4 is row 3 again, row 7 has no image
    _, facts = mixed(tmp_path, {"kind": "uniform", "budget": 48}, select=select)
    assert facts["groups"] == ["art", "books", "web"] and drawn(facts) == dict.fromkeys(facts["groups"], 16)
    with pytest.raises(ConfigError, match="names 'maps', but no row of that group survived selection; the groups are"):
        mixed(tmp_path, {"kind": "static", "proportions": {"maps": 1, "web": 1}}, select=select)


def test_one_group_alone_is_drawn_whole(corpus):
    for mix in ({"kind": "unimax"}, {"kind": "static"}, {"kind": "balance", "threshold": 3}):
        _, facts = mixed(corpus, mix, input={"path": f"{corpus}/in", "key": "key", "source": None})
        assert facts["groups"] == ["all"] and facts["counts"] == [facts["rows"]] and facts["epochs"] == [1]


def test_fewer_rows_than_a_batch_emit_nothing_and_more_epochs_fill_it(tmp_path):
    write_corpus(tmp_path / "in", 1, 12)
    sample = {"kind": "iid", "batch_size": 32, "filter_ratio": 0}
    done, facts = mixed(tmp_path, {"kind": "uniform"}, sample=sample)
    assert done.manifest["counts"]["emitted"] == 0 and facts["draws"] == sum(facts["rows"]) < 32
    done, facts = mixed(tmp_path, {"kind": "uniform", "budget": 64}, sample=sample)
    assert done.manifest["counts"]["emitted"] == 64 == facts["draws"]


def test_no_row_at_all_has_no_group(tmp_path):
    write_corpus(tmp_path / "in", 1, 12)
    over = {"score": [{"kind": "alignment"}], "select": [{"kind": "threshold", "minimum": 2}]}
    for mix in (
        {"kind": "unimax"},
        {"kind": "balance", "tail_share": 0.5},
        {"kind": "static", "proportions": {"a": 1}},
    ):
        done, facts = mixed(tmp_path, mix, **over)
        assert facts["groups"] == [] and done.manifest["counts"]["emitted"] == 0
