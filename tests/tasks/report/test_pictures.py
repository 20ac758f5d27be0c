"""Small pictures of chosen rows: whatever the bytes, each row group read once."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from storage.naming import Naming
from storage.shards import Shard
from storage.view import View
from tasks.report import pictures
from tasks.report.pictures import Limits

LIMITS = Limits(64, 1_000_000)
VIEW = View({"image": "image", "text": "text"})


def encoded(size=(200, 100), kind="PNG", mode="RGB", colour=128):
    sink = io.BytesIO()
    Image.new(mode, size, colour).save(sink, kind)
    return sink.getvalue()


def shard(folder, table, **options):
    pq.write_table(table, folder / "a.parquet", **options)
    naming = options.pop("naming", Naming())
    return Shard(0, "a.parquet", str(folder / "a.parquet"), "d" * 32, table.num_rows, naming)


def lines(found):
    return {line["row"]: line for line in found.to_pylist()}


HOSTILE = {
    "page": b"<!DOCTYPE html><script>alert(1)</script>",
    "noise": np.random.default_rng(0).bytes(5000),
    "cut": encoded()[:60],
    "huge claim": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x02\x00\x00\x00",
    "too many pixels": encoded((2000, 1000)),
    "short": b"\xff",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_picture_is_told_by_size_and_first_bytes(data):
    found = pictures.shown(data, LIMITS)
    assert "picture" not in found and found["told"] and len(found["told"]) <= 300
    assert found["bytes"] == len(data) and found["head"] == data[:16]


def test_nothing_and_no_bytes():
    assert pictures.shown(None, LIMITS) == {"told": "no picture", "bytes": None}
    assert pictures.shown(b"", LIMITS) == {"told": "0 bytes", "bytes": 0}


@pytest.mark.parametrize(
    ("size", "mode", "small"),
    [((200, 100), "RGB", (64, 32)), ((1, 1), "L", (1, 1)), ((5000, 1), "LA", (64, 1)), ((30, 20), "P", (30, 20))],
)
def test_pictures_keep_their_shape_and_repeat(size, mode, small):
    data = encoded(size, mode=mode, colour=(9, 255) if mode == "LA" else 9 if mode != "RGB" else (1, 2, 3))
    found = pictures.shown(data, LIMITS)
    image = Image.open(io.BytesIO(found["picture"]))
    assert image.format == "WEBP" and image.size == small and found == pictures.shown(data, LIMITS)


def test_rows_come_with_their_own_caption_and_picture(tmp_path):
    count = 300
    images = [encoded((20 + i, 20)) for i in range(count)]
    table = pa.table({"image": images, "text": [f"caption {i}" for i in range(count)], "other": range(count)})
    rows = [0, 7, 99, 100, 101, 255, 299]
    found = lines(pictures.contents(shard(tmp_path, table, row_group_size=50), VIEW, rows, Limits(1000, 10**6)))
    assert list(found) == rows
    for row in rows:
        assert found[row]["caption"] == f"caption {row}"
        assert Image.open(io.BytesIO(found[row]["picture"])).size == (20 + row, 20)


def test_a_row_group_is_read_once_and_others_not_at_all(tmp_path, monkeypatch):
    table = pa.table({"image": [encoded()] * 400, "text": ["x"] * 400, "other": ["y"] * 400})
    one, read = shard(tmp_path, table, row_group_size=40), []
    original = pq.ParquetFile.iter_batches

    def spy(self, *args, **options):
        read.append((options["row_groups"], options["columns"]))
        return original(self, *args, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    pictures.contents(one, VIEW, [3, 4, 5, 39, 120, 130, 399], LIMITS)
    assert read == [([group], ["image", "text"]) for group in (0, 3, 9)]


@pytest.mark.parametrize("form", ["binary", "large_binary", "struct"])
def test_every_form_of_image_column(tmp_path, form):
    data = [encoded(), None, b"x"]
    if form == "struct":
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        images = pa.array([{"bytes": one, "path": "p"} if one else None for one in data], kind)
    else:
        images = pa.array(data, pa.binary() if form == "binary" else pa.large_binary())
    table = pa.table({"image": images, "text": ["a", "b", "c"]})
    found = lines(pictures.contents(shard(tmp_path, table), VIEW, [0, 1, 2], LIMITS))
    assert found[0]["picture"] and found[1]["told"] == "no picture" and found[2]["head"] == b"x"


def test_texts_alone(tmp_path):
    table = pa.table({"text": pa.array(["a", None, "c" * 5000], pa.large_string())})
    found = lines(pictures.contents(shard(tmp_path, table), View({"text": "text"}), [0, 1, 2], LIMITS))
    assert [found[i]["caption"] for i in range(2)] == ["a", None] and len(found[2]["caption"]) == pictures.CAPTION_BYTES
    assert all(line["picture"] is None and line["told"] is None for line in found.values())


def test_a_caption_that_is_not_utf8(tmp_path):
    raw = pa.array([b"fine", b"\xff\xfe bad"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    found = lines(pictures.contents(shard(tmp_path, pa.table({"text": text})), View({"text": "text"}), [0, 1], LIMITS))
    assert found[1]["caption"] == "\ufffd\ufffd bad"


def test_other_names_constants_and_excluded_columns(tmp_path):
    table = pa.table({"img": [encoded()], "caption": ["c"]})
    pq.write_table(table, tmp_path / "a.parquet")
    naming = Naming(columns=(("image", "img"), ("text", "caption")), excluded=("caption",))
    one = Shard(0, "a.parquet", str(tmp_path / "a.parquet"), "d" * 32, 1, naming)
    (line,) = pictures.contents(one, VIEW, [0], LIMITS).to_pylist()
    assert line["picture"] and line["caption"] == "c"


def test_a_file_that_is_gone_costs_its_pictures_alone(tmp_path):
    one = Shard(0, "a.parquet", str(tmp_path / "gone.parquet"), "d" * 32, 9, Naming())
    found = lines(pictures.contents(one, VIEW, [1, 5], LIMITS))
    assert [found[row]["told"] for row in (1, 5)] == ["the input cannot be read (FileNotFoundError)"] * 2


def test_any_fsspec_url(tmp_path):
    import fsspec

    table = pa.table({"image": [encoded()] * 5, "text": list("abcde")})
    one = shard(tmp_path, table, row_group_size=2)
    fsspec.filesystem("memory").pipe(f"/{tmp_path.name}/a.parquet", (tmp_path / "a.parquet").read_bytes())
    other = Shard(0, "a.parquet", f"memory://{tmp_path.name}/a.parquet", "d" * 32, 5, Naming())
    assert pictures.contents(other, VIEW, [1, 4], LIMITS).equals(pictures.contents(one, VIEW, [1, 4], LIMITS))
