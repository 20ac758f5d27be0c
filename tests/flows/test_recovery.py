"""What can go wrong around a run: each has a clear end, leaves nothing half-written, and a rerun makes the same bytes."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from corpora import config, digests, run, write_corpus

from configs.errors import PlaceError, PlaceFull, ReadOnly, RunFailed, StoreLost
from configs.loading import validate
from flows.curate import curate
from flows.losses import losses_told
from flows.planning import conversion_step
from storage import files, manifests, together
from storage.shards import find
from storage.steps import Step
from tasks.mix import task as mix_task

SHARDS = 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A corpus, and the digests of the mix that an undisturbed run makes of it."""
    folder = tmp_path_factory.mktemp("whole")
    write_corpus(folder / "in", shards=SHARDS, count=40)
    return folder / "in", digests(Path(run(config(folder)).url), "data", "ledger", "quarantine")


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    """A folder with the same corpus."""
    shutil.copytree(whole[0], tmp_path / "in", copy_function=shutil.copy2)
    return tmp_path


def whole_files(folder: Path) -> int:
    """How many Parquet files there are under final names, each of which can be read; there are no temporaries."""
    found = [file for file in folder.rglob("*.parquet") if file.name[0] != "."]
    for file in found:
        pq.read_metadata(file)
    assert not list(folder.rglob("*.tmp"))
    return len(found)


def rerun(folder: Path, whole) -> None:
    """Run again, undisturbed: the same bytes."""
    mix = run(config(folder))
    assert digests(Path(mix.url), "data", "ledger", "quarantine") == whole[1]
    assert list(manifests.discrepancies(mix.url)) == []


@pytest.fixture
def written(monkeypatch) -> Iterator[Callable]:
    """Calls what it is given before each publishing of a sidecar or commit, with the step and the shard."""
    for name in ("publish", "commit"):
        real = getattr(Step, name)

        def watched(self, shard, *args, real=real, **facts):
            if real.__name__ == "publish" or self.stage in ("select", "emit"):
                for hook in hooks:
                    hook(self, shard)
            return real(self, shard, *args, **facts)

        monkeypatch.setattr(Step, name, watched)
    hooks: list[Callable] = []
    yield hooks.append
    hooks.clear()


# ------------------------------------------------------------------------------------------------------- some shards
def press(folder: Path):
    """Run the flow as the form would."""
    settings = yaml.safe_dump(config(folder).model_dump(mode="json"))
    return curate(preset="plain", overrides=settings, return_state=True)


@pytest.mark.flow
@pytest.mark.usefixtures("prefect_server")
def test_failed_shards_are_counted_in_the_state_and_a_rerun_does_only_those(folder, whole, written):
    every = {entry.file: manifests.file_facts(entry.url)["digest"] for entry in find(str(folder / "in"))}
    bad = {every["00001.parquet"], every["00003.parquet"]}
    stages = ["ingest", "embed", "annotate", "score"]
    done: list[tuple[str, str]] = []
    refusing = [""]

    def hook(step: Step, shard: str) -> None:
        if step.stage == refusing[0] and shard in bad:
            raise PermissionError(errno.EACCES, "Permission denied", step.file(shard))
        if step.stage in stages:
            done.append((step.stage, shard))

    written(hook)
    for before, stage in pairwise(["", *stages]):
        refusing[0], first = stage, len(done)
        state = press(folder)
        assert state.is_failed() and state.message.startswith(
            f"2 of {SHARDS} shards failed; rerun to retry only those. First: 00001.parquet: PermissionError: "
        )
        assert {shard for name, shard in done[first:] if name == before} == (bad if before else set())
    refusing[0], first = "", len(done)
    state = press(folder)
    assert state.is_completed() and sorted(done[first:]) == sorted(("score", shard) for shard in bad)
    assert sorted(done) == sorted((stage, shard) for stage in stages for shard in every.values())  # once each
    assert digests(Path(state.result()), "data", "ledger", "quarantine") == whole[1]


@pytest.mark.flow
@pytest.mark.usefixtures("prefect_server")
def test_passing_errors_of_shards_and_of_single_tasks_are_tried_again(folder, whole, monkeypatch, written, caplog):
    monkeypatch.setattr("storage.faults.LOCAL_WAITS", (0.01, 0.02))
    monkeypatch.setattr(mix_task.plan_mix, "retries", 2)
    monkeypatch.setattr(mix_task.plan_mix, "retry_delay_seconds", [0.01, 0.02])
    left = {"embed": 2, "select": 1}

    def hook(step: Step, shard: str) -> None:
        if left.get(step.stage):
            left[step.stage] -= 1
            raise OSError(errno.EIO, "Input/output error", step.file(shard))

    written(hook)
    saves = [OSError(errno.ESTALE, "Stale file handle")] * 2
    real = mix_task.total_groups

    def stumbling(*args):
        if saves:
            raise saves.pop()
        return real(*args)

    monkeypatch.setattr(mix_task, "total_groups", stumbling)
    state = press(folder)
    assert state.is_completed() and not any(left.values()) and not saves
    assert digests(Path(state.result()), "data", "ledger", "quarantine") == whole[1]
    told = [record.getMessage() for record in caplog.records]
    assert sum("it is tried again in 0.0" in line for line in told) == 3
    assert sum("Stale file handle" in line and "Retry " in line for line in told) == 2


