"""What no mix stands on goes, commit points first; everything else stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from configs.errors import StoreInUse
from storage import files, garbage, mixes, objects, together
from storage.fingerprints import digest
from storage.garbage import References, find, remove
from storage.steps import Step

OLD = 30 * files.DAY


def name(text: str) -> str:
    return digest(text.encode())


def manifest(shards: list[str], reuses: dict | None = None) -> dict:
    """A mix of these shards."""
    steps = [
        ("embed", "columns", "e"),
        ("score", "alignment", "s"),
        ("select", "threshold", "t"),
        ("mix", "static", "m"),
    ]
    told = {
        "parents": [{"file": shard, "digest": name(shard), "rows": 1} for shard in shards],
        "steps": [{"stage": stage, "kind": kind, "fingerprint": name(one)} for stage, kind, one in steps],
    }
    return told if reuses is None else told | {"reuses": reuses}


def write(place: str, paths: list[str], seconds_ago: float = OLD) -> None:
    for path in paths:
        url = files.join(place, path)
        files.write_bytes(url, b"1234567890")
        if files.is_local(place):
            os.utime(url, (time.time() - seconds_ago,) * 2)


def sidecar(step: str, shard: str, failures: bool = False) -> list[str]:
    endings = ["parquet", "json", *(["failures.parquet"] if failures else [])]
    return [f"{step}/{name(shard)}.{ending}" for ending in endings]


EMBED, SCORE, STALE = f"embed/columns/{name('e')}", f"score/alignment/{name('s')}", f"embed/columns/{name('stale')}"
SELECT, BEFORE, LISTS = f"select/threshold/{name('t')}", f"select/threshold/{name('before')}", f"mix/static/{name('m')}"
JSONL, STATES = f"ingest/jsonl/{name('j')}", "annotate/captions/_states"
KEPT = [
    *sidecar(EMBED, "a", failures=True),
    *sidecar(SCORE, "a"),
    *(f"{SELECT}/{one}" for one in ("_done.json", "state.npz", f"{name('a')}.json", f"{name('gone')}.json")),
    f"{LISTS}/_done.json",
    f"{JSONL}/{name('unit')}-00000.parquet",
    f"{JSONL}/{name('unit')}.json",
    f"ingest/_files/{name('note')}.json",
    f"{STATES}/{name('state')}.npz",
    f"{STATES}/{name('state')}.tsv",
    "annotate/captions/_frozen/mine.npz",
    "annotate/captions/_frozen/mine.json",
]
FOREIGN = ["notes.txt", "embed/readme.md", "embed/columns/mine/x.parquet", f"backup/columns/{name('e')}/x.parquet"]
FOREIGN += [f"{EMBED}/of-mine.parquet", "_mixes/x.json", "_runs/y.json"]
GARBAGE = [
    *sidecar(EMBED, "gone", failures=True),
    *sidecar(SCORE, "gone"),
    *sidecar(STALE, "a"),
    f"{EMBED}/.{name('gone')}.parquet.host.1.abcd.tmp",
    *(f"{BEFORE}/{one}" for one in ("_done.json", "state.npz", f"{name('a')}.json", "spill/rows/x.arrow")),
    f"{JSONL}/{name('old unit')}-00000.parquet",
    f"{JSONL}/{name('old unit')}-00001.failures.parquet",
    f"{JSONL}/{name('old unit')}.json",
    f"ingest/_files/{name('old note')}.json",
    f"{STATES}/{name('old state')}.npz",
    f"{STATES}/{name('old state')}.tsv",
    f"annotate/captions/_mining-{name('x')}/{name('a')}.npz",
    f"annotate/zero_shot/_building-{name('x')}/part.npz",
    f"emit/parquet/{name('v')}/spill/rows/{name('a')}.arrow",
    f"report/html/{name('v')}/survey-00000.json",
]
REUSES = {"notes": [name("note")], "converted": {JSONL: [name("unit")]}, "states": [f"{STATES}/{name('state')}"]}


def needed(reuses: dict | None = REUSES) -> References:
    found = References()
    found.add(manifest(["a"], reuses))
    return found


def below(place: str) -> set[str]:
    return {path for path, _ in garbage.below(place)}


def clean(place: str, references: References, before: float | None = None) -> None:
    for piece in list(find(place, references, time.time() - files.DAY if before is None else before)):
        remove(piece, lambda: None)


def test_what_no_mix_needs_goes_and_everything_else_stays(tmp_path):
    write(str(tmp_path), [*KEPT, *FOREIGN, *GARBAGE])
    pieces = list(find(str(tmp_path), needed(), time.time() - files.DAY))
    assert sum(len(piece.names) for piece in pieces) == len(GARBAGE)
    assert sum(piece.bytes for piece in pieces) == 10 * len(GARBAGE)
    counted = [one for one in KEPT if "_frozen" not in one] + [f"{EMBED}/of-mine.parquet"]
    assert sum(piece.kept_files for piece in pieces) == len(counted)
    clean(str(tmp_path), needed())
    assert below(str(tmp_path)) == {*KEPT, *FOREIGN}
    assert not (tmp_path / STALE).exists() and not (tmp_path / BEFORE).exists()


def test_what_is_younger_than_the_grace_stays_with_all_that_belongs_to_it(tmp_path):
    write(str(tmp_path), [*KEPT, *GARBAGE])
    young = [f"{EMBED}/{name('gone')}.parquet", f"{BEFORE}/spill/rows/x.arrow", f"{STATES}/{name('old state')}.npz"]
    write(str(tmp_path), young, seconds_ago=60)
    clean(str(tmp_path), needed())
    stays = {*sidecar(EMBED, "gone", failures=True), *(one for one in GARBAGE if one.startswith(BEFORE)), young[2]}
    assert below(str(tmp_path)) == {*KEPT, *stays}


def test_a_mix_that_does_not_say_what_it_reuses_keeps_notes_conversions_and_states(tmp_path):
    write(str(tmp_path), [*KEPT, *GARBAGE])
    clean(str(tmp_path), needed(None))
    stays = {one for one in GARBAGE if one.startswith(("ingest/_files", JSONL, STATES))}
    assert below(str(tmp_path)) == {*KEPT, *stays}


def test_two_mixes_keep_what_either_needs(tmp_path):
    write(str(tmp_path), [*KEPT, *sidecar(EMBED, "gone", failures=True), *sidecar(SCORE, "third")])
    both = needed()
    both.add(manifest(["gone"], REUSES))
    clean(str(tmp_path), both)
    assert below(str(tmp_path)) == {*KEPT, *sidecar(EMBED, "gone", failures=True)}


def test_wherever_removal_is_cut_off_no_commit_point_stands_without_its_data(tmp_path, monkeypatch):
    unlink = os.unlink
    shards = [f"shard{number}" for number in range(4)]
    for files_removed in range(17):
        place, left = str(tmp_path / str(files_removed)), files_removed
        write(place, [path for step in (STALE, EMBED) for shard in shards for path in sidecar(step, shard)])

        def cut_off(path):
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            unlink(path)

        monkeypatch.setattr(os, "unlink", cut_off)
        try:
            clean(place, References())
        except KeyboardInterrupt:
            stands = below(place)
            assert len(stands) == 16 - files_removed
            assert {f"{one[:-5]}.parquet" for one in stands if one.endswith(".json")} <= stands
        monkeypatch.undo()
        clean(place, References())
        assert below(place) == set()


def test_removed_folders_that_a_crash_left_go_whatever_their_age(tmp_path):
    write(str(tmp_path), [f"select/threshold/.removed-0123/{name('a')}.parquet"], seconds_ago=0)
    clean(str(tmp_path), needed())
    assert below(str(tmp_path)) == set() and list((tmp_path / "select/threshold").iterdir()) == []


def test_a_folder_is_renamed_before_it_is_removed(tmp_path, monkeypatch):
    write(str(tmp_path), [f"{BEFORE}/_done.json", f"{BEFORE}/a.parquet"])

    def stop(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(garbage.shutil, "rmtree", stop)
    with pytest.raises(KeyboardInterrupt):
        clean(str(tmp_path), needed())
    monkeypatch.undo()
    assert not (tmp_path / BEFORE).exists() and len(below(str(tmp_path))) == 2
    clean(str(tmp_path), needed())
    assert below(str(tmp_path)) == set()


def test_the_copy_of_commit_points_goes_before_the_first_of_them(tmp_path, monkeypatch):
    copies = {place: f"{place}/{together.TOGETHER}" for place in (EMBED, SCORE, STALE, JSONL, "ingest/_files")}
    gone = [one for one in GARBAGE if one.startswith((EMBED, STALE, "ingest/_files"))]
    write(str(tmp_path), [*KEPT, *gone, *copies.values()])
    alone = f"embed/columns/{name('alone')}/{together.TOGETHER}"
    write(str(tmp_path), [alone], seconds_ago=60)
    order, unlink = [], os.unlink

    def watched(path):
        order.append(str(Path(path).relative_to(tmp_path)))
        unlink(path)

    monkeypatch.setattr(os, "unlink", watched)
    clean(str(tmp_path), needed())
    assert below(str(tmp_path)) == {*KEPT, copies[SCORE], copies[JSONL]}  # of these none went
    for place in (EMBED, STALE, "ingest/_files"):
        assert next(path for path in order if path.startswith(f"{place}/")) == copies[place]
    assert not (tmp_path / STALE).exists() and not (tmp_path / alone).parent.exists()


def test_a_commit_point_made_anew_after_cleaning_is_the_one_that_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(together, "FEW", 1)
    step = Step(str(tmp_path), "ingest", "jsonl", name("j"))
    units = [name("unit"), name("old unit"), name("older unit")]
    for unit in units:
        step.commit(unit, file="x", parts=[], broken="it breaks off")
    together.facts(step, units)
    clean(str(tmp_path), needed(), time.time() + files.DAY)
    assert step.committed() == {units[0]}
    step.commit(units[1], file="x", parts=[], broken=None)
    assert [one["broken"] for one in together.facts(step, units[:2])] == ["it breaks off", None]


def test_an_object_store(s3, planted, monkeypatch):
    place = s3.place("garbage")
    with objects.using(s3.options):
        many = [path for number in range(50) for path in sidecar(STALE, str(number))]
        monkeypatch.setattr(garbage, "BULK", 20)
        fs, path = files.filesystem(place)
        fs.pipe({f"{path}/{one}": b"1234567890" for one in [*KEPT, *FOREIGN, *GARBAGE, *many]})
        s3.seen.clear()
        clean(place, needed(), time.time() + files.DAY)
        assert below(place) == {*KEPT, *FOREIGN}
        bulks = [one for one in s3.seen if one["REQUEST_METHOD"] == "POST" and "delete" in one["QUERY_STRING"]]
        assert 8 <= len(bulks) <= 40
        assert not [one for one in s3.seen if one["REQUEST_METHOD"] == "DELETE"]


def test_objects_that_may_not_be_removed_are_noticed_before_their_data_go(s3, planted, monkeypatch):
    place = s3.place("guarded")
    with objects.using(s3.options):
        write(place, sidecar(STALE, "a"))
        monkeypatch.setattr(garbage, "_remove_files", lambda fs, paths: None)  # s3fs says nothing of single refusals
        with pytest.raises(PermissionError, match="1 files cannot be removed, first"):
            clean(place, References(), time.time() + files.DAY)
        assert below(place) == {*sidecar(STALE, "a")}


# --------------------------------------------------------------------------------------------------------------- mixes
def publish(folder: Path, store: Path, version: str) -> str:
    url = str(folder / "pairs" / version)
    mixes.register(str(store), url, "pairs", version)
    files.write_json(f"{url}/mix.json", manifest(["a"]))
    return url


def test_a_registered_mix_counts_until_its_manifest_is_gone(tmp_path):
    store, folder = str(tmp_path / "store"), str(tmp_path / "elsewhere" / "pairs")
    one = publish(tmp_path / "elsewhere", tmp_path / "store", "0" * 12)
    two = publish(tmp_path / "elsewhere", tmp_path / "store", "1" * 12)
    files.remove(f"{two}/mix.json")
    told = {mix.url: found is not None for mix, found in mixes.kept(store, str(tmp_path / "none"), set())}
    assert told == {one: True, two: False}
    assert [mix.url for mix, _ in mixes.kept(store, folder, {two})] == [one]
    mixes.forget(store, two)
    assert [mix.url for mix in mixes.registered(store)] == [one]


def test_versions_made_before_there_were_notes_count(tmp_path):
    files.write_json(f"{tmp_path}/out/pairs/{'2' * 12}/mix.json", manifest(["a"]))
    (tmp_path / "out/pairs/mine").mkdir()
    found = list(mixes.kept(f"{tmp_path}/store", f"{tmp_path}/out/pairs", set()))
    assert [(mix.url, told is not None) for mix, told in found] == [(f"{tmp_path}/out/pairs/{'2' * 12}", True)]


@pytest.mark.parametrize("trouble", ["missing", "empty", "damaged", "not a folder"])
def test_a_mix_out_of_reach_stops_it(tmp_path, trouble):
    url = publish(tmp_path / "disk", tmp_path / "store", "0" * 12)
    if trouble == "damaged":
        Path(url, "mix.json").write_text("{")
    else:
        files.remove(str(tmp_path / "disk"))
        if trouble == "empty":
            (tmp_path / "disk").mkdir()
        if trouble == "not a folder":
            (tmp_path / "disk").write_text("")
    with pytest.raises(StoreInUse, match=f"whether the mix {url} still needs the store cannot be told: .*_mixes/"):
        list(mixes.kept(str(tmp_path / "store"), str(tmp_path / "none"), set()))


def test_a_mix_on_the_disk_of_another_machine_stops_it(tmp_path, monkeypatch):
    url = publish(tmp_path / "mixes", tmp_path / "store", "0" * 12)
    publish(tmp_path / "mixes", tmp_path / "store", "1" * 12)
    kept = list(mixes.kept(str(tmp_path / "store"), str(tmp_path / "none"), set()))
    files.remove(url)
    here = mixes.socket.gethostname()
    monkeypatch.setattr(mixes.socket, "gethostname", lambda: "elsewhere")
    with pytest.raises(
        StoreInUse, match=f"needs the store .*: it was written on {here} and is not there on .*elsewhere"
    ):
        list(mixes.kept(str(tmp_path / "store"), str(tmp_path / "none"), set()))
    Path(url).mkdir()  # half removed: so its place is reached
    assert [mix for mix, told in mixes.kept(str(tmp_path / "store"), str(tmp_path / "none"), set()) if told is None]
    Path(url).rmdir()
    monkeypatch.undo()
    found = {mix.url: told for mix, told in mixes.kept(str(tmp_path / "store"), str(tmp_path / "none"), set())}
    assert len(kept) == len(found) == 2 and found[url] is None
    # An older note names no machine; nor does that of a mix which every machine reaches.
    note = Path(next(mix.note for mix in mixes.registered(str(tmp_path / "store")) if mix.url == url))
    files.write_json(str(note), {"url": url, "name": "pairs", "version": "0" * 12})
    monkeypatch.setattr(mixes.socket, "gethostname", lambda: "elsewhere")
    assert mixes.manifest_at(mixes.Known(url, str(note))) is None
    mixes.register(str(tmp_path / "remote"), "memory://out/pairs/0", "pairs", "0")
    assert [mix.host for mix in mixes.registered(str(tmp_path / "remote"))] == [None]


@pytest.mark.parametrize("level", ["version", "name"])
@pytest.mark.parametrize("trouble", ["missing", "empty"])
def test_a_mix_behind_a_link_to_a_disk_that_is_not_there_stops_it(tmp_path, level, trouble):
    url = publish(tmp_path / "out", tmp_path / "store", "0" * 12)
    (tmp_path / "out" / "other").mkdir()
    place = Path(url) if level == "version" else Path(url).parent
    place.rename(tmp_path / "disk")
    place.symlink_to(tmp_path / "disk")
    assert [told is not None for _, told in mixes.kept(f"{tmp_path}/store", f"{tmp_path}/out/pairs", set())] == [True]
    (tmp_path / "disk").rename(tmp_path / "unmounted")
    if trouble == "empty":
        (tmp_path / "disk").mkdir()
    with pytest.raises(StoreInUse, match=f"{place} is (a link to what is not there|empty)"):
        list(mixes.kept(f"{tmp_path}/store", f"{tmp_path}/out/pairs", set()))


def test_foreign_files_among_the_notes_do_not_matter_and_a_damaged_note_is_named(tmp_path):
    url = publish(tmp_path / "out", tmp_path / "store", "0" * 12)
    for foreign in ("notes.txt", "mine.json"):
        (tmp_path / "store/_mixes" / foreign).write_text("what I keep")
    (mix,) = mixes.registered(str(tmp_path / "store"))
    assert mix.url == url and mix.note
    for damage in ('{"url": ', "[]", "{}"):
        Path(mix.note).write_text(damage)
        with pytest.raises(StoreInUse, match=f"which mix {mix.note} tells of cannot be read .*Nothing was removed"):
            mixes.registered(str(tmp_path / "store"))


def test_a_bucket_that_is_gone_or_refuses_stops_it(s3, planted, tmp_path):
    with objects.using(s3.options):
        place = s3.place("mixes")
        url = f"{place}/out/pairs/{'0' * 12}"
        mixes.register(str(tmp_path), url, "pairs", "0" * 12)
        files.write_json(f"{url}/mix.json", manifest(["a"]))
        (mix,) = mixes.registered(str(tmp_path))
        assert mixes.manifest_at(mix)["parents"]
        s3.fault = lambda one: (403, "AccessDenied") if one["REQUEST_METHOD"] == "GET" else None
        with pytest.raises(StoreInUse, match="AccessDenied"):
            mixes.manifest_at(mix)
        s3.fault = None
        files.remove(f"{url}/mix.json")
        assert mixes.manifest_at(mix) is None
        with pytest.raises(StoreInUse, match="nowhere-such is not there"):
            mixes.manifest_at(mixes.Known(f"s3://nowhere-such/out/pairs/{'0' * 12}"))
