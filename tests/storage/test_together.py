"""Many small JSON files read as one: the same answers with the copy, without it, and with one that is out of date."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from storage import files, together
from storage.shards import InputFile, Memory
from storage.steps import Step

SCHEMA = pa.schema([("text", pa.string())])


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(together, "FEW", 10)


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """JSON files that were read one by one."""
    seen: list[str] = []
    read = files.read_json
    monkeypatch.setattr(files, "read_json", lambda url: (seen.append(url), read(url))[1])
    return seen


def commit(step: Step, count: int, first: int = 0) -> list[str]:
    names = [f"{number:032x}" for number in range(first, first + count)]
    for number, name in enumerate(names, first):
        step.commit(name, rows=number, failures=0)
    return names


def test_commit_points_are_read_once_then_together(tmp_path, opened):
    step = Step(str(tmp_path), "embed", "columns", "f")
    names = commit(step, 50)
    wanted = [{"rows": number, "failures": 0} for number in range(50)]
    assert together.facts(step, names) == wanted and len(opened) == 50
    assert together.facts(step, names[::-1]) == wanted[::-1] and len(opened) == 50
    more = commit(step, 5, first=50)
    assert [one["rows"] for one in together.facts(step, names + more)] == list(range(55)) and len(opened) == 55
    assert step.committed() == {*names, *more}  # the copy is no commit point
    assert together.facts(step, more) == [{"rows": n, "failures": 0} for n in range(50, 55)]  # few: no copy is read


def test_a_commit_point_that_is_missing_is_an_error_and_a_lost_copy_is_none(tmp_path, opened):
    step = Step(str(tmp_path), "embed", "columns", "f")
    names = commit(step, 50)
    with pytest.raises(FileNotFoundError):
        together.facts(step, [*names, "f" * 32])
    together.facts(step, names)
    (Path(step.url) / together.TOGETHER).unlink()
    opened.clear()
    assert len(together.facts(step, names)) == 50 == len(opened)


def test_a_commit_point_that_was_deleted_by_hand_and_made_anew_is_the_one_that_is_read(tmp_path, opened):
    step = Step(str(tmp_path), "ingest", "jsonl", "f")
    names = commit(step, 50)
    together.facts(step, names)
    Path(step.file(f"{names[7]}.json")).unlink()
    with pytest.raises(FileNotFoundError):
        together.facts(step, names)
    copied = Path(step.file(together.TOGETHER)).stat().st_mtime
    opened.clear()
    step.commit(names[7], rows=1007, failures=0)
    os.utime(step.file(f"{names[7]}.json"), (copied + 1, copied + 1))  # clocks are coarse
    assert [one["rows"] for one in together.facts(step, names)] == [*range(7), 1007, *range(8, 50)]
    assert opened == [step.file(f"{names[7]}.json")]


def entries(count: int) -> list[InputFile]:
    return [InputFile(f"{n}", f"file:///in/{n}.parquet", n, "today") for n in range(count)]


def test_notes_of_files_that_have_changed_or_are_gone_are_not_taken_from_the_copy(tmp_path, opened):
    known = entries(40)
    for entry in known:
        Memory(str(tmp_path)).remember(entry, f"digest-{entry.file}", 7, SCHEMA)
    first = Memory(str(tmp_path)).recall_all(known)
    assert [facts["digest"] for facts in first] == [f"digest-{n}" for n in range(40)]  # type: ignore[index]
    opened.clear()
    assert Memory(str(tmp_path)).recall_all(known) == first and opened == []
    # One file has changed: it is new. Then it is noted anew: the note counts, whatever the copy says.
    changed = [replace(known[0], stamp="tomorrow"), *known[1:]]
    assert Memory(str(tmp_path)).recall_all(changed) == [None, *first[1:]]
    Memory(str(tmp_path)).remember(changed[0], "another", 8, SCHEMA)
    told = Memory(str(tmp_path)).recall_all(changed)
    assert told[0]["digest"] == "another" and told[1:] == first[1:]  # type: ignore[index]
    # A note that is gone is gone.
    note = sorted((tmp_path / "ingest" / "_files").glob("[!_]*.json"))[0]
    note.unlink()
    assert sum(facts is None for facts in Memory(str(tmp_path)).recall_all(changed)) == 1


def test_damage_that_another_version_of_pyarrow_saw_is_looked_at_again(tmp_path, monkeypatch):
    known = entries(40)
    memory = Memory(str(tmp_path))
    for entry in known:
        memory.remember(entry, "d", 0, SCHEMA, broken="it breaks off")
    assert all(Memory(str(tmp_path)).recall_all(known))
    monkeypatch.setattr(pa, "__version__", "0.0.1")
    assert not any(Memory(str(tmp_path)).recall_all(known))


def test_many_shards_of_one_schema_hold_it_once(tmp_path):
    known = entries(40)
    for entry in known:
        Memory(str(tmp_path)).remember(entry, "d", 7, SCHEMA)
    for _ in range(2):  # read one by one, then together
        told = Memory(str(tmp_path)).recall_all(known)
        assert len({id(facts["schema"]) for facts in told if facts}) == 1