# ------------------------------------------------------------------------------------------------- full and read-only
PLACES = {"embed": "/store/embed/", "state": "state.npz", "spill": "/spill/", "mix": "/out/mix/"}
FAULTS = {
    "full": (errno.ENOSPC, PlaceFull, "no space is left .* MB are free on "),
    "quota": (errno.EDQUOT, PlaceFull, "the disk quota is used up"),
    "read-only": (errno.EROFS, ReadOnly, "its file system has become read-only"),
}


@pytest.mark.parametrize(
    ("place", "fault", "when"),
    [
        ("embed", "full", "write"),
        ("state", "quota", "fsync"),
        ("spill", "read-only", "fsync"),
        ("mix", "full", "fsync"),
    ],
)
def test_a_disk_that_takes_no_more(folder, whole, monkeypatch, place, fault, when):
    number, kind, words = FAULTS[fault]
    real_file, real_local, at = pa.OSFile, files._local, [""]

    def local(path):
        at[0] = path
        return real_local(path)

    def write(path, mode="rb"):  # /dev/full: the system itself says that no space is left
        full = when == "write" and mode == "wb" and PLACES[place] in str(path)
        return real_file("/dev/full" if full else path, mode)

    def flush(handle):
        if when == "fsync" and PLACES[place] in os.readlink(f"/proc/self/fd/{handle}").replace("/.", "/"):
            raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(pa, "OSFile", write)
        patched.setattr(files.os, "fsync", flush)
        patched.setattr(files, "_local", local)
        with pytest.raises(kind, match=f"^cannot write .*{words}.*run again: only what is missing is done$"):
            run(config(folder))
    assert whole_files(folder / "store") and not list((folder / "out").rglob("mix.json"))
    assert not [file for file in folder.rglob("*") if PLACES[place] in str(file) and file.suffix == ".parquet"]
    rerun(folder, whole)


