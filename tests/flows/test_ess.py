"""The weight of whole runs: told as the ledger has it, warned of where it is uneven, drawn again from facts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import config, png, rows, run, write_corpus

from flows.pipeline import curate
from flows.reporting import redraw
from flows.runners import PlainRunner
from flows.watching import Unwatched
from storage import files
from tasks.mix.ess import clustered, design_effect, effective_sample_size, mix_efficiency

PLAIN = {"annotate": None, "score": [], "select": [], "sample": {"kind": "iid", "batch_size": 16, "filter_ratio": 0}}


class Onlooker(Unwatched):
    """Remembers the events of a run."""

    def __init__(self):
        self.events = []

    def event(self, name, payload):
        """Remember it."""
        self.events.append((name, payload["message"] if "message" in payload else ""))


def facts(mix):
    return json.loads(Path(mix.url, "report", "report.json").read_text())


def page(mix):
    return Path(mix.url, "report", "index.html").read_text()


def used(mix, folder):
    """Of every row that is used: its uses, its source, what is in it."""
    ledger = pa.concat_tables(pq.read_table(f) for f in sorted(Path(mix.url, "ledger").glob("*.parquet")))
    found = [line for line in ledger.to_pylist() if line["times_used"]]
    inputs = {path.name: pq.read_table(path).to_pylist() for path in (folder / "in").glob("*.parquet")}
    rows_ = [inputs[line["file"]][line["row"]] for line in found]
    contents = [f"{row['image'].hex()}{row['text']}" for row in rows_]
    pictures = [np.array(row["image_emb"], np.float32).tobytes().hex() for row in rows_]
    uses = np.array([line["times_used"] for line in found])
    return uses, np.array([row["source"] for row in rows_]), contents, pictures


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ess")
    write_corpus(folder / "in", shards=4, count=100)
    return folder


def test_a_natural_mix_is_worth_its_rows(corpus):
    log, watch = [], Onlooker()
    mix = curate(config(corpus, PLAIN), PlainRunner(2), log.append, watch)
    told = facts(mix)["mixed"]
    assert told["efficiency"] == pytest.approx(1, abs=1e-3) and told["rows"]["rho"] == told["rows"]["deff"] == 1
    assert [name for name, _ in watch.events] == ["mixwright.mix.published"]
    assert not any("rho" in line for line in [*log, *facts(mix)["notes"]])
    assert "Groups: rho 1 of their shares against the natural ones" in mix.card and "The mix</h2>" in page(mix)


def test_a_skewed_mix_is_told_as_the_ledger_has_it_and_warned_of(corpus):
    log, watch = [], Onlooker()
    skew = {"web": 0.02, "books": 0.02, "art": 0.96}
    thresholds = {"efficiency_alarm": 0, "efficiency_warning": 0.6}
    over = {**PLAIN, "mix": {"proportions": skew, "budget": 1600}, "report": thresholds, "score": [{"kind": "tokens"}]}
    mix = curate(config(corpus, over), PlainRunner(2), log.append, watch)
    told = facts(mix)["mixed"]
    uses, source, contents, pictures = used(mix, corpus)
    data = pa.concat_tables(pq.read_table(f) for f in sorted(Path(mix.url, "data").glob("*.parquet"))).to_pylist()
    assert told["rows"]["n"] == len(uses) and told["rows"]["ess"] == pytest.approx(effective_sample_size(uses))
    assert told["rows"]["deff"] == pytest.approx(design_effect(uses))
    assert told["exact"]["ess"] == pytest.approx(effective_sample_size(clustered(uses, contents)))
    assert told["near"]["ess"] == pytest.approx(effective_sample_size(clustered(uses, pictures)), rel=0.02)  # chance
    assert max(told["near"]["ess"], told["exact"]["ess"]) < told["rows"]["ess"]
    groups = {one["group"]: one for one in told["groups"]}
    for name, one in groups.items():
        mine = uses[source == name]
        assert (one["uses"], one["kept"]) == (mine.sum(), len(mine))
        assert one["planned"] == pytest.approx(skew[name])
        own = [row for row in data if row["source"] == name]
        assert one["bytes"] == sum(len(row["image"]["bytes"]) + len(row["text"].encode()) for row in own)
        assert one["tokens"] == sum(len(row["text"].split()) for row in own)
        assert one["ess"] == pytest.approx(effective_sample_size(mine))
    p, q = zip(*((one["uses"], one["rows"]) for one in groups.values()), strict=True)
    assert told["efficiency"] == pytest.approx(mix_efficiency(p, q)) and told["efficiency"] < 0.6
    most = max(one["uses"] / one["rows"] for one in groups.values())
    assert told["epochs"] == {"group": "art", "most": most} and len(data) == sum(p)
    warned = [text for name, text in watch.events if name == "mixwright.warning.efficiency"]
    assert warned and "'art' has" in warned[0] and "below `report.efficiency_warning` (0.6). Bring" in warned[0]
    assert any("repeated more than 4 times" in text for name, text in watch.events if name.endswith(".repeats"))
    for text in warned:
        assert text in log and text in facts(mix)["notes"]
    assert "tile warn" in page(mix)
    redraw(mix.url, {"efficiency_warning": 0.0})
    assert not {*warned} & {*facts(mix)["notes"]} and "tile warn" not in page(mix)


def test_copies_widen_the_gap_between_rows_and_clusters(tmp_path):
    columns = rows(200, seed=9)
    for at in range(150):  # one content, and pictures that are nearly one
        columns["image"][at], columns["text"][at] = png(1), "the same"
        columns["image_emb"][at] = columns["image_emb"][0]
    for at in range(150, 180):
        columns["image_emb"][at] = columns["image_emb"][150] * (1 + 1e-3 * at)
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "in" / "0.parquet")
    log = []
    told = facts(run(config(tmp_path, PLAIN), log))["mixed"]
    gone = 200 - told["rows"]["n"]  # the last rows make no whole batch
    assert told["rows"]["rho"] == 1 and told["rows"]["n"] == 192
    assert 1.5 < told["exact"]["ess"] < 2.1 and told["exact"]["n"] <= 51
    assert told["near"]["ess"] < told["exact"]["ess"] and told["near"]["n"] <= 22 and gone == 8
    (text,) = [line for line in log if "exact copies counted as one" in line]
    assert "Put `exact_duplicates` into `select`" in text and "below `report.efficiency_alarm` (0.1)" in text
    over = PLAIN | {"select": [{"kind": "exact_duplicates"}], "sample": {"kind": "iid", "batch_size": 2}}
    told = facts(run(config(tmp_path, over), log := []))["mixed"]
    assert told["exact"]["ratio"] == 1 and told["near"]["ratio"] < 0.2
    assert any("nearly alike" in line and "Put `near_duplicates` into `select`" in line for line in log)


def test_a_sampler_that_picks_tells_rho_and_older_stores_are_read(corpus):
    over = {"sample": {"kind": "cabs_fm", "batch_size": 16, "filter_ratio": 0.75}, "select": [], "score": []}
    mix = run(config(corpus, over))
    sampler = facts(mix)["mixed"]["sampler"]
    assert sampler["taken"] / sampler["of"] == 0.25 and sampler["drawn"]["n"] == sampler["draws"]
    assert sampler["drawn"]["rho"] == pytest.approx(0.25) and 0.5 < sampler["efficiency"] <= 1
    assert sampler["draws"] == 64 * mix.manifest["batches"]["steps"]
    assert "of every 64 draws: rho 0.25" in page(mix) and "picks 16" in page(mix)
    (step,) = (one for one in mix.manifest["steps"] if one["stage"] == "mix")
    done = str(corpus / "store" / "mix" / step["kind"] / step["fingerprint"] / "_done.json")
    known = files.read_json(done)
    files.write_json(done, {name: known[name] for name in ("groups", "rows", "counts", "draws", "parts")})
    again = run(config(corpus, over | {"report": {"top_concepts": 5}}))
    assert again.url == mix.url and facts(again)["settings"]["top_concepts"] == 5
    new, old = facts(again)["mixed"], sampler
    assert new["sampler"] == old and sum(one["planned"] for one in new["groups"]) == pytest.approx(1)
