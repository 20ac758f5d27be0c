"""Every picture of a folder comes out as one row with its caption, its folder and its name; links lead nowhere else."""

from __future__ import annotations

import os

import pyarrow as pa
import pytest
from archives import read_unit, write_files

from configs.inputs import ImageFolderInput
from storage import files
from tasks.ingest import fields, image_folder, pictures, records
from tasks.ingest.image_folder import ImageFolderReader

FILES = {
    "top.jpg": b"0",
    "top.txt": "at the top\n",
    "cats/a.JPG": b"1",
    "cats/a.txt": b"\xef\xbb\xbfa cat\r\nde=eine Katze\r\n",
    "cats/b.png": b"2",
    "cats/notes.txt": "not of a picture",
    "cats/c.webp": b"",
    "cats/c.TXT": "empty\u2028file",
    "cats/deep/ü 猫.tiff": b"4",
    "cats/deep/ü 猫.txt": "猫",
    "cats/.hidden.jpg": b"x",
    ".git/x.jpg": b"x",
    "__MACOSX/cats/a.jpg": b"x",
    "docs/readme.md": "no picture",
    "_DSC1.d/_DSC1.jpg": b"5",
}


def reader(path, **config):
    return ImageFolderReader(ImageFolderInput(kind="image_folder", path=str(path), **config))


def read(made):
    """Rows of all units, and reasons of those that failed by key."""
    rows, reasons = [], {}
    for unit in made.units():
        table, failures = read_unit(made, unit)
        assert table.schema == made.peek(unit)
        rows += table.to_pylist()
        reasons |= {table["key"][row].as_py(): (f.reason, f.detail) for row, f in failures.items()}
    return rows, reasons


@pytest.mark.parametrize("place", ["local", "memory"])
def test_each_folder_of_pictures_is_a_unit_and_each_picture_a_row(tmp_path, place):
    url = str(tmp_path / "in") if place == "local" else "memory://folders/in"
    for name, data in FILES.items():
        files.write_bytes(f"{url}/{name}", data.encode() if isinstance(data, str) else data)
    made = reader(url)
    assert [unit.file for unit in made.units()] == [".", "_DSC1.d", "cats", "cats/deep"]
    rows, reasons = read(made)
    assert not reasons
    assert [(row["key"], row["source"], row["text"], row["image"]["bytes"]) for row in rows] == [
        ("top.jpg", "in", "at the top", b"0"),
        ("_DSC1.d/_DSC1.jpg", "_DSC1.d", None, b"5"),
        ("cats/a.JPG", "cats", "a cat\r\nde=eine Katze", b"1"),
        ("cats/b.png", "cats", None, b"2"),
        ("cats/c.webp", "cats", "empty\u2028file", b""),
        ("cats/deep/ü 猫.tiff", "cats/deep", "猫", b"4"),
    ]
    assert [row["image"]["path"] for row in rows][-1] == "ü 猫.tiff"
    assert made.peek(made.units()[0]) == pa.schema(
        [("image", fields.IMAGE), ("text", pa.string()), ("key", pa.string()), ("source", pa.string())]
    )
    rows, _ = read(reader(url, caption="first_line"))
    assert [row["text"] for row in rows] == ["at the top", None, "a cat", None, "empty\u2028file", "猫"]
    rows, _ = read(reader(url, text=None))
    assert len(rows) == 6 and "text" not in rows[0]


def test_slices_and_lots_change_nothing(tmp_path, monkeypatch):
    names = [f"{i:03d}.png" for i in range(30)]
    write_files(tmp_path, {name: name for name in names} | {f"{i:03d}.txt": f"t{i}" for i in range(0, 30, 3)})
    whole = read(reader(tmp_path))
    monkeypatch.setattr(records, "SLICE_ROWS", 4)
    monkeypatch.setattr(image_folder, "LOT", 7)
    assert read(reader(tmp_path)) == whole and [row["key"] for row in whole[0]] == names


def test_large_pictures_of_other_file_systems_are_not_all_in_memory_at_once(monkeypatch):
    for i in range(6):
        files.write_bytes(f"memory://large/{i}.png", bytes([i]) * 100)
    monkeypatch.setattr(pictures, "SLICE_BYTES", 250)
    monkeypatch.setattr(records, "SLICE_BYTES", 250)
    rows, _ = read(reader("memory://large"))
    assert [row["image"]["bytes"][0] for row in rows] == list(range(6))