@pytest.fixture
def disk(tmp_path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of its own at `disk`, or changes how: `size=400k`, `remount,ro`."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
        if os.getuid() or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting is not permitted here")
        mounted.append(place)
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def placed(folder: Path, **places: Path):
    """The configuration with store or mixes elsewhere."""
    over = {"store": str(places.get("store", folder / "store"))}
    return config(folder, {**over, "emit": {"out": str(places.get("out", folder / "out"))}})


@pytest.mark.parametrize(("what", "size"), [("store", "120k"), ("out", "60k")])
def test_a_disk_that_fills_up_and_is_made_larger(folder, whole, disk, what, size):
    place = disk(f"size={size}")
    settings = placed(folder, **{what: place / "x"})
    with pytest.raises(PlaceFull, match=f"no space is left .* MB are free on {place}"):
        run(settings)
    whole_files(folder)
    assert not list((folder / "out").rglob("mix.json"))
    disk("remount,size=20m")
    assert digests(Path(run(settings).url), "data", "ledger", "quarantine") == whole[1]


@pytest.mark.parametrize("what", ["store", "out"])
def test_a_read_only_place_is_refused_before_work(folder, disk, what):
    place = disk("ro,size=1m")
    setting = {"store": "store", "out": "emit.out"}[what]
    with pytest.raises(PlaceError, match=f"^`{setting}` is .*; nothing can be written there: .*Read-only file system"):
        run(placed(folder, **{what: place / "x"}))
    assert sorted(path.name for path in folder.iterdir()) == ["disk", "in"]


def test_a_place_that_says_it_is_read_only_is_refused_before_work(folder, monkeypatch):
    def fail(dir):
        raise OSError(errno.EROFS, "Read-only file system", dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    with pytest.raises(PlaceError, match="^`store` is .*; nothing can be written there: .*Read-only file system"):
        run(config(folder))
    assert [path.name for path in folder.iterdir()] == ["in"]


def test_a_disk_that_becomes_read_only_under_a_run(folder, whole, disk, written):
    place = disk("size=20m")
    settings = placed(folder, store=place / "x")

    def hook(step: Step, shard: str) -> None:
        if step.stage == "annotate":
            disk("remount,ro")

    written(hook)
    with pytest.raises(ReadOnly, match="^cannot write .*its file system has become read-only"):
        run(settings)
    disk("remount,rw,size=20m")
    written.__self__.clear()
    whole_files(folder)
    assert digests(Path(run(settings).url), "data", "ledger", "quarantine") == whole[1]


# ------------------------------------------------------------------------------------------------------------ deleted
def deletes(written, stage: str, number: int, target: Path) -> None:
    """Delete `target` before the `number`th publishing of `stage`."""
    count = iter(range(1_000_000))

    def hook(step: Step, shard: str) -> None:
        if step.stage == stage and next(count) == number:
            shutil.rmtree(target, ignore_errors=True)

    written(hook)


@pytest.mark.parametrize(
    ("stage", "number", "target"),
    [
        ("ingest", 2, "store"),
        ("embed", 2, "store"),
        ("select", 2, "store"),
        ("select", 2, "store/select"),
        ("emit", 1, "store"),
        ("emit", 1, "out"),
    ],
)
def test_a_store_deleted_under_a_run_is_said_and_made_again(folder, whole, written, stage, number, target):
    deletes(written, stage, number, folder / target)
    setting = "emit.out" if target == "out" else "store"
    with pytest.raises(StoreLost, match=f"^`{setting}` .* has lost files that this run made .*: was it deleted or"):
        run(config(folder))
    assert not list((folder / "out").rglob("mix.json"))
    written.__self__.clear()
    rerun(folder, whole)


@pytest.mark.flow
@pytest.mark.usefixtures("prefect_server")
def test_a_flow_whose_store_is_deleted_ends_failed_with_that_sentence(folder, whole, written):
    deletes(written, "embed", 2, folder / "store")
    state = press(folder)
    assert state.is_failed() and state.message.startswith(f"`store` {folder}/store has lost files that this run made")
    assert "\n" not in state.message
    written.__self__.clear()
    rerun(folder, whole)


def lose(settings, gone: str | None = None) -> None:
    """What a run does when a shard's sidecar is gone, or the file `gone`."""
    embed = Step(settings.store, "embed", "columns", "0" * 32)
    with pytest.raises(StoreLost), losses_told(settings, [] if gone else [(embed, {"1" * 32})]):
        raise FileNotFoundError(errno.ENOENT, "No such file", gone)


def test_a_loss_withdraws_no_conversion_but_those_that_lost_a_file(tmp_path):
    (tmp_path / "in").mkdir()
    for name in "abcd":
        lines = "".join(f'{{"text": "{name} {row}"}}\n' for row in range(20))
        (tmp_path / "in" / f"{name}.jsonl").write_text(lines + ("[1]\n" if name == "a" else ""))
    settings = validate(
        {
            "store": f"{tmp_path}/store",
            "max_quarantine_fraction": 1,
            "input": {"kind": "jsonl", "path": f"{tmp_path}/in", "text": "text", "image": None},
            "select": [{"kind": "exact_duplicates"}],
            "emit": {"out": f"{tmp_path}/out"},
            "sample": {"kind": "iid", "batch_size": 8, "filter_ratio": 0},
            "report": {"gallery_rows": 0},
        }
    )
    mix = run(settings)
    wanted = digests(Path(mix.url), "data", "ledger", "quarantine")
    step = conversion_step(settings, settings.inputs[0])
    every = {step.facts(unit)["file"][0]: unit for unit in step.committed()}
    assert sorted(every) == list("abcd") and step.facts(every["a"])["parts"][0]["failed"] == 1
    lose(settings)
    assert step.committed() == set(every.values())
    Path(step.file(f"{every['a']}-00000.failures.parquet")).unlink()
    Path(step.file(f"{every['b']}-00000.parquet")).unlink()
    lose(settings)
    assert step.committed() == {every["c"], every["d"]}
    lose(settings, step.file(f"{every['c']}-00000.parquet"))  # seen as gone: it comes and goes
    assert step.committed() == {every["d"]}
    shutil.rmtree(mix.url)
    assert digests(Path(run(settings).url), "data", "ledger", "quarantine") == wanted
    assert step.committed() == set(every.values())


def test_commit_points_are_looked_through_together_and_the_copy_goes_with_one(folder, monkeypatch):
    monkeypatch.setattr(together, "FEW", 10)
    settings, step = config(folder), Step(f"{folder}/store", "embed", "columns", "f" * 32)
    names = [f"{number:032x}" for number in range(50)]
    for name in names:
        step.publish(name, pa.table({"row": [1]}), [(0, "bad", "it is")] if name == names[1] else [], 0.0)
    seen: list[threading.Thread] = []
    read = files.read_json
    monkeypatch.setattr(files, "read_json", lambda url: (seen.append(threading.current_thread()), read(url))[1])
    lose(settings)
    assert len(seen) == 50 and threading.main_thread() not in seen
    assert not Path(step.file(together.TOGETHER)).exists()  # to look needs no copy
    together.facts(step, names)
    seen.clear()
    lose(settings)
    assert seen == [] and len(step.committed()) == 50 and Path(step.file(together.TOGETHER)).exists()
    Path(step.file(f"{names[0]}.parquet")).unlink()
    Path(step.file(f"{names[1]}.failures.parquet")).unlink()
    lose(settings)
    assert step.committed() == set(names[2:]) and seen == []
    step.publish(names[0], pa.table({"row": [1, 2]}), [], 0.0)
    assert [one["rows"] for one in together.facts(step, [names[0], *names[2:]])] == [2] + [1] * 48


def test_an_error_that_is_no_loss_stays_what_it_is(folder, monkeypatch):
    (folder / "in" / "00001.parquet").unlink()
    (folder / "in" / "00001.parquet").symlink_to("gone.parquet")
    with pytest.raises(RunFailed, match="^1 of 4 shards failed; rerun to retry only those. First: 00001") as failed:
        run(config(folder))
    assert not isinstance(failed.value, StoreLost)
