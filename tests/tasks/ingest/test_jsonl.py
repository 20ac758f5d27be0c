"""Every line that is not blank comes out as one row, usable or with its reason and the place."""

from __future__ import annotations

import json
import os

import pyarrow as pa
import pytest
from archives import packed, read_all, write_files, write_jsonl
from hypothesis import given
from hypothesis import strategies as st

from configs.inputs import JsonlInput
from storage import files
from storage.broken import BrokenFile
from tasks.ingest import jsonl, records
from tasks.ingest.jsonl import JsonlReader


def reader(path, **config):
    return JsonlReader(JsonlInput(kind="jsonl", path=str(path), **config))


def read(data, **config):
    """Rows and failures of a JSONL file's bytes."""
    files.write_bytes("memory://jsonl/x.jsonl", data)
    table, failures = read_all(reader("memory://jsonl/x.jsonl", **config))
    return table.to_pylist(), {row: (f.reason, f.detail) for row, f in failures.items()}


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
good = st.fixed_dictionaries({"text": texts}, optional={"n": st.integers(-9, 9), "é": st.none() | texts})
bad = st.sampled_from([b"nope", b"[1]", b"3", b'{"a":', b'"\xff"', rb'{"text": "\ud800"}', b"\xef\xbb\xbf", b"\0"])
blank = st.sampled_from([b"", b"  ", b"\r", b"\t"])


@given(
    st.lists(st.one_of(good, bad, blank), max_size=12),
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
    st.integers(1, 5),
    st.integers(1, 60),
)
def test_every_line_comes_out_once_whatever_the_blocks_and_slices(lines, end, ends, rows, block):
    raw = [line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=len(line) > 1).encode() for line in lines]
    data = end.join(raw) + (end if ends else b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "SLICE_ROWS", rows)
        patch.setattr(jsonl, "BLOCK", block)
        found, failures = read(data)
    expected = [line for line in lines if not isinstance(line, bytes) or line.strip()]
    assert len(found) == len(expected)
    assert set(failures) == {i for i, line in enumerate(expected) if isinstance(line, bytes)}
    for got, line in zip(found, expected):
        assert {k: v for k, v in got.items() if v is not None} == (
            {} if isinstance(line, bytes) else {k: v for k, v in line.items() if v is not None}
        )
    starts = [sum(len(line) + len(end) for line in raw[:i]) for i, line in enumerate(raw) if line.strip()]
    assert all(failures[row][1].endswith(f"in the line at byte {starts[row]:,}") for row in failures)


@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson", "x.jsonl.gz", "x.jsonl.zst", "x.ndjson.gz"])
def test_plain_and_packed_files_at_any_depth_are_units(tmp_path, name):
    write_jsonl(tmp_path / "d" / name, [{"text": "a"}, {"text": "b", "n": 1}])
    (tmp_path / "other.json").write_text("{}")
    made = reader(tmp_path)
    assert [unit.file for unit in made.units()] == [f"d/{name}"]
    table, failures = read_all(made)
    assert table.to_pylist() == [{"text": "a", "n": None}, {"text": "b", "n": 1}] and not failures
    assert made.peek(made.units()[0]) == table.schema == pa.schema([("text", pa.string()), ("n", pa.int64())])


def test_reasons_and_places():
    found, failures = read(b'{"text": "a"}\nnope\n\n[1]\n"\xff"\n{"text": "\\udc00"}\n{"text": "b"}')
    assert [row["text"] for row in found] == ["a", None, None, None, None, "b"]
    assert failures == {
        1: ("invalid_json", "no value at character 0, 'nope', in the line at byte 14"),
        2: ("not_an_object", "a JSON list, in the line at byte 20"),
        3: ("text_not_utf8", "byte 0xff at 1 is not UTF-8, in the line at byte 24"),
        4: ("text_not_utf8", "\\udc00 is half of a surrogate pair, in the line at byte 28"),
    }


def test_a_line_that_is_too_long_fails_alone_and_is_never_whole_in_memory(monkeypatch):
    monkeypatch.setattr(jsonl, "LONGEST", 50)
    monkeypatch.setattr(jsonl, "BLOCK", 16)
    fits = json.dumps({"text": "x" * 38}).encode()
    assert len(fits) == 50
    found, failures = read(b"\n".join([fits, fits + b" ", b'{"text": "b"}', b"y" * 500]))
    assert [row["text"] for row in found] == ["x" * 38, None, "b", None]
    assert {row: f[0] for row, f in failures.items()} == {1: "line_too_long", 3: "line_too_long"}
    assert failures[1][1] == "more than 50 bytes, in the line at byte 51"

    class Endless:
        """Content of one line without end; only what is kept of it counts."""

        left = 3000

        def read(self, count):
            self.left -= 1
            return b"z" * count if self.left else b""

    ((position, line),) = jsonl.lines(Endless())
    assert (position, line) == (0, None)


@pytest.mark.parametrize("lines", [[b"bad"] * 3, []])
def test_a_file_without_a_line_to_use_has_the_columns_that_play_a_role(tmp_path, lines):
    made = reader(write_jsonl(tmp_path / "x.jsonl", lines), key="id", image="pic")
    table, failures = read_all(made)
    assert table.num_rows == len(failures) == len(lines)
    assert set(table.column_names) == set(made.peek(made.units()[0]).names) == {"pic", "text", "id"}
    made = reader(write_jsonl(tmp_path / "x.jsonl", [*lines, {"other": 1}]))
    assert made.peek(made.units()[0]).names == ["other"]