def test_captions_that_are_not_utf8_fail_their_rows_alone(tmp_path):
    write_files(
        tmp_path, {"a.png": b"1", "a.txt": b"caf\xe9", "b.png": b"2", "b.txt": b"fine\nd\xe9j\xe0", "c.png": b"3"}
    )
    rows, reasons = read(reader(tmp_path))
    assert [row["key"] for row in rows] == ["a.png", "b.png", "c.png"] and rows[0]["image"] is None
    assert reasons["a.png"] == ("text_not_utf8", "byte 0xe9 at 3 is not UTF-8") and set(reasons) == {"a.png", "b.png"}
    rows, reasons = read(reader(tmp_path, caption="first_line"))
    assert set(reasons) == {"a.png"} and rows[1]["text"] == "fine"


def test_links_inside_are_followed_and_links_outside_are_rows_that_failed(tmp_path):
    write_files(tmp_path, {"secret/s.jpg": b"s", "secret/s.txt": "s", "in/real/a.jpg": b"a", "in/b.jpg": b"b"})
    folder = tmp_path / "in"
    (folder / "inside.jpg").symlink_to("real/a.jpg")
    (folder / "again").symlink_to("real")
    (folder / "out.jpg").symlink_to(tmp_path / "secret" / "s.jpg")
    (folder / "outside").symlink_to(tmp_path / "secret")
    (folder / "gone.jpg").symlink_to("nothing.jpg")
    (folder / "b.txt").symlink_to(tmp_path / "secret" / "s.txt")
    os.mkfifo(folder / "pipe.jpg")
    rows, reasons = read(reader(folder))
    assert [row["key"] for row in rows] == [
        "b.jpg",
        "gone.jpg",
        "inside.jpg",
        "out.jpg",
        "outside",
        "pipe.jpg",
        "real/a.jpg",
    ]
    assert {key: reason for key, (reason, _) in reasons.items()} == {
        "b.jpg": "path_escapes_folder", "gone.jpg": "image_not_found", "out.jpg": "path_escapes_folder",
        "outside": "path_escapes_folder", "pipe.jpg": "image_not_found",
    }  # fmt: skip
    assert [row["image"]["bytes"] for row in rows if row["image"]] == [b"a", b"a"]


def test_the_stamp_changes_with_names_sizes_times_and_captions(tmp_path):
    write_files(tmp_path, {"d/a.jpg": b"a", "d/a.txt": "t", "d/other.bin": b"x", "e/b.jpg": b"b"})

    def stamps(**config):
        return {unit.file: (unit.stamp, unit.size) for unit in reader(tmp_path, **config).units()}

    first = stamps()
    write_files(tmp_path, {"d/other.bin": b"changed"})
    assert stamps() == first
    os.utime(tmp_path / "d" / "a.txt", (1, 1))
    second = stamps()
    assert second["d"] != first["d"] and second["e"] == first["e"]
    assert stamps(text=None)["d"][1] == 1 and second["d"][1] == 2
    write_files(tmp_path, {"d/new.png": b"n"})
    assert stamps()["d"] != second["d"]
    (tmp_path / "d" / "link.jpg").symlink_to(tmp_path / "e" / "b.jpg")
    third = stamps()
    os.utime(tmp_path / "e" / "b.jpg", (1, 1))
    assert stamps()["d"] != third["d"]


def test_names_that_are_not_utf8_are_shown_escaped(tmp_path):
    folder = os.fsencode(tmp_path) + b"/d\xff"
    os.mkdir(folder)
    with open(folder + b"/caf\xe9.jpg", "wb") as file:
        file.write(b"x")
    rows, reasons = read(reader(tmp_path))
    assert not reasons and rows[0]["key"] == "d\\xff/caf\\xe9.jpg" and rows[0]["source"] == "d\\xff"
    assert rows[0]["image"] == {"bytes": b"x", "path": "caf.jpg"}


def test_a_folder_that_must_not_be_listed_is_an_error(tmp_path, monkeypatch):
    write_files(tmp_path, {"a/a.jpg": b"a", "b/b.jpg": b"b"})
    real = os.scandir

    def scandir(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        reader(tmp_path).units()


def test_nothing_there_is_an_error_that_says_so(tmp_path):
    write_files(tmp_path, {"x.txt": "no picture"})
    with pytest.raises(ValueError, match=r"no picture \(jpg, jpeg, png"):
        reader(tmp_path).units()
    for path in (tmp_path / "x.txt", tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="no folder is there"):
            reader(path).units()


def test_a_folder_seen_from_another_one_is_another_unit(tmp_path):
    write_files(tmp_path, {"cats/a.jpg": b"1"})
    (above,), (here,) = reader(tmp_path).units(), reader(tmp_path / "cats").units()
    assert above.url == here.url and above.stamp != here.stamp  # keys and sources are others
