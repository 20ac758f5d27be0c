"""The pipeline as a whole, without Prefect: same bytes, nothing lost, nothing done twice."""

from __future__ import annotations

import errno
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from corpora import config, digests, png, rows, run, sidecars, write_corpus

from configs.errors import RunFailed
from storage import manifests, shards


def ledger(mix) -> pa.Table:
    return pa.concat_tables(pq.read_table(f) for f in sorted(Path(mix.url, "ledger").glob("*.parquet")))


def quarantine(mix) -> pa.Table:
    return pa.concat_tables(pq.read_table(f) for f in sorted(Path(mix.url, "quarantine").glob("*.parquet")))


def data(mix) -> pa.Table:
    return pa.concat_tables(pq.read_table(f) for f in sorted(Path(mix.url, "data").glob("*.parquet")))


def adds_up(mix, rows_in: int) -> None:
    table = ledger(mix)
    outcomes = dict(table.group_by("outcome").aggregate([("row", "count")]).rename_columns(["o", "n"]).to_pylist()[0])
    assert table.num_rows == rows_in and outcomes
    facts = mix.manifest["counts"]
    assert facts["rows_in"] == rows_in == facts["kept"] + facts["dropped"] + facts["quarantined"]
    assert list(manifests.discrepancies(mix.url)) == []


def test_rows_come_out_in_batch_order_with_what_came_in(corpus):
    mix = run(config(corpus))
    adds_up(mix, 7 * 60)
    table = data(mix)
    keys = list(zip(table["mix_step"].to_pylist(), table["mix_rank"].to_pylist(), table["mix_slot"].to_pylist()))
    assert keys == sorted(keys) and len(keys) == mix.manifest["batches"]["steps"] * 16 > 0
    for row in table.slice(0, 40).to_pylist():
        source = pq.read_table(corpus / "in" / row["mix_file"]).slice(row["mix_row"], 1).to_pylist()[0]
        assert row["image"]["bytes"] == source["image"] and row["text"] == source["text"]
        assert row["quality"] == source["quality"] and row["key"] == source["key"]
    used = ledger(mix).filter(pa.compute.equal(ledger(mix)["outcome"], "kept"))
    assert sum(used["times_used"].to_pylist()) == table.num_rows


def test_every_drop_has_a_reason_and_duplicates_name_their_keeper(corpus):
    mix = run(config(corpus))
    table = ledger(mix).to_pylist()
    by_reason = {}
    for row in table:
        by_reason.setdefault(row["reason"], []).append(row)
        assert (row["reason"] is None) == (row["outcome"] == "kept")
    exact = by_reason["exact_duplicate"]
    assert all(r["row"] == 4 and r["keeper_row"] == 3 and r["keeper_file"] == r["file"] for r in exact)
    assert {r["row"] for r in by_reason["near_duplicate"]} <= {5, 6}
    assert [r["stage"] for r in by_reason["image_null"]] == ["ingest"] * 7
    assert len(by_reason["text_blank"]) == 7 and by_reason["below_threshold"]
    quarantine = pa.concat_tables(pq.read_table(f) for f in Path(mix.url, "quarantine").glob("*.parquet")).to_pylist()
    assert sorted((r["file"], r["row"]) for r in quarantine) == sorted(
        (r["file"], r["row"]) for r in table if r["outcome"] == "quarantined"
    )


@pytest.mark.parametrize("over", [{"workers": 1, "shards_per_task": 1}, {"workers": 4, "shards_per_task": 7}])
def test_same_bytes_for_any_workers_and_any_shards_per_task(corpus, tmp_path_factory, over):
    first = run(config(corpus))
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(corpus / "in", other / "in")
    second = run(config(other, {"runner": over}))
    assert first.manifest["version"] == second.manifest["version"]
    parts = ("data", "ledger", "quarantine")
    assert digests(Path(first.url), *parts) == digests(Path(second.url), *parts)
    assert sidecars(corpus / "store") == sidecars(other / "store")