def test_an_empty_file_is_one_slice_of_no_row():
    assert read(b"") == ([], {}) and read(b"\n \n") == ([], {})


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl.zst"])
def test_packed_lines_that_break_off_are_broken_as_a_whole(tmp_path, name):
    data = packed(b"".join(b'{"text": "%s"}\n' % os.urandom(300).hex().encode() for _ in range(400)), name)
    (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(BrokenFile) as caught:
        read_all(reader(tmp_path))
    assert 0 < caught.value.at <= len(data)


PICTURES = {"p/a.jpg": b"aa", "p/ü 猫.png": b"u", "b.jpg": b"b", "..c.jpg": b"c"}


def test_picture_paths_are_relative_to_the_file(tmp_path):
    paths = ["p/a.jpg", "./p/../b.jpg", "p/ü 猫.png", None, "..c.jpg"]
    write_files(tmp_path / "in", PICTURES)
    write_jsonl(tmp_path / "in" / "x.jsonl", [{"pic": path, "text": "t"} for path in paths] + [{"text": "none"}])
    made = reader(tmp_path, image="pic")
    table, failures = read_all(made)
    assert not failures and table.column_names == ["pic", "text"]
    assert table["pic"].to_pylist() == [
        {"bytes": b"aa", "path": "a.jpg"}, {"bytes": b"b", "path": "b.jpg"}, {"bytes": b"u", "path": "ü 猫.png"},
        None, {"bytes": b"c", "path": "..c.jpg"}, None,
    ]  # fmt: skip
    assert made.peek(made.units()[0]) == table.schema


def test_picture_paths_that_leave_the_folder_or_lead_nowhere_fail_their_rows(tmp_path):
    write_files(tmp_path, {"secret.jpg": b"s", "in/p/a.jpg": b"a", "in-other/b.jpg": b"b"})
    folder = tmp_path / "in"
    (folder / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "up").symlink_to(tmp_path)
    (folder / "inside.jpg").symlink_to("p/a.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(folder / "pipe.jpg")
    escapes = [
        "../secret.jpg", "p/../../secret.jpg", str(tmp_path / "secret.jpg"), "/etc/passwd", "out.jpg", "up/secret.jpg",
        "file:///etc/passwd", "http://169.254.169.254/x", "..", "../in-other/b.jpg", "memory://x",
    ]  # fmt: skip
    nowhere = [
        "no.jpg",
        "p",
        "",
        ".",
        "p/a.jpg/x",
        "x\0.jpg",
        "n" * 5000,
        "loop.jpg",
        "pipe.jpg",
        "a\\..\\..\\secret.jpg",
    ]
    others = [5, {"bytes": "x"}, ["p/a.jpg"], True]
    rows = [{"pic": value, "n": i} for i, value in enumerate([*escapes, *nowhere, *others, "inside.jpg"])]
    write_jsonl(folder / "x.jsonl", rows)
    table, failures = read_all(reader(folder, image="pic"))
    assert [failures[i].reason for i in range(len(rows) - 1)] == (
        ["path_escapes_folder"] * len(escapes) + ["image_not_found"] * len(nowhere) + ["image_path_not_text"] * 4
    )
    assert table["n"].to_pylist() == list(range(len(rows)))
    assert table["pic"].to_pylist() == [None] * (len(rows) - 1) + [{"bytes": b"a", "path": "inside.jpg"}]


def test_a_link_to_the_folder_itself_is_no_way_out(tmp_path):
    write_files(tmp_path / "real", {"a.jpg": b"a"})
    write_jsonl(tmp_path / "real" / "x.jsonl", [{"image": "a.jpg"}])
    (tmp_path / "link").symlink_to("real")
    table, failures = read_all(reader(tmp_path / "link", image="image", text=None))
    assert not failures and table["image"].to_pylist()[0]["bytes"] == b"a"


def test_pictures_beside_files_on_other_file_systems():
    lines = b"".join(b'{"image": "%s"}\n' % name for name in (b"p/0.jpg", b"no.jpg", b"../x.jpg", b"p/1.jpg", b"p"))
    files.write_bytes("memory://bucket/in/x.jsonl", lines)
    files.write_bytes("memory://bucket/x.jpg", b"secret")
    for i in range(2):
        files.write_bytes(f"memory://bucket/in/p/{i}.jpg", b"%d" % i)
    table, failures = read_all(reader("memory://bucket/in/x.jsonl", image="image"))
    assert [row and row["bytes"] for row in table["image"].to_pylist()] == [b"0", None, None, b"1", None]
    assert {row: f.reason for row, f in failures.items()} == {
        1: "image_not_found", 2: "path_escapes_folder", 4: "image_not_found",
    }  # fmt: skip


def test_a_picture_that_cannot_be_read_now_is_no_failure_of_its_row(tmp_path, monkeypatch):
    write_files(tmp_path, {"a.jpg": b"a"})
    write_jsonl(tmp_path / "x.jsonl", [{"image": "a.jpg"}])
    made = reader(tmp_path, image="image")
    (unit,) = made.units()

    def refused(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("tasks.ingest.pictures.os.stat", refused)
    with pytest.raises(PermissionError):
        list(made.read(unit, {}))


def test_nothing_there_is_an_error_that_says_what_was_looked_for(tmp_path):
    with pytest.raises(ValueError, match=r"no \*\.jsonl or"):
        reader(tmp_path).units()
