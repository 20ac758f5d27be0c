"""Night after night over a folder that grows: only what is new is paid for, what changed is said, gc takes the rest."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from buckets import upload
from corpora import config as full_config
from corpora import digests, rows, run, write_corpus
from typer.testing import CliRunner

from configs.errors import PlaceError, StoreInUse
from configs.loading import merged
from flows.cli import app
from flows.curate import resolve
from flows.explaining import explain_row
from flows.gc import Cleaned, Rules, clean, gc
from flows.nights import changes_ahead
from flows.pipeline import curate, embed
from flows.runners import IdleRunner, PlainRunner
from flows.scanning import Scan
from storage import files, garbage, manifests, objects
from storage.shards import InputFile

NOW = {"grace_days": -1.0}
"""A grace that ends tomorrow: clocks are coarse."""
PER_SHARD = ("ingest", "embed", "annotate", "score")


QUICK = {
    "select": [{"kind": "exact_duplicates"}, {"kind": "threshold", "score": "alignment", "keep_fraction": 0.9}],
    "sample": {"kind": "iid", "batch_size": 8, "filter_ratio": 0},
    "report": {"gallery_rows": 0},
}


@pytest.fixture
def corpus(tmp_path):
    """A folder with a small corpus in `in`."""
    write_corpus(tmp_path / "in", shards=3, count=30)
    return tmp_path


def config(folder: Path, over: dict | None = None, where: str | None = None):
    """A run through every stage that is soon done."""
    return full_config(folder, merged(QUICK, over or {}), where)


def add(folder: Path, name: str, seed: int) -> None:
    pq.write_table(pa.table(rows(30, seed)), folder / "in" / name, row_group_size=25)


def commits(folder: Path) -> dict[str, dict[str, int]]:
    """Commit points of per-shard stages: stage -> shard -> when it was written."""
    found: dict[str, dict[str, int]] = {stage: {} for stage in PER_SHARD}
    for stage in PER_SHARD:
        for path in (folder / "store" / stage).glob("*/*/*.json"):
            if not path.parts[-2].startswith("_"):
                found[stage][path.stem] = path.stat().st_mtime_ns
    return found


def parents(mix) -> dict[str, str]:
    return {one["file"]: one["digest"] for one in mix.manifest["parents"]}


def idle(settings):
    """The mix of a configuration for which nothing is to be done."""
    return curate(settings, IdleRunner(), lambda line: None)


def cleaned(settings, log: list[str] | None = None, **over) -> Cleaned:
    return clean(settings, Rules(**{**NOW, **over}), (log if log is not None else []).append)


def removed(done: Cleaned) -> dict[str, int]:
    """Files removed by stage."""
    found: dict[str, int] = {}
    for (stage, _), line in done.pieces.items():
        found[stage] = found.get(stage, 0) + line[2]
    return found


def test_nights_pay_for_new_shards_alone_and_say_what_changed(corpus):
    settings, before, mix = config(corpus), {stage: {} for stage in PER_SHARD}, None

    def add_and_remove():
        (corpus / "in/00001.parquet").unlink()
        add(corpus, "00004.parquet", 91)

    def rewrite_and_rename():
        add(corpus, "00002.parquet", 92)
        (corpus / "in/00003.parquet").rename(corpus / "in/z.parquet")

    nights = [
        (lambda: None, 3, ""),
        (lambda: add(corpus, "00003.parquet", 90), 1, "1 new (00003.parquet)"),
        (add_and_remove, 1, "1 new (00004.parquet); 1 gone (00001.parquet)"),
        (rewrite_and_rename, 1, "1 rewritten (00002.parquet); 1 renamed (00003.parquet -> z.parquet)"),
    ]
    for change, expected, told in nights:
        change()
        log: list[str] = []
        earlier, mix = mix, run(settings, log)
        now = commits(corpus)
        fresh = set(parents(mix).values()) - (set(parents(earlier).values()) if earlier else set())
        assert len(fresh) == expected
        moved = {parents(mix)["z.parquet"]} if "renamed" in told else set()  # read again, to know what it is
        for stage in PER_SHARD:
            assert set(now[stage]) - set(before[stage]) == fresh
            again = {shard for shard in before[stage] if now[stage][shard] != before[stage][shard]}
            assert again == (moved if stage == "ingest" else set())
        lines = [line for line in log if line.startswith("input files against")]
        assert lines == ([f"input files against the newest mix, {earlier.manifest['version']}: {told}"] if told else [])
        assert told.split(" (")[0] in Path(mix.url, "report/index.html").read_text()
        before = now
    assert idle(settings).url == mix.url


def test_check_and_a_dry_run_say_what_a_run_would_meet(corpus):
    path = corpus / "my.yaml"
    path.write_text(yaml.safe_dump(config(corpus).model_dump(mode="json")))
    mix = run(config(corpus))
    for command in (["check", str(path), "--sample", "0"], ["curate", str(path), "--dry-run"]):
        assert "input files against" not in CliRunner().invoke(app, command).output
    add(corpus, "00003.parquet", 90)
    add(corpus, "00001.parquet", 91)
    (corpus / "in/00002.parquet").unlink()
    told = "1 new (00003.parquet); 1 gone (00002.parquet); 1 written or touched since they were read (00001.parquet)"
    for command in (["check", str(path), "--sample", "0"], ["curate", str(path), "--dry-run"]):
        output = CliRunner().invoke(app, command).output
        assert f"input files against the newest mix, {mix.manifest['version']}: {told}" in output


def test_a_rewritten_unit_stands_for_all_the_shards_it_was_converted_to(tmp_path):
    before = [{"file": f"big.jsonl#{number:05d}", "digest": "1", "rows": 1} for number in range(2)]
    before.append({"file": "small.jsonl", "digest": "2", "rows": 1})
    told = {"version": "0" * 12, "parents": before, "config": {}}
    files.write_json(f"{tmp_path}/out/mix/{'0' * 12}/mix.json", told)
    manifests.point_latest(f"{tmp_path}/out/mix", "0" * 12)
    units = [InputFile(name, name, 1, "") for name in ("big.jsonl", "new.jsonl")]
    assert changes_ahead(config(tmp_path), Scan((), pending={0: units})) == [
        f"input files against the newest mix, {'0' * 12}: 1 new (new.jsonl); 1 gone (small.jsonl); 2 written or "
        "touched since they were read (big.jsonl#00000, big.jsonl#00001)"
    ]


def converted(place: Path):
    """A run over JSON lines, with a vocabulary that the user gives."""
    (place / "in").mkdir()
    for name in ("a", "b"):
        lines = [
            json.dumps({"text": f"a {word} and {name} {number}"}) for number, word in enumerate(["cat", "dog"] * 20)
        ]
        (place / "in" / f"{name}.jsonl").write_text("\n".join(lines))
    (place / "words.txt").write_text("cat\ndog\nowl\n")
    return config(
        place,
        {
            "input": {
                "kind": "jsonl",
                "path": f"{place}/in",
                "image": None,
                "text": "text",
                "key": None,
                "source": None,
            },
            "embed": None,
            "annotate": {"vocabulary": str(place / "words.txt")},
            "score": [],
            "select": [{"kind": "exact_duplicates"}],
            "sample": {"kind": "iid", "batch_size": 8, "filter_ratio": 0},
        },
    )


def test_gc_keeps_what_kept_mixes_of_two_configurations_need(corpus):
    one, other = config(corpus), config(corpus, {"name": "other", "seed": 1})
    first, second = run(one), run(other)
    assert removed(cleaned(one)) == dict.fromkeys(removed(cleaned(one)), 0)
    (corpus / "in/00001.parquet").unlink()
    add(corpus, "00002.parquet", 91)
    third, fourth = run(one), run(other)
    before = digests(corpus, "store")
    would = cleaned(one, keep=1, dry_run=True)
    assert digests(corpus, "store") == before and would.versions == [first.url]
    done = cleaned(one, keep=1)
    assert removed(done) == removed(would) and done.versions == [first.url] and not Path(first.url).exists()
    # The other configuration keeps its older mix, and with it the sidecars of both old shards.
    assert {stage: removed(done)[stage] for stage in PER_SHARD} == dict.fromkeys(PER_SHARD, 0)
    assert removed(done)["sample"] > 0
    for mix in (second, third, fourth):
        assert list(manifests.discrepancies(mix.url)) == []
        assert [told["title"] for told in explain_row(mix.url, "k-1-0")][1:4] == ["ingest", "embed", "annotate"]
    done = cleaned(other, keep=1)
    assert done.versions == [second.url] and done.mixes == 2
    stages = removed(done)
    assert {stage: stages[stage] for stage in PER_SHARD} == {"ingest": 7, "embed": 4, "annotate": 4, "score": 4}
    assert min(stages[stage] for stage in ("select", "mix", "sample")) > 0
    embedded = commits(corpus)
    assert idle(one).url == third.url and idle(other).url == fourth.url
    assert commits(corpus) == embedded and set(embedded["embed"]) == set(parents(third).values())
    for mix in (third, fourth):
        assert list(manifests.discrepancies(mix.url)) == []


def test_gc_keeps_conversions_notes_and_vocabularies_that_a_rerun_uses(tmp_path):
    settings = converted(tmp_path)
    run(settings)
    assert sum(removed(cleaned(settings)).values()) == 0
    stale = {"annotate": {"vocabulary": str(tmp_path / "words.txt"), "lowercase": False}}
    run(config(tmp_path, settings.model_dump(mode="json", exclude_unset=True) | stale))
    (tmp_path / "in/a.jsonl").write_text('{"text": "other cat"}\n' * 20)
    newest = run(settings)
    done = cleaned(settings, keep=1)
    assert removed(done)["ingest"] == 5 and removed(done)["annotate"] >= 6
    assert len(list((tmp_path / "store").glob("annotate/captions/_states/*.npz"))) == 1
    assert idle(settings).url == newest.url


@pytest.mark.nightly
def test_a_mined_vocabulary_stays_whatever_goes(corpus):
    run(config(corpus))
    run(config(corpus, {"annotate": {"kind": "column", "column": "source"}}))
    done = cleaned(config(corpus), keep=1)
    assert removed(done)["annotate"] > 0
    assert list((corpus / "store").glob("annotate/captions/_frozen/mix.npz"))


def test_wherever_gc_dies_a_rerun_makes_the_same_mix(corpus, monkeypatch):
    settings = config(corpus)
    first = run(settings)
    wanted = digests(Path(first.url), "data", "ledger")
    aside = corpus / "aside"
    shutil.copytree(corpus / "in", aside, copy_function=shutil.copy2)
    (corpus / "in/00001.parquet").unlink()
    second = run(settings)
    unlink, left = os.unlink, 40

    def cut_off(path, **over):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        unlink(path, **over)

    monkeypatch.setattr(os, "unlink", cut_off)
    with pytest.raises(KeyboardInterrupt):
        cleaned(settings, keep=1)
    monkeypatch.undo()
    assert list(manifests.discrepancies(second.url)) == [] and idle(settings).url == second.url
    shutil.copy2(aside / "00001.parquet", corpus / "in/00001.parquet")
    again = run(settings)
    assert again.url == first.url and digests(Path(again.url), "data", "ledger") == wanted


def test_versions_are_kept_by_count_or_by_age_and_the_newest_always(corpus):
    mix, now = run(config(corpus)), datetime.now(UTC)
    Path(mix.url).rename(corpus / "made")
    for rules, left in [
        ({}, "0123"),
        ({"keep": 1}, "2"),
        ({"keep": 2}, "20"),
        ({"keep": 4}, "0123"),
        ({"keep_days": 1.5}, "201"),
        ({"keep_days": 0.0}, "2"),
        ({"keep": 3, "keep_days": 1.5}, "201"),
        ({"keep": 3, "keep_days": 0.5}, "201"),
    ]:
        for number in range(4):  # 0 is of today, 1 of yesterday, …; `latest.json` names 2
            copy = corpus / "out/mix" / (f"{number}" * 12)
            shutil.copytree(corpus / "made", copy, dirs_exist_ok=True)
            created = (now - timedelta(days=number)).isoformat(timespec="seconds")
            (copy / "mix.json").write_text(json.dumps(mix.manifest | {"created": created}))
        manifests.point_latest(f"{corpus}/out/mix", "2" * 12)
        versions = {path.parent.name[0] for path in (corpus / "out/mix").glob("*/mix.json")}
        assert versions == set("0123")
        done = cleaned(config(corpus), **rules)
        assert {path.name[0] for path in (corpus / "out/mix").iterdir() if path.is_dir()} == set(left), rules
        assert done.mixes == len(left) and len(done.versions) == 4 - len(left)


def test_versions_without_rows_use_up_nothing_of_what_is_kept(corpus):
    mix, now = run(config(corpus)), datetime.now(UTC)
    Path(mix.url).rename(corpus / "made")
    for number in range(8):  # by age: 0 is the newest; from 2 to 6 they have no rows
        copy = corpus / "out/mix" / (f"{number}" * 12)
        shutil.copytree(corpus / "made", copy)
        created = (now - timedelta(days=number)).isoformat(timespec="seconds")
        counts = mix.manifest["counts"] | ({"emitted": 0} if 2 <= number <= 6 else {})
        (copy / "mix.json").write_text(json.dumps(mix.manifest | {"created": created, "counts": counts}))
    for latest, rules, left in [
        ("1", {"keep": 4}, "0123457"),
        ("1", {"keep": 3, "keep_days": 4.5}, "012347"),
        ("7", {"keep": 2}, "0723"),
        ("3", {"keep": 1}, "03"),
    ]:
        manifests.point_latest(f"{corpus}/out/mix", latest * 12)
        cleaned(config(corpus), **rules)
        assert {path.name[0] for path in (corpus / "out/mix").iterdir() if path.is_dir()} == set(left), rules


def test_a_version_that_is_a_link_stays_and_is_told(corpus):
    first, second = run(config(corpus)), run(config(corpus, {"seed": 3}))
    Path(first.url).rename(corpus / "disk")
    Path(first.url).symlink_to(corpus / "disk")
    before = digests(corpus / "disk", "")
    for _ in range(2):
        done = cleaned(config(corpus, {"seed": 3}), keep=1)
        assert done.versions == [] and done.mixes == 2
        assert done.notes == [f"version {first.url} stays: it is a link; remove what it leads to, then the link"]
    assert digests(corpus / "disk", "") == before and list(manifests.discrepancies(first.url)) == []
    (corpus / "disk/mix.json").unlink()  # what is left is no mix
    done = cleaned(config(corpus, {"seed": 3}), keep=1)
    assert done.versions == [] and "it is a link" in done.notes[0] and Path(first.url).is_symlink()
    Path(first.url).unlink()
    assert cleaned(config(corpus, {"seed": 3}), keep=1).mixes == 1 and list(manifests.discrepancies(second.url)) == []


def test_half_removed_versions_go_after_their_time(corpus):
    settings = config(corpus)
    mix = run(settings)
    half = Path(mix.url).with_name("0" * 12)
    shutil.copytree(mix.url, half)
    (half / "mix.json").unlink()
    assert cleaned(settings, grace_days=1.0).versions == [] and half.exists()
    assert cleaned(settings).versions == [str(half)] and not half.exists()


@pytest.mark.nightly
def test_a_half_done_run_lives_from_the_grace(corpus):
    settings = config(corpus)
    run(settings)
    add(corpus, "00003.parquet", 90)
    embed(settings, PlainRunner(2), lambda line: None)
    before = commits(corpus)
    assert sum(removed(cleaned(settings, grace_days=7.0)).values()) == 0
    run(settings)
    assert commits(corpus)["embed"] == before["embed"]


def test_a_store_without_a_mix_is_left_alone(corpus):
    with pytest.raises(PlaceError, match="no mix stands on"):
        cleaned(config(corpus))
    assert not (corpus / "store").exists()


@pytest.mark.nightly
def test_a_mix_out_of_reach_stops_gc_before_anything_is_removed(corpus):
    settings = config(corpus)
    run(settings)
    away = config(corpus, {"name": "away", "emit": {"out": str(corpus / "disk")}, "seed": 1})
    run(away)
    (corpus / "in/00001.parquet").unlink()
    run(settings)
    (corpus / "disk").rename(corpus / "unmounted")
    before = digests(corpus, "store", "out")
    with pytest.raises(StoreInUse, match="disk is not there"):
        cleaned(settings, keep=1)
    assert digests(corpus, "store", "out") == before
    (corpus / "unmounted").rename(corpus / "disk")
    assert cleaned(settings, keep=1).mixes == 2


PROGRAM = """
import sys, time
from pathlib import Path
from corpora import config, run
from tasks.select import task