def test_a_second_run_does_nothing(corpus):
    first, log = run(config(corpus)), []
    second = run(config(corpus), log)
    assert second.task_runs == 0 and second.url == first.url
    assert any("is there already" in line for line in log)


def test_a_new_shard_costs_only_its_own_sidecars(corpus):
    run(config(corpus))
    before = sidecars(corpus / "store")
    pq.write_table(pa.table(rows(60, seed=99)), corpus / "in" / "00099.parquet")
    log = []
    mix = run(config(corpus), log)
    adds_up(mix, 8 * 60)
    assert "ingest: 8 files, 1 to read" in log
    for stage in ("embed", "annotate", "score/alignment"):
        assert f"{stage}: 1 of 8 shards to do" in log
    assert before.items() <= sidecars(corpus / "store").items()


def test_another_sampler_redoes_only_sampling_and_later(corpus):
    run(config(corpus))
    log = []
    mix = run(config(corpus, {"sample": {"kind": "iid", "batch_size": 16, "filter_ratio": 0.5}}), log)
    adds_up(mix, 420)
    assert "embed: all 7 shards are done" in log and "mix: done before" in log and "sample: done before" not in log


def test_a_file_with_known_content_is_dropped_as_a_whole(corpus):
    shutil.copy(corpus / "in" / "00002.parquet", corpus / "in" / "zz.parquet")
    mix = run(config(corpus))
    adds_up(mix, 8 * 60)
    twins = [r for r in ledger(mix).to_pylist() if r["file"] == "zz.parquet"]
    assert {r["reason"] for r in twins} == {"duplicate_file"} and len(twins) == 60
    assert all(r["keeper_file"] == "00002.parquet" and r["keeper_row"] == r["row"] for r in twins)


def test_a_shard_that_cannot_be_read_does_not_stop_the_others_and_the_rerun_does_only_it(corpus, monkeypatch):
    read = shards.footer

    def refuse(url):
        if url.endswith("00003.parquet"):
            raise PermissionError(errno.EACCES, "Permission denied", url)
        return read(url)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "footer", refuse)
        with pytest.raises(RunFailed, match=r"1 of 7 shards failed; rerun to retry only those. First: 00003.parquet: "):
            run(config(corpus))
    assert len(list((corpus / "store" / "embed").rglob("*.json"))) == 6
    log = []
    adds_up(run(config(corpus), log), 420)
    assert "ingest: 7 files, 1 to read" in log and "embed: 1 of 7 shards to do" in log


def cut(data):
    return data[:1000]


def foreign(data):
    return b"<html>503 Service Unavailable</html>"


def broken_page(data):
    return data[:4] + bytes(400) + data[404:]  # the footer is whole


@pytest.mark.parametrize(("damage", "known_rows"), [(cut, 0), (foreign, 0), (broken_page, 60)])
def test_a_damaged_file_is_quarantined_as_a_whole_and_comes_in_when_mended(corpus, damage, known_rows):
    file = corpus / "in" / "00003.parquet"
    good = file.read_bytes()
    file.write_bytes(damage(good))
    mix = run(config(corpus))
    adds_up(mix, 360 + known_rows)
    assert "1 damaged files are quarantined as a whole, first 00003.parquet: " in mix.message
    assert [one["file"] for one in mix.manifest["damaged"]] == ["00003.parquet"]
    found = quarantine(mix).filter(pc.field("file") == "00003.parquet").to_pylist()
    assert [(one["row"], one["reason"]) for one in found] == [(None, "damaged_file")]
    assert f"at byte {len(damage(good)):,}" in found[0]["detail"]
    mine = ledger(mix).filter(pc.field("file") == "00003.parquet").to_pylist()
    assert {(r["outcome"], r["stage"], r["reason"]) for r in mine} == (
        {("quarantined", "ingest", "damaged_file")} if known_rows else set()
    )
    log: list[str] = []
    assert run(config(corpus), log).url == mix.url and "ingest: 7 files, 0 to read" in log
    file.write_bytes(good)
    adds_up(run(config(corpus)), 420)


