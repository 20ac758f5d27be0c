import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import InputError
from storage import shards
from storage.shards import Memory


def write(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=3)


def test_finding_by_folder_glob_and_file(tmp_path):
    for name in ("b.parquet", "sub/a.parquet", "_hidden.parquet", "note.txt", "sub/.tmp.parquet"):
        write(tmp_path / name, x=[1])
    assert [e.file for e in shards.find(str(tmp_path))] == ["b.parquet", "sub/a.parquet"]
    assert [e.file for e in shards.find(f"{tmp_path}/*/*.parquet")] == ["sub/a.parquet"]
    assert [e.file for e in shards.find(f"{tmp_path}/b.parquet")] == ["b.parquet"]
    with pytest.raises(ValueError, match="no x\\*.parquet file is there"):
        shards.find(f"{tmp_path}/x*.parquet")


def test_links_to_files_are_followed_and_dead_ones_shown(tmp_path):
    write(tmp_path / "cache" / "blob", x=[1, 2])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.parquet").symlink_to(tmp_path / "cache" / "blob")
    for path in (f"{tmp_path}/in", f"{tmp_path}/in/*.parquet"):
        (entry,) = shards.find(path)
        assert (entry.file, entry.size) == ("a.parquet", (tmp_path / "cache" / "blob").stat().st_size)
        assert shards.footer(entry.url)[0] == 2
    (tmp_path / "in" / "dead.parquet").symlink_to(tmp_path / "nowhere")
    assert [entry.file for entry in shards.find(f"{tmp_path}/in")] == ["a.parquet", "dead.parquet"]


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match="no \\*.parquet file is there"):
        shards.find(f"{tmp_path}/nowhere")


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", x=[1])
    write(tmp_path / "sub" / "b.parquet", x=[1])
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        shards.find(str(tmp_path))


def test_a_changed_file_is_not_remembered(tmp_path):
    write(tmp_path / "a.parquet", x=[1])
    entry = shards.find(str(tmp_path))[0]
    Memory(str(tmp_path / "store")).remember(entry, "d" * 32, 1, pa.schema([("x", pa.int64())]))
    known = Memory(str(tmp_path / "store")).recall(entry)
    assert known["digest"] == "d" * 32 and shards.schema_of(known).names == ["x"]
    os.utime(tmp_path / "a.parquet", (1, 1))
    assert Memory(str(tmp_path / "store")).recall(shards.find(str(tmp_path))[0]) is None


@pytest.mark.parametrize("form", ["binary", "large_binary", "struct", "large_struct"])
def test_images_stream_as_binary_whatever_their_form(tmp_path, form):
    images = [b"a", None, b"", b"ccc", b"d"]
    if form.endswith("struct"):
        kind = pa.large_binary() if form == "large_struct" else pa.binary()
        column = pa.array(
            [None if i == 1 else {"bytes": b, "path": "p"} for i, b in enumerate(images)],
            pa.struct([("bytes", kind), ("path", pa.string())]),
        )
    else:
        column = pa.array(images, getattr(pa, form)())
    write(tmp_path / "a.parquet", image=column, n=list(range(5)))
    slices = list(shards.stream(shards.find(str(tmp_path / "a.parquet"))[0], ["n", "image"], "image"))
    assert [x for t in slices for x in t["image"].to_pylist()] == images
    assert [x for t in slices for x in t["n"].to_pylist()] == list(range(5))


def test_a_hidden_null_in_an_image_struct_is_null(tmp_path):
    column = pa.array(
        [{"bytes": None, "path": "only/a/path.png"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    write(tmp_path / "a.parquet", image=column)
    assert next(shards.stream(shards.find(str(tmp_path / "a.parquet"))[0], ["image"], "image"))[
        "image"
    ].to_pylist() == [None]


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(tmp_path):
    write(tmp_path / "set [v1]*" / "a.parquet", x=[1])
    assert [e.file for e in shards.find(f"{tmp_path}/set [v1]*")] == ["a.parquet"]


def test_a_name_that_is_not_utf8_is_shown_escaped_read_and_remembered(tmp_path):
    write(tmp_path / "in" / "a.parquet", x=[1, 2])
    os.rename(tmp_path / "in" / "a.parquet", os.fsencode(tmp_path / "in") + b"/\xff.parquet")
    (entry,) = shards.find(f"{tmp_path}/in")
    rows, schema = shards.footer(entry.url)
    assert (entry.file, rows) == ("\\xff.parquet", 2)
    assert shards.read(entry, ["x"])["x"].to_pylist() == [1, 2]
    Memory(str(tmp_path)).remember(entry, "d", rows, schema)
    assert Memory(str(tmp_path)).recall(entry)["rows"] == 2


def test_labels_that_are_not_utf8_are_escaped():
    raw = pa.chunked_array([pa.array([b"a", None, b"\xffb"], pa.binary()).view(pa.string())])
    assert shards.as_label(raw).to_pylist() == ["a", None, "\\xffb"]
    assert shards.as_label(pa.chunked_array([[1, None]])).to_pylist() == ["1", None]


def test_a_glob_that_matches_folders_means_the_files_in_them(tmp_path):
    for name in ("a.parquet", "b.parquet/part-0.parquet", "b.parquet/_SUCCESS", "b.parquet/note.txt", "c/d.parquet"):
        write(tmp_path / name, x=[1])
    assert [e.file for e in shards.find(f"{tmp_path}/*.parquet")] == ["a.parquet", "b.parquet/part-0.parquet"]


def test_links_to_folders_are_followed_once_and_never_in_circles(tmp_path):
    for name in ("in/a.parquet", "in/sub/b.parquet", "else/c.parquet"):
        write(tmp_path / name, x=[1])
    links = {"in/more": "else", "in/again": "else", "in/sub/up": "in", "in/twin": "in/sub", "else/back": "."}
    for link, target in links.items():
        (tmp_path / link).symlink_to(tmp_path / target)
    assert [e.file for e in shards.find(f"{tmp_path}/in")] == ["a.parquet", "again/c.parquet", "sub/b.parquet"]
