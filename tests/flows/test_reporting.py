"""The report of real runs: every reason in its gallery, the same bytes, written anew when its settings change."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import config, digests, png, rows, run, write_corpus

from flows.reporting import redraw
from storage import manifests
from tasks.emit import layout
from tasks.report import findings

EVIL = "<script>alert(1)</script>"


def facts(mix):
    return json.loads(Path(mix.url, "report", "report.json").read_text())


def page(mix):
    return Path(mix.url, "report", "index.html").read_text()


def ledger(mix):
    return pa.concat_tables(pq.read_table(f) for f in sorted(Path(mix.url, "ledger").glob("*.parquet"))).to_pylist()


def places(mix):
    """What the galleries show: reason -> (file, row) pairs."""
    told = facts(mix)
    found = {one["reason"]: [(i["file"], i["row"]) for i in one["items"]] for one in told["galleries"]}
    for group in told["duplicates"]:
        found.setdefault(group["reason"], []).extend((i["file"], i["row"]) for i in group["members"])
    return found


def test_every_reason_has_its_gallery_with_its_own_rows(corpus):
    mix = run(config(corpus))
    fates = {(line["file"], line["row"]): line for line in ledger(mix)}
    shown = places(mix)
    assert shown.keys() == {line["reason"] or "" for line in fates.values()}
    for reason, found in shown.items():
        assert found and all((fates[place]["reason"] or "") == reason for place in found)
    told = facts(mix)
    near = [group for group in told["duplicates"] if group["reason"] == "near_duplicate"]
    for group in near:
        keeper = (group["keeper"]["file"], group["keeper"]["row"])
        mine = [f for f in fates.values() if (f["keeper_file"], f["keeper_row"]) == keeper]
        assert group["dropped"] == len(mine) and group["keeper"]["outcome"] == fates[keeper]["outcome"]
    for one in told["galleries"]:
        assert one["rows"] == sum((f["reason"] or "") == one["reason"] for f in fates.values())
        for item in one["items"]:
            source = pq.read_table(corpus / "in" / item["file"]).slice(item["row"], 1).to_pylist()[0]
            assert item["key"] == source["key"] and item["caption"] == " ".join(source["text"].split())
    assert "no picture" in page(mix) and "<img" in page(mix)


def test_the_figures_add_up(corpus):
    mix = run(config(corpus))
    told, fates = facts(mix), ledger(mix)
    counts = mix.manifest["counts"]
    last = told["funnel"][-1]
    assert told["funnel"][0]["rows_in"] == counts["rows_in"] and last["kept"] == counts["kept"]
    assert sum(sum(row["reasons"].values()) for row in told["funnel"]) == counts["dropped"] + counts["quarantined"]
    (score,) = told["scores"]
    assert score["name"] == "alignment" and sum(score["after"]) == counts["emitted"]
    assert sum(score["before"]) >= sum(1 for fate in fates if fate["outcome"] != "quarantined")
    (cut,) = score["cuts"]
    dropped = [fate["score"] for fate in fates if fate["reason"] == "below_threshold"]
    assert max(dropped) < cut["value"] and cut["stage"] == "select/threshold"
    concepts = told["concepts"]
    assert (
        concepts["total_before"] >= sum(concepts["before"]) and concepts["curve_before"][0][1] == concepts["before"][0]
    )
    costs = {row["stage"]: row for row in told["stages"]}
    assert costs["ingest"]["read"] > costs["annotate"]["read"] > 0
    assert costs["emit"]["written"] == sum(
        facts["bytes"] for name, facts in mix.manifest["files"].items() if name != "README.md"
    )
    assert costs["embed"]["written"] == sum(
        f.stat().st_size for f in (corpus / "store" / "embed").rglob("*") if f.is_file()
    )


def sampled(mix, corpus):
    """Folder with what the sampler left of its batches."""
    (step,) = (one for one in mix.manifest["steps"] if one["stage"] == "sample")
    return corpus / "store" / "sample" / step["kind"] / step["fingerprint"] / "coverage"


def test_the_coverage_is_that_of_the_batches(corpus):
    log = []
    mix = run(config(corpus), log)
    told, steps = facts(mix)["coverage"], mix.manifest["batches"]["steps"]
    data = pa.concat_tables(pq.read_table(f) for f in sorted(Path(mix.url, "data").glob("*.parquet")))
    assert told["steps"] == steps and told["rows"] == data.num_rows == mix.emitted
    assert told["mean"]["iid_concepts"] < told["mean"]["concepts"] <= told["mean"]["offered_concepts"]
    assert told["labels"]["distance"]["achieved"] < told["labels"]["distance"]["offered"]
    assert mix.card.count("A batch holds") == 1 and Path(mix.url, "report", "coverage.png").stat().st_size > 5_000
    fill = told["fill"] / told["rows"]
    for words in (mix.card, page(mix), "".join(log)):
        assert ("of the rows are fill, taken" in words) == (fill > 0.05)


def test_fill_above_a_twentieth_is_warned_of_everywhere(corpus):
    log = []
    mix = run(config(corpus, {"sample": {"maximum": 1}}), log)
    told = facts(mix)["coverage"]
    assert told["fill"] > 0.05 * told["rows"]
    for words in (mix.card, page(mix), "".join(log)):
        assert "of the rows are fill" in words and "sample.maximum" in words
    again = run(config(corpus, {"sample": {"maximum": 1}, "report": {"top_concepts": 3}}))
    assert len(facts(again)["notes"]) == len(set(facts(again)["notes"]))
    assert sum("of the rows are fill" in note for note in facts(again)["notes"]) == 1


@pytest.mark.parametrize("kind", ["iid", "cabs_fm", "cabs_dm"])
def test_stores_that_say_nothing_of_their_batches(corpus, kind):
    over = {"sample": {"kind": kind, "batch_size": 16, "filter_ratio": 0.5}}
    mix = run(config(corpus, over))
    left = sampled(mix, corpus)
    assert left.exists() == (kind != "iid") == bool(facts(mix)["coverage"]) == ("What the batches cover" in page(mix))
    shutil.rmtree(left, ignore_errors=True)
    again = run(config(corpus, over | {"report": {"top_concepts": 7}}))
    assert facts(again)["coverage"] is None and "What the batches cover" not in page(again)


def test_examples_hold_their_concept(corpus):
    mix = run(config(corpus, {"select": []}))
    fates = {(line["file"], line["row"]): line for line in ledger(mix)}
    told = facts(mix)["concepts"]
    assert told["more"] and told["less"]
    for kind in ("more", "less"):
        for one in told[kind]:
            assert 1 <= len(one["examples"]) <= 3
            for item in one["examples"]:
                fate = fates[(item["file"], item["row"])]
                source = pq.read_table(corpus / "in" / item["file"]).slice(item["row"], 1).to_pylist()[0]
                assert one["concept"] in source["text"].split() and item["key"] == source["key"]
                assert fate["times_used"] == item["times_used"] and (kind == "less" or fate["times_used"])
            files = [item["file"] for item in one["examples"]]
            assert len(set(files)) == len(files)  # every file has the words of a Zipf law
    pictures = pq.read_table(Path(mix.url, "report", "thumbnails.parquet"))["name"].to_pylist()
    shown = {f"{i['file']}:{i['row']}" for kind in ("more", "less") for one in told[kind] for i in one["examples"]}
    assert shown & {*pictures} and page(mix).count('<tr class="seen">') == len(told["more"]) + len(told["less"])


def test_the_report_leaves_nothing_in_the_store_and_is_no_part_of_the_mix(corpus):
    mix = run(config(corpus))
    assert not list((corpus / "store" / "report").rglob("*.*"))
    assert not any(name.startswith("report/") for name in mix.manifest["files"])
    shutil.rmtree(Path(mix.url, "report"))
    assert list(manifests.discrepancies(mix.url)) == []
    assert "<html" in page(run(config(corpus)))  # and a run writes it again


def test_what_is_shown_is_the_same_for_any_workers_and_blocks(corpus, tmp_path_factory, monkeypatch):
    first = run(config(corpus, {"select": [{"kind": "exact_duplicates"}]}))
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(corpus / "in", other / "in")
    monkeypatch.setattr(layout, "BLOCK_ROWS", 100)
    over = {"select": [{"kind": "exact_duplicates"}], "runner": {"workers": 4, "shards_per_task": 1}}
    second = run(config(other, over))
    assert len(list(Path(second.url, "ledger").iterdir())) > 3
    a, b = facts(first), facts(second)
    for name in (
        "galleries",
        "duplicates",
        "selects",
        "concepts",
        "coverage",
        "sources",
        "scores",
        "funnel",
        "outcomes",
        "groups",
    ):
        assert a[name] == b[name], name
    assert (
        digests(Path(first.url), "report")["report/thumbnails.parquet"]
        == (digests(Path(second.url), "report")["report/thumbnails.parquet"])
    )


@pytest.mark.parametrize(
    "over", [{"top_concepts": 3}, {"gallery_rows": 2, "thumbnail_pixels": 16}, {"gallery_rows": 0}]
)
def test_other_settings_write_the_report_of_an_existing_mix_anew(corpus, over):
    first = run(config(corpus))
    before, parts = facts(first), digests(Path(first.url), "data", "ledger")
    log = []
    second = run(config(corpus, {"report": over}), log)
    assert second.url == first.url and second.card and "report: written anew, its settings have changed" in log
    assert digests(Path(first.url), "data", "ledger") == parts
    after = facts(second)
    assert after["settings"] == before["settings"] | over
    assert (after["seconds"], after["machine"], after["created"]) == tuple(
        before[key] for key in ("seconds", "machine", "created")
    )
    most = over.get("gallery_rows", 12)
    assert max([0, *(len(one["items"]) for one in after["galleries"])]) == (most if most < 12 else 12)
    third = run(config(corpus, {"report": over}))
    assert third.task_runs == 0 and third.card == ""
    assert not list((corpus / "store" / "report").rglob("*.*"))


def test_drawn_again_without_store_and_input(corpus):
    mix = run(config(corpus))
    for name in ("store", "in"):
        shutil.rmtree(corpus / name)
    before = page(mix)
    assert redraw(str(Path(mix.url).parent), {}) == f"{mix.url}/report/index.html"
    assert page(mix) == before
    redraw(mix.url, {"gallery_rows": 1})
    assert page(mix).count("<figure") < before.count("<figure")
    assert list(manifests.discrepancies(mix.url)) == []


def test_a_sampler_that_goes_by_values_tells_them(corpus, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(corpus / "in", other / "in")
    sample = {"kind": "max_loss", "column": "quality", "from_input": True, "batch_size": 8, "micro_batch": 8}
    over = {"select": [], "score": [], "annotate": None, "sample": sample}
    first = run(config(corpus, over))
    told = facts(first)
    utility, source = told["utility"], told["sources"]
    plan = pq.read_table(next(Path(corpus, "store/sample/max_loss").rglob("part-00000.parquet")))
    assert (utility["kind"], utility["values"], utility["micro_batch"], utility["taken"]) == (
        "max_loss",
        ["loss"],
        8,
        2,
    )
    assert utility["draws"] == 4 * plan.num_rows == 4 * utility["picked"]
    assert sum(map(sum, source["picks"])) == plan.num_rows == sum(map(sum, source["candidates"])) / 4
    assert sorted(source["names"]) == ["art", "books", "web"] and not source["others"]
    high, low = utility["rows"]["high"], utility["rows"]["low"]
    assert len(high) == len(low) == 12 and high[0]["picked"] and not low[0]["picked"]
    shard = pq.read_table(corpus / "in" / high[0]["file"])
    assert high[0]["values"]["loss"] == pytest.approx(shard["quality"][high[0]["row"]].as_py())
    assert high[0]["caption"] == shard["text"][high[0]["row"]].as_py()
    pictures = pq.read_table(Path(first.url, "report", "thumbnails.parquet"))["name"].to_pylist()
    assert f"{high[0]['file']}:{high[0]['row']}" in pictures
    assert "What the batches were picked by" in page(first) and "by the highest loss" in first.card
    monkeypatch.setattr(layout, "BLOCK_ROWS", 100)
    again = facts(run(config(other, over | {"runner": {"workers": 4, "shards_per_task": 1}})))
    assert again["utility"] == utility and again["sources"] == source


def test_two_runs_at_once_that_change_the_settings(corpus):
    run(config(corpus))
    over = {"report": {"gallery_rows": 3}}
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: run(config(corpus, over)), range(2)))
    assert facts(both[0])["settings"]["gallery_rows"] == 3 and "<html" in page(both[1])


def test_pictures_stay_under_a_size(corpus, monkeypatch):
    monkeypatch.setattr(findings, "PICTURE_BYTES", 2_000)
    mix = run(config(corpus))
    pictures = pq.read_table(Path(mix.url, "report", "thumbnails.parquet"))["picture"].to_pylist()
    assert 1_500 < sum(map(len, pictures)) <= 2_000
    assert page(mix).count("data:image/webp") < page(mix).count("not shown") > 0


def test_texts_alone(tmp_path):
    write_corpus(tmp_path / "in", shards=2)
    over = {"input": {"image": None, "exclude": ["image"]}, "embed": None, "score": []}
    mix = run(config(tmp_path, over | {"select": [{"kind": "exact_duplicates"}]}))
    assert "<img" not in page(mix) and 'class="strip words"' in page(mix)
    assert not facts(mix)["scores"] and "Scores" not in page(mix)


def test_strangers_write_no_html(tmp_path):
    (tmp_path / "in").mkdir()
    columns = rows(60, 1)
    columns["image"][2] = b"<!DOCTYPE html><script>alert(2)</script>"
    columns["text"] = [f"{EVIL} {text} \u202e" for text in columns["text"]]
    columns["key"] = [f"{EVIL}{i}" for i in range(60)]
    columns["source"] = [EVIL] * 60
    pq.write_table(pa.table(columns), tmp_path / "in" / "<img src=x onerror=alert(1)>.parquet")
    mix = run(config(tmp_path, {"select": [], "sample": {"kind": "iid", "batch_size": 8}}))
    told = page(mix)
    assert mix.emitted and "<script" not in told and "<img src=x" not in told and "\u202e" not in told
    assert "&lt;script&gt;alert(1)" in told and "<script" not in mix.card


def test_a_file_that_is_damaged_is_told(corpus):
    (corpus / "in" / "zz.parquet").write_bytes(b"PAR1 and nothing else")
    mix = run(config(corpus))
    (file,) = facts(mix)["files"]
    assert file["file"] == "zz.parquet" and file["reason"] == "damaged_file"
    assert "1 file is quarantined as a whole" in page(mix)


def with_groups(corpus):
    """The first shard gets a group of seven that are alike, the second one of four."""
    for number, rows_alike in ((0, range(10, 17)), (1, range(10, 14))):
        file = corpus / "in" / f"{number:05d}.parquet"
        table = pq.read_table(file)
        columns = table.to_pydict()
        for row in rows_alike:
            columns["image_emb"][row] = columns["image_emb"][rows_alike[0]]
        pq.write_table(pa.table(columns, schema=table.schema), file)


def test_groups_are_measured_and_shown(corpus):
    with_groups(corpus)
    over = {"select": [{"kind": "exact_duplicates"}, {"kind": "near_duplicates", "threshold": 0.99}]}
    mix = run(config(corpus, over))
    groups = {}
    for line in ledger(mix):
        if line["keeper_row"] is not None:
            place = (line["stage"], line["keeper_file"], line["keeper_row"])
            groups.setdefault(place, set()).add((line["file"], line["row"]))
    told = {one["stage"]: one for one in facts(mix)["selects"]}
    assert told["select/near_duplicates"]["sizes"]["largest"][:2] == [7, 4] and len(told) == 2
    for stage, one in told.items():
        sizes = sorted(len(rows) + 1 for key, rows in groups.items() if key[0] == stage)
        assert one["sizes"]["groups"] == len(sizes) and one["sizes"]["rows"] == sum(sizes)
        assert one["sizes"]["bins"] == [[size, size, sizes.count(size)] for size in [2, 3, 4, 5][: sizes[-1] - 1]] + [
            [6, 7, 1]
        ] * (sizes[-1] == 7)
    shown = facts(mix)["duplicates"]
    assert [one["dropped"] for one in shown if one["stage"] == "select/near_duplicates"][:2] == [6, 3]
    for one in shown:
        rows = groups[(one["stage"], one["keeper"]["file"], one["keeper"]["row"])]
        assert one["dropped"] == len(rows) and {(i["file"], i["row"]) for i in one["members"]} <= rows
        assert len(one["members"]) == min(5, len(rows))
    assert "7 rows, one of the largest" in page(mix) and "and 1 more" in page(mix)
    again = run(config(corpus, over | {"report": {"gallery_rows": 0}}))
    assert facts(again)["duplicates"] == [] and facts(again)["selects"] == [*told.values()]
    assert "Sizes of the groups" in page(again) and "<img" not in page(again)


def test_the_curve_is_what_another_cut_keeps(corpus):
    over = {"select": [{"kind": "threshold", "target_rows": 200}], "report": {"gallery_rows": 0}}
    mix = run(config(corpus, over))
    (told,) = facts(mix)["selects"]
    assert told["kept"] == 200 and told["met"] == "target 200 rows: 200 rows are kept"
    assert told["met"] in mix.card and told["met"] in page(mix) and "Rows kept by cut" in page(mix)
    kept = [line["score"] for line in ledger(mix) if line["reason"] == "below_threshold"]
    assert max(kept) <= told["curve"]["cut"]
    points = told["curve"]["points"]
    for minimum, wanted in (points[len(points) // 4], points[3 * len(points) // 4]):
        other = run(config(corpus, over | {"select": [{"kind": "threshold", "minimum": minimum}]}))
        assert abs(facts(other)["selects"][0]["kept"] - wanted) <= 1  # the cut is rounded for the page


def test_classes_of_a_select_with_quotas(corpus):
    select = {"kind": "cluster_balanced", "target_fraction": 0.25}
    mix = run(config(corpus, {"select": [select]}))
    (told,) = facts(mix)["selects"]
    assert told["classes"]["kept"] + sum(one["kept"] for one in told["classes"]["shown"]) == told["kept"]
    assert told["met"].startswith("target 25.0 %, ") and "By group" in page(mix) and "Importance" not in page(mix)


def test_a_file_of_known_content_is_shown_beside_the_one_it_repeats(corpus):
    shutil.copy(corpus / "in" / "00002.parquet", corpus / "in" / "zz.parquet")
    mix = run(config(corpus))
    group = next(one for one in facts(mix)["duplicates"] if one["reason"] == "duplicate_file")
    assert group["keeper"]["file"] == "00002.parquet" and group["members"][0]["file"] == "zz.parquet"
    assert group["keeper"]["caption"] == group["members"][0]["caption"]


def test_no_rows(tmp_path):
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(rows(1, 1)).slice(0, 0), tmp_path / "in" / "a.parquet")
    mix = run(config(tmp_path))
    assert mix.manifest["counts"]["rows_in"] == 0 and "Galleries" not in page(mix)


def test_a_picture_that_cannot_be_decoded_hurts_no_other(tmp_path):
    (tmp_path / "in").mkdir()
    images = [png(i) for i in range(40)]
    images[5] = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x02\x00\x00\x00"
    pq.write_table(pa.table({**rows(40, 1), "image": images}), tmp_path / "in" / "a.parquet")
    over = {"select": [], "sample": {"kind": "iid", "batch_size": 8}, "report": {"gallery_rows": 60}}
    mix = run(config(tmp_path, over))
    (kept,) = facts(mix)["galleries"]
    by_row = {item["row"]: item for item in kept["items"]}
    assert len(by_row) == 40 and by_row[5]["told"] and by_row[5]["head"].startswith("89504e47")
    assert page(mix).count("data:image/webp") == 39
