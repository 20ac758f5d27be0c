"""A mix says what changed against the one before it: in mix.json, report, card and log."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import config, rows, run

from flows.pipeline import curate
from flows.runners import PlainRunner
from flows.watching import Unwatched
from storage import manifests
from tasks.report import pages


def kept(mix) -> set[tuple[str, int]]:
    files = sorted(Path(mix.url, "ledger").glob("*.parquet"))
    table = pa.concat_tables(pq.read_table(file, columns=["shard", "row", "outcome"]) for file in files)
    lines = table.filter(pa.compute.equal(table["outcome"], "kept"))
    return set(zip(lines["shard"].to_pylist(), lines["row"].to_pylist()))


def test_the_second_night(corpus):
    first = run(config(corpus))
    assert first.manifest["parent"] is None and first.manifest["changes"] is None
    pq.write_table(pa.table(rows(80, seed=99)), corpus / "in" / "00009.parquet")
    pq.write_table(pa.table(rows(60, seed=98)), corpus / "in" / "00001.parquet")
    (corpus / "in" / "00002.parquet").unlink()
    (corpus / "in" / "00003.parquet").rename(corpus / "in" / "00003b.parquet")
    log: list[str] = []
    second = run(config(corpus, {"sample": {"filter_ratio": 0.6}}), log)

    told, before, now = second.manifest["changes"], kept(first), kept(second)
    assert second.manifest["parent"] == told["parent"] == first.manifest["version"]
    assert {kind: one["first"] for kind, one in told["files"].items()} == {
        "new": ["00009.parquet"],
        "gone": ["00002.parquet"],
        "rewritten": ["00001.parquet"],
        "renamed": [["00003.parquet", "00003b.parquet"]],
    }
    counts = {"stayed": len(before & now), "came": len(now - before), "left": len(before - now)}
    assert counts == {name: told["rows"][name] for name in counts} and min(counts.values()) > 0
    gone = {one["digest"] for one in first.manifest["parents"]} - {one["digest"] for one in second.manifest["parents"]}
    assert told["rows"]["why_left"]["gone"] == sum(shard in gone for shard, _ in before)
    assert told["settings"] == [{"setting": "sample.filter_ratio", "before": 0.5, "now": 0.6}]
    shares = {one["group"]: one for one in pages.facts(second.url)["groups"]}
    assert told["groups"] and all(one["now"] == shares[one["group"]]["achieved"] for one in told["groups"])

    in_words = f"since {first.manifest['version']}: {counts['came']:,} rows came, {counts['left']:,} left"
    assert any(line.startswith(in_words) for line in log)
    assert f"Since `{first.manifest['version']}` {counts['came']:,} rows came" in second.card
    facts = pages.facts(second.url)["changes"]
    assert facts["more"] or facts["less"]
    page = Path(second.url, "report", "index.html").read_text()
    assert f"Changed since <code>{first.manifest['version']}</code>" in page and "00003b.parquet" in page


def test_a_report_drawn_again_still_says_it(corpus):
    run(config(corpus))
    second = run(config(corpus, {"seed": 1}))
    again = run(config(corpus, {"seed": 1, "report": {"top_concepts": 7}}))
    assert again.url == second.url and again.card
    assert pages.facts(again.url)["changes"]["rows"] == second.manifest["changes"]["rows"]


def test_a_mix_before_that_lost_its_ledger_is_no_reason_to_fail(corpus):
    first = run(config(corpus))
    shutil.rmtree(Path(first.url, "ledger"))
    log: list[str] = []
    second = run(config(corpus, {"seed": 1}), log)
    assert second.emitted and second.manifest["changes"] is None
    assert any("could not be found out" in line for line in log)
    shutil.rmtree(first.url), shutil.rmtree(second.url)
    assert run(config(corpus, {"seed": 2})).manifest["parent"] is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda url: Path(url, "ledger", "part-00000.parquet").write_bytes(b"PAR1 cut off"),
        lambda url: Path(url, "report", "report.json").write_text("{"),
        lambda url: Path(url, "mix.json").write_text('{"version": "older"}'),
    ],
    ids=["ledger", "report", "manifest"],
)
def test_damage_of_the_mix_before_is_told_and_stops_nothing(corpus, damage):
    damage(run(config(corpus)).url)
    log: list[str] = []
    second = run(config(corpus, {"seed": 1}), log)
    assert second.emitted and second.manifest["changes"] is None
    assert second.manifest["parent"] is None or any("could not be found out" in line for line in log)


def test_an_empty_mix_never_becomes_the_newest(corpus):
    good = run(config(corpus))
    for _ in range(2):  # the second time it is there already
        assert not run(config(corpus, {"sample": {"batch_size": 4096}})).emitted
        assert manifests.latest(str(corpus / "out" / "mix")) == good.manifest["version"]


def test_a_part_that_lost_bytes_is_written_again(corpus):
    first = run(config(corpus))
    part = Path(first.url, "data", "part-00001.parquet")
    whole = part.read_bytes()
    emit = next((corpus / "store").glob("emit/*"), None)
    assert emit is None or not list(emit.iterdir())
    Path(first.url, "mix.json").unlink()
    part.write_bytes(whole[:-10])
    assert run(config(corpus)).url == first.url and part.read_bytes() == whole


class Recorder(Unwatched):
    """Remembers events."""

    def __init__(self):
        self.events: list[tuple[str, dict]] = []

    def event(self, name, payload):
        self.events.append((name, payload))


def test_a_mix_whose_run_died_before_it_was_told_is_told_by_the_next(corpus):
    watch = Recorder()
    for latest_stands, told in ((False, 1), (True, 1), (False, 2)):
        if not latest_stands:
            (corpus / "out" / "mix" / "latest.json").unlink(missing_ok=True)
        mix = curate(config(corpus), PlainRunner(2), lambda line: None, watch)
        published = [payload for name, payload in watch.events if name == "mixwright.mix.published"]
        assert len(published) == told and published[-1]["url"] == mix.url
        assert manifests.latest(str(corpus / "out" / "mix")) == mix.manifest["version"]
