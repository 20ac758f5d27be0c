"""Every sample put into a tar comes out as one row, usable or with its reason; no name in it ever becomes a path."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from contextlib import contextmanager

import pyarrow as pa
import pytest
from archives import packed, read_all, samples, tar_bytes, write_tar
from hypothesis import given
from hypothesis import strategies as st

from configs.inputs import WebdatasetInput
from storage import files
from storage.broken import BrokenFile
from tasks.ingest import fields, records, webdataset
from tasks.ingest.webdataset import WebdatasetReader


def reader(path, **config):
    return WebdatasetReader(WebdatasetInput(kind="webdataset", path=str(path), **config))


def read(members, **config):
    """Rows and failures of a tar of `members`, or of the bytes of one."""
    data = members if isinstance(members, bytes) else tar_bytes(members)
    files.write_bytes("memory://wds/x.tar", data)
    table, failures = read_all(reader("memory://wds/x.tar", **config))
    return table.to_pylist(), {row: (f.reason, f.detail) for row, f in failures.items()}


def picture(data, path):
    return {"bytes": data, "path": path}


def test_output_of_img2dataset_reads_with_the_defaults(tmp_path):
    rows = []
    for i in range(3):
        facts = {"url": f"http://x/{i}.jpg", "key": f"00000{i}", "status": "success", "error_message": None}
        facts |= {"width": 256, "height": 256 + i, "caption": f"c{i}", "exif": '{"a": "b"}', "similarity": 0.25}
        rows.append({"key": f"00000{i}", "jpg": b"jpeg%d" % i, "txt": f"c{i}", "json": facts})
    write_tar(tmp_path / "00000.tar", samples(rows))
    (tmp_path / "00000.parquet").write_bytes(b"not looked at")
    (tmp_path / "00000_stats.json").write_text("{}")
    made = reader(tmp_path)
    table, failures = read_all(made)
    assert not failures and table.schema == made.peek(made.units()[0])
    assert table.column_names == [
        "image", "text", "key", "url", "key_json", "status", "error_message", "width", "height", "caption", "exif", "similarity",
    ]  # fmt: skip
    assert table.schema.field("image").type == fields.IMAGE
    assert [table.schema.field(n).type for n in ("text", "key", "error_message", "width", "similarity")] == [
        pa.string(), pa.string(), pa.null(), pa.int64(), pa.float64(),
    ]  # fmt: skip
    assert table.slice(2, 1).to_pylist() == [
        {
            "image": picture(b"jpeg2", "000002.jpg"), "text": "c2", "key": "000002", "url": "http://x/2.jpg",
            "key_json": "000002", "status": "success", "error_message": None, "width": 256, "height": 258,
            "caption": "c2", "exif": '{"a": "b"}', "similarity": 0.25,
        }
    ]  # fmt: skip


captions = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda text: text[:1] != "\ufeff")
sample = st.fixed_dictionaries(
    {},
    optional={
        "jpg": st.binary(max_size=600), "PNG": st.binary(max_size=30), "txt": captions,
        "json": st.dictionaries(st.sampled_from(["n", "key", "text", "txt", "é"]), st.none() | st.integers() | captions, max_size=3),
        "npy": st.binary(max_size=30), "cls": st.integers(0, 9).map(str), "seg.png": st.binary(max_size=9),
    },
).filter(bool)  # fmt: skip


@given(st.lists(sample, max_size=6), st.integers(1, 4), st.sampled_from(["", "d/", "é/../", "/"]))
def test_what_was_put_in_comes_out_whatever_the_slicing(rows, size, folder):
    rows = [{"key": f"{folder}{i}", **row} for i, row in enumerate(rows)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "SLICE_ROWS", size)
        found, failures = read(samples(rows))
    assert not failures and [row["key"] for row in found] == [row["key"] for row in rows]
    for row, got in zip(rows, found):
        main = next((extension for extension in ("jpg", "PNG") if extension in row), None)
        assert got["image"] == (picture(row[main], f"{row['key'].split('/')[-1]}.{main}") if main else None)
        assert got["text"] == row.get("txt")
        assert got.get("png") == (row.get("PNG") if main == "jpg" else None)
        for name in ("npy", "cls", "seg.png"):
            assert got.get(name) == row.get(name)
        for name, value in row.get("json", {}).items():
            text = got[name + "_json" * (name in ("key", "text"))]
            assert text == value or text == str(value)


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tgz", "x.tar.zst"])
def test_packed_tars_and_tars_at_any_depth_are_units(tmp_path, name):
    write_tar(tmp_path / "a" / name, [("1.jpg", b"x"), ("1.txt", b"y")])
    made = reader(tmp_path)
    assert [unit.file for unit in made.units()] == [f"a/{name}"]
    table, _ = read_all(made)
    assert table.to_pylist() == [{"image": picture(b"x", "1.jpg"), "text": "y", "key": "1"}]


def test_samples_are_consecutive_members_of_one_basename():
    members = [
        ("a.jpg", b"1"), ("._a.jpg", b"mac"), ("__meta.x__", b"{}"), ("README", b"no extension"), ("a.txt", b"t"),
        ("a.b/c.jpg", b"2"), ("a.b/c.seg.png", b"3"), ("a.txt", b"again"),
    ]  # fmt: skip
    found, failures = read(members)
    assert not failures and found == [
        {"image": picture(b"1", "a.jpg"), "text": "t", "key": "a", "seg.png": None},
        {"image": picture(b"2", "c.jpg"), "text": None, "key": "a.b/c", "seg.png": b"3"},
        {"image": None, "text": "again", "key": "a", "seg.png": None},
    ]


def test_columns_that_clash_get_names_of_their_own():
    described = {"image": 1, "text": 2, "key": 3, "key_json": 4, "cls": 5, "plain": 6}
    members = [("a.json", json.dumps(described).encode()), ("a.cls", b"7"), ("a.key", b"8"), ("a.image", b"9")]
    ((row,), failures) = read(members)
    assert not failures and row == {
        "image": None, "text": None, "key": "a", "cls": "7", "key_member": b"8", "image_member": b"9",
        "image_json": 1, "text_json": 2, "key_json": 3, "key_json_json": 4, "cls_json": 5, "plain": 6,
    }  # fmt: skip


def test_a_json_field_or_a_member_can_be_the_caption_or_the_picture():
    members = [("a.caption", b"c"), ("a.json", b'{"title": "t"}'), ("a.view.png", b"p")]
    ((row,), _) = read(members, text="title", image="view.png")
    assert row == {"key": "a", "caption": "c", "title": "t", "view.png": b"p"}


def test_without_pictures_none_is_read_and_no_row_is_lost():
    found, _ = read([("a.jpg", b"1"), ("a.txt", b"t"), ("b.jpg", b"2")], image=None)
    assert found == [{"text": "t", "key": "a"}, {"text": None, "key": "b"}]


def link(name, kind=tarfile.SYMTYPE, to="/etc/passwd"):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, to
        tar.addfile(info)
    return sink.getvalue().rstrip(b"\0").ljust(512, b"\0")


@pytest.mark.parametrize(
    ("members", "reason", "said"),
    [
        ([("b.txt", b"caf\xe9")], "text_not_utf8", "byte 0xe9 at 3 is not UTF-8, in member 'b.txt'"),
        ([("b.cls", b"\xff")], "text_not_utf8", "in member 'b.cls'"),
        ([("b.json", b"{")], "invalid_json", "property name"),
        ([("b.json", rb'{"a": "\ud800"}')], "text_not_utf8", r"\ud800"),
        ([("b.jpg", b"1"), ("b.JPG", b"2")], "duplicate_member", "member 'b.JPG' at byte"),
        (link("b.jpg") + tar_bytes([("b.txt", b"t")]), "member_not_a_file", "is a symbolic link"),
        (link("b.jpg", tarfile.LNKTYPE, "a.jpg"), "member_not_a_file", "is a hard link"),
        (link("b.jpg", tarfile.CHRTYPE), "member_not_a_file", "is a character device"),
        ([("b.jpg", b"x" * 2001)], "member_too_large", "2,001 bytes; at most 2,000"),
        ([("b.jpg", b"x" * 1500), ("b.npy", b"x" * 600)], "member_too_large", "'b.npy'"),
        ([("b.txt", b"x" * 501)], "member_too_large", "501 bytes; at most 500"),
        ([(f"b.{i}", b"x") for i in range(12)], "too_many_fields", "more than 10"),
    ],
)
def test_a_sample_that_cannot_be_used_fails_alone(members, reason, said, monkeypatch):
    monkeypatch.setattr(webdataset, "LARGEST", 2000)
    monkeypatch.setattr(webdataset, "LONGEST", 500)
    monkeypatch.setattr(webdataset, "MOST_FIELDS", 10)
    good = [{"jpg": b"1", "txt": "one"}, {"jpg": b"2", "txt": "two"}]
    first, last = (samples([{"key": key, **row}]) for key, row in zip("ac", good))
    middle = members if isinstance(members, bytes) else tar_bytes(members)
    found, failures = read(tar_bytes(first) + middle + tar_bytes(last))
    assert [row["key"] for row in found] == ["a", "b", "c"] and list(failures) == [1]
    assert failures[1][0] == reason and said in failures[1][1]
    assert found[0]["text"] == "one" and found[2]["image"]["bytes"] == b"2"
    assert {name: value for name, value in found[1].items() if value is not None} == {"key": "b"}


HOSTILE = [
    "../../etc/passwd.txt", "/etc/passwd.txt", "a\\..\\..\\b.txt", "C:\\Windows\\x.txt", "x" * 5000 + ".txt",
    "\u202etxt.gpj.txt", "a\n\x1b[31m.txt", "http://169.254.169.254/x.txt", "file:///etc/passwd.txt", "~/.ssh/id.txt",
]  # fmt: skip


@contextmanager
def opened():
    """Paths that Python opens, lists, makes or removes meanwhile."""
    seen, on = [], True

    def hook(event, args):
        if on and event.startswith(("open", "os.", "shutil.", "socket.connect")) and args:
            seen.append((event, str(args[0])))

    sys.addaudithook(hook)
    yield seen
    on = False


def test_hostile_names_are_text_and_nothing_else(tmp_path):
    members = [(name, f"t{i}".encode()) for i, name in enumerate(HOSTILE)]
    members += [(name.replace(".txt", ".jpg"), b"j") for name in HOSTILE]
    path = write_tar(tmp_path / "x.tar", members)
    read_all(reader(path))  # what is imported late is imported now
    before = sorted(os.listdir(tmp_path))
    with opened() as seen:
        table, failures = read_all(reader(path))
    mine = ("/x.tar", str(tmp_path))
    assert not failures and not [one for one in seen if not one[1].endswith(mine)]
    assert sorted(os.listdir(tmp_path)) == before
    rows = table.to_pylist()
    assert all(f"t{i}" in row.values() for i, row in enumerate(rows[: len(HOSTILE)]))
    assert [row["key"] for row in rows[:4]] == ["../../etc/passwd", "/etc/passwd", "a\\", "C:\\Windows\\x"]
    paths = [row["image"]["path"] for row in rows if row["image"]]
    assert len(paths) == len(HOSTILE) - 2 and all(p and p.isprintable() and not set("/\\") & set(p) for p in paths)


def test_a_name_with_a_nul_by_pax_stays_text():
    record = b"path=a\0b.txt\n"
    record = b"%d %s" % (len(record) + 3, record)
    info = tarfile.TarInfo("h")
    info.size, info.type = len(record), b"x"
    head = info.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0")
    ((row,), failures) = read(head + tar_bytes([("z.txt", b"t")]))
    assert not failures and row["key"] == "a\0b" and row["text"] == "t"


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tar.zst"])
def test_a_tar_that_breaks_off_is_broken_as_a_whole_with_the_place(tmp_path, name):
    rows = [{"key": f"{i}", "jpg": os.urandom(3000), "txt": "t"} for i in range(40)]
    data = packed(tar_bytes(samples(rows)), name)
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    made = reader(tmp_path)
    with pytest.raises(BrokenFile) as caught:
        read_all(made)
    assert len(data) // 2 - 6000 < caught.value.at <= len(data) // 2
    with pytest.raises(BrokenFile):
        made.peek(made.units()[0])


def test_peek_reads_only_the_beginning(tmp_path):
    rows = [{"key": f"{i}", "jpg": bytes(9000), "txt": "t", "json": {"a": i}} for i in range(400)]
    data = tar_bytes(samples([*rows, {"key": "z", "json": {"late": 1}}]))
    (tmp_path / "x.tar").write_bytes(data[: 3 << 20])
    made = reader(tmp_path)
    assert made.peek(made.units()[0]).names == ["image", "text", "key", "a"]


def test_fields_that_come_or_widen_late_are_in_all_slices(monkeypatch):
    monkeypatch.setattr(records, "SLICE_ROWS", 2)
    members = [(f"{i}.json", json.dumps(row).encode()) for i, row in enumerate([{"a": 1}, {}, {"a": 0.5}, {"b": "x"}])]
    found, _ = read(members)
    assert [(row["a"], row["b"]) for row in found] == [(1.0, None), (None, None), (0.5, None), (None, "x")]


def test_a_tar_without_the_column_of_a_role_has_it_empty():
    found, _ = read([("a.txt", b"t")], text="caption")
    assert found == [{"image": None, "caption": None, "key": "a", "text": "t"}]
    files.write_bytes("memory://wds/x.tar", tar_bytes([("a.txt", b"t")]))
    made = reader("memory://wds/x.tar", text="caption")
    assert made.peek(made.units()[0]).names == ["image", "key", "text"]
    files.write_bytes("memory://wds/x.tar", tar_bytes([("a.json", b"{")]))
    assert set(made.peek(made.units()[0]).names) == {"image", "key", "caption"}


def test_nothing_there_is_an_error_that_says_what_was_looked_for(tmp_path):
    with pytest.raises(ValueError, match=r"no \*\.tar or"):
        reader(tmp_path).units()