def test_damage_in_a_column_that_no_stage_reads_shows_at_once(corpus):
    file = corpus / "in" / "00003.parquet"
    place = pq.ParquetFile(file).metadata.row_group(0).column(6)
    assert place.path_in_schema == "quality"
    data = bytearray(file.read_bytes())
    data[place.data_page_offset : place.data_page_offset + 12] = b"\xff" * 12
    file.write_bytes(data)
    adds_up(run(config(corpus)), 420)
    assert [one["file"] for one in run(config(corpus)).manifest["damaged"]] == ["00003.parquet"]


def test_too_many_damaged_files_fail_the_run(corpus):
    for number in range(3):
        file = corpus / "in" / f"0000{number}.parquet"
        file.write_bytes(cut(file.read_bytes()))
    with pytest.raises(RunFailed, match=r"3 of 7 files are damaged, .*`max_quarantine_fraction` 0.4 .*00000.parquet: "):
        run(config(corpus, {"max_quarantine_fraction": 0.4}))
    adds_up(run(config(corpus, {"max_quarantine_fraction": 0.5})), 240)


def test_too_many_quarantined_rows_fail_the_run_before_anything_is_mixed(corpus):
    with pytest.raises(RunFailed, match=r"14 of 420 rows would be quarantined, .* \(image_null 7, text_blank 7\)"):
        run(config(corpus, {"max_quarantine_fraction": 0.03}))
    assert not (corpus / "store" / "mix").exists()
    adds_up(run(config(corpus, {"max_quarantine_fraction": 0.04})), 420)


def test_two_runs_at_once_on_one_store_both_finish_right(corpus, tmp_path_factory):
    alone = tmp_path_factory.mktemp("alone")
    shutil.copytree(corpus / "in", alone / "in")
    wanted = run(config(alone))
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: run(config(corpus)), range(2)))
    for mix in both:
        adds_up(mix, 420)
        assert digests(Path(mix.url), "data", "ledger") == digests(Path(wanted.url), "data", "ledger")


def test_proportions_and_budget_are_met(corpus):
    shares = {"web": 0.5, "books": 0.3, "art": 0.2}
    over = {"mix": {"proportions": shares, "budget": 640}, "sample": {"kind": "iid", "batch_size": 32}}
    mix = run(config(corpus, over))
    adds_up(mix, 420)
    assert mix.emitted == 640
    drawn = data(mix)["source"].to_pylist()
    assert {s: drawn.count(s) for s in shares} == {"web": 320, "books": 192, "art": 128}


def test_no_row_of_a_group_is_used_twice_before_all_are_used_once(corpus):
    over = {"mix": {"budget": 1280}, "sample": {"kind": "iid", "batch_size": 32, "filter_ratio": 0.0}}
    mix = run(config(corpus, over))
    table = ledger(mix).to_pylist()
    for source in ("web", "books", "art"):
        keys = {r["key"] for r in table if r["outcome"] == "kept"}
        times = [r["times_used"] for r in table if r["key"] in keys]
        assert max(times) - min(times) <= 1 + 3, source  # one per group and pass


def test_ranks_hold_equal_disjoint_parts(corpus):
    over = {"sample": {"kind": "cabs_dm", "batch_size": 16, "filter_ratio": 0.5, "world_size": 4}}
    table = data(run(config(corpus, over)))
    for step in range(max(table["mix_step"].to_pylist()) + 1):
        ranks = table.filter(pa.compute.equal(table["mix_step"], step))["mix_rank"].to_pylist()
        assert ranks == sorted(ranks) and np.bincount(ranks).tolist() == [4, 4, 4, 4]