def wait(*args, **kwargs):
    print("at work", flush=True)
    time.sleep(120)

import flows.pipeline
flows.pipeline.selecting.select = wait
run(config(Path(sys.argv[1])))
"""


def test_gc_refuses_beside_a_live_run_and_goes_once_it_is_killed(corpus):
    settings = config(corpus)
    first = run(settings)
    (corpus / "in/00001.parquet").unlink()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", PROGRAM, str(corpus)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "at work\n"
        before = digests(corpus, "store", "out")
        with pytest.raises(StoreInUse, match=f"run of 'mix' on .*, process {process.pid}, since"):
            cleaned(settings)
        assert digests(corpus, "store", "out") == before
        assert f"process {process.pid}" in cleaned(settings, dry_run=True).notes[0]
        # To look needs no lease.
        assert list(manifests.discrepancies(first.url)) == [] and list(explain_row(first.url, "k-1-0"))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert cleaned(settings, dry_run=True).notes == []
    assert cleaned(settings).mixes == 1
    assert list((corpus / "store/_runs").iterdir()) == []


@pytest.mark.nightly
def test_on_an_object_store(s3, planted, tmp_path):
    place = s3.place("nights")
    write_corpus(tmp_path / "in", shards=3)
    upload(s3, tmp_path / "in", f"{place}/in")
    one = config(tmp_path, {"storage": s3.section}, where=place)
    first = run(one)
    second = run(config(tmp_path, {"storage": s3.section, "seed": 1}, where=place))
    done = cleaned(one, keep=1)
    assert done.versions == [first.url] and removed(done)["sample"] > 0
    with objects.using(s3.options):
        assert list(manifests.discrepancies(second.url)) == []
        assert [path for path, _ in garbage.below(f"{place}/store/_runs")] == []
    assert idle(config(tmp_path, {"storage": s3.section, "seed": 1}, where=place)).url
    assert run(one).url == first.url


def test_the_command_prints_what_goes_and_removes_it_only_without_dry_run(corpus):
    path = corpus / "my.yaml"
    path.write_text(yaml.safe_dump(config(corpus).model_dump(mode="json")))
    run(config(corpus, {"seed": 1}))
    run(config(corpus))
    command = ["gc", str(path), "--keep", "1", "--grace-days", "0"]
    said = CliRunner().invoke(app, [*command, "--dry-run"]).output
    assert "would go" in said and "1 versions of the mix would be removed; 1 mixes stand on what stays" in said
    assert len(list((corpus / "out/mix").glob("*/mix.json"))) == 2
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0 and "would" not in result.output and "removed; 1 mixes" in result.output
    assert len(list((corpus / "out/mix").glob("*/mix.json"))) == 1


def test_keep_days_of_nothing_keeps_all_in_the_command_as_in_the_flow(corpus, monkeypatch):
    asked = []

    def look(settings, rules, log):
        asked.append(rules)
        return Cleaned(settings.store, rules)

    monkeypatch.setattr("flows.gc.clean", look)
    settings = yaml.safe_dump(config(corpus).model_dump(mode="json"))
    (corpus / "my.yaml").write_text(settings)
    monkeypatch.setattr("flows.gc.get_run_logger", lambda: logging.getLogger("gc"))
    for days, count in [(0, 0), (1.5, 0), (0, 2)]:
        command = ["gc", str(corpus / "my.yaml"), "--keep-days", str(days), "--keep", str(count)]
        assert CliRunner().invoke(app, command).exit_code == 0
        assert gc.fn(overrides=settings, keep_days=days, keep=count).is_completed()
    assert [(rules.keep_days, rules.keep) for rules in asked[::2]] == [(None, None), (1.5, None), (None, 2)]
    assert asked[::2] == asked[1::2]


@pytest.mark.flow
def test_the_flow_is_named_by_the_store_and_says_what_it_removed(corpus, prefect_server):
    run(config(corpus))
    overrides = yaml.safe_dump(config(corpus).model_dump(mode="json"))
    state = gc(preset="plain", overrides=overrides, return_state=True)
    assert state.is_completed() and state.message.startswith(f"{corpus}/store: 0 files, 0 B removed; 1 mixes")
    assert resolve("plain", overrides=overrides).store == f"{corpus}/store"
    shutil.rmtree(corpus / "out")
    assert "is not there" in gc(preset="plain", overrides=overrides, return_state=True).message