def test_columns_that_bear_our_names_stay_the_users(corpus):
    """`uid` and `width` in the input; `mix.groups` and the concept column named like a role or a sidecar of ours."""
    for number, file in enumerate(sorted((corpus / "in").iterdir())):
        table = pq.read_table(file)
        n = table.num_rows
        table = table.append_column("uid", pa.array([f"user-{number}-{i}" for i in range(n)]))
        table = table.append_column("text_chars", pa.array(["even" if i % 2 == 0 else "odd" for i in range(n)]))
        pq.write_table(table.append_column("caption", table["text"]), file)
    over = {"input": {"text": "caption"}, "annotate": {"kind": "column", "column": "text", "separator": " "}}
    over |= {"mix": {"groups": "text_chars"}, "sample": {"kind": "iid", "batch_size": 16}}
    mix = run(config(corpus, over))
    adds_up(mix, 420)
    assert all(u.startswith("user-") for u in data(mix)["uid"].to_pylist())
    report = Path(mix.url, "report", "report.json").read_text()
    assert '"group": "even"' in report and "w000" in report


def test_another_column_behind_a_role_is_another_selection(corpus):
    select = [{"kind": "threshold", "score": "source", "minimum": 0.5}]
    for file in sorted((corpus / "in").iterdir()):
        table = pq.read_table(file)
        n = table.num_rows
        pq.write_table(table.append_column("a", pa.array([1] * n)).append_column("b", pa.array([0] * n)), file)
    one = run(config(corpus, {"input": {"source": "a"}, "select": select}))
    two = run(config(corpus, {"input": {"source": "b"}, "select": select}))
    assert one.emitted > 0 and two.emitted == 0


def test_one_heavy_row_drawn_often(tmp_path, monkeypatch):
    from storage import exchange, shards
    from tasks.emit import rows as emit_rows

    monkeypatch.setattr(exchange, "GATHER_BYTES", 1 << 20)
    monkeypatch.setattr(emit_rows, "GATHER_BYTES", 1 << 20)
    monkeypatch.setattr(shards, "SLICE_BYTES", 1 << 20)
    images = [png(i) for i in range(40)]
    images[7] = images[7] + bytes(300_000)
    shard(tmp_path, 40, image=images)
    over = {"select": [], "mix": {"budget": 640}, "sample": {"kind": "iid", "batch_size": 32, "filter_ratio": 0}}
    mix = run(config(tmp_path, over | {"emit": {"part_bytes": 3_000_000}}))
    adds_up(mix, 40)
    table = data(mix)
    assert sum(len(i["bytes"]) > 300_000 for i in table["image"].to_pylist()) == 16


def test_a_caption_that_is_not_utf8_is_quarantined_alone(tmp_path):
    raw = pa.array([b"fine words"] * 20 + [b"\xff\xfe bad"] + [b"more words"] * 19, pa.binary())
    text = pa.Array.from_buffers(pa.string(), 40, raw.buffers())
    shard(tmp_path, 40, text=text)
    mix = run(config(tmp_path, {"select": [], "sample": {"kind": "iid", "batch_size": 8}}))
    adds_up(mix, 40)
    assert [r["row"] for r in ledger(mix).to_pylist() if r["reason"] == "text_not_utf8"] == [20]


# ------------------------------------------------------------------------------------------------------------- corners
def shard(folder: Path, count: int, **changes) -> None:
    (folder / "in").mkdir(exist_ok=True)
    pq.write_table(pa.table({**rows(max(count, 1), 1), **changes}).slice(0, count), folder / "in" / "a.parquet")


def test_no_files(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match=r"`input.path` is .*; no \*.parquet file is there"):
        run(config(tmp_path))


def test_no_rows(tmp_path):
    shard(tmp_path, 0)
    mix = run(config(tmp_path))
    adds_up_empty(mix, 0)
    assert "The input has no rows" in mix.message


def adds_up_empty(mix, rows_in: int) -> None:
    assert mix.emitted == 0 and mix.manifest["counts"]["rows_in"] == rows_in
    assert list(manifests.discrepancies(mix.url)) == [] and mix.message.startswith("the mix is empty")
    assert not Path(mix.url).parent.joinpath("latest.json").exists()


def test_all_rows_bad(tmp_path):
    shard(tmp_path, 30, image=[None] * 30)
    mix = run(config(tmp_path, {"input": {"image": "image"}, "max_quarantine_fraction": 1}))
    adds_up_empty(mix, 30)
    assert mix.manifest["counts"]["quarantined"] == 30 and "Every row was quarantined" in mix.message


def test_all_dropped(tmp_path):
    shard(tmp_path, 30)
    mix = run(config(tmp_path, {"select": [{"kind": "threshold", "score": "alignment", "minimum": 2.0}]}))
    adds_up_empty(mix, 30)
    assert {r["reason"] for r in ledger(mix).to_pylist()} == {"below_threshold"}


def test_fewer_rows_than_a_superbatch(tmp_path):
    shard(tmp_path, 30)
    mix = run(config(tmp_path, {"select": []}))
    adds_up_empty(mix, 30)
    assert {r["reason"] for r in ledger(mix).to_pylist()} == {"tail"}
    assert "No whole superbatch of 32 draws" in mix.message


def test_one_row(tmp_path):
    shard(tmp_path, 1)
    mix = run(config(tmp_path, {"sample": {"kind": "iid", "batch_size": 1}, "annotate": {"min_count": 1}}))
    adds_up(mix, 1)
    assert mix.emitted == 1


def test_budget_larger_than_the_data_repeats_rows_and_says_so(tmp_path):
    shard(tmp_path, 30)
    over = {"select": [], "mix": {"budget": 96}, "sample": {"kind": "iid", "batch_size": 32, "filter_ratio": 0}}
    mix = run(config(tmp_path, over))
    adds_up(mix, 30)
    assert mix.emitted == 96 and "96 draws from 30 rows" in Path(mix.url, "report", "index.html").read_text()


def test_a_real_model_with_random_weights_says_so(tmp_path):
    shard(tmp_path, 40)
    over = {"embed": {"kind": "open_clip", "model": "ViT-S-32-alt", "image_size": 32, "context_length": 8}}
    mix = run(config(tmp_path, over | {"select": [], "sample": {"kind": "iid", "batch_size": 8}}))
    adds_up(mix, 40)
    assert mix.emitted > 0 and "has random weights (seed 0)" in Path(mix.url, "report", "index.html").read_text()


def test_text_only(tmp_path):
    shard(tmp_path, 60)
    over = {
        "input": {"image": None, "exclude": ["image"]},
        "embed": None,
        "score": [],
        "select": [{"kind": "exact_duplicates"}],
    }
    mix = run(config(tmp_path, over))
    adds_up(mix, 60)
    assert "image" not in data(mix).column_names and data(mix)["text"].null_count == 0


def test_a_mix_whose_files_are_gone_is_written_again(corpus):
    first = run(config(corpus))
    wanted = digests(Path(first.url), "data", "ledger")
    shutil.rmtree(Path(first.url) / "data")
    assert "data/part-00000.parquet is missing" in next(manifests.discrepancies(first.url))
    again = run(config(corpus))
    assert digests(Path(again.url), "data", "ledger") == wanted


def test_memory_file_system(tmp_path):
    import fsspec

    write_corpus(tmp_path / "in", shards=3)
    memory = fsspec.filesystem("memory")
    for file in sorted((tmp_path / "in").iterdir()):
        memory.pipe(f"/{tmp_path.name}/in/{file.name}", file.read_bytes())
    local = run(config(tmp_path))
    remote = run(config(tmp_path, where=f"memory://{tmp_path.name}"))
    assert remote.manifest["files"] == local.manifest["files"]
    assert list(manifests.discrepancies(remote.url)) == []
    log = []
    run(config(tmp_path, where=f"memory://{tmp_path.name}"), log)
    assert any("is there already" in line for line in log)
