"""The demo corpus: same bytes twice, real pictures, near duplicates included."""

from __future__ import annotations

import builtins
import io
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flows.openmoji import caption, group, pictures, write_openmoji


@pytest.fixture(scope="module")
def rows():
    return pictures()


def test_small_corpus(tmp_path):
    paths = write_openmoji(tmp_path / "a", shards=3, size=32, limit=130)
    again = write_openmoji(tmp_path / "b", shards=3, size=32, limit=130)
    assert [path.name for path in paths] == [f"openmoji-0{i}-of-03.parquet" for i in range(3)]
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    assert sorted((tmp_path / "a").iterdir()) == paths

    table = pa.concat_tables(pq.read_table(path) for path in paths)
    assert table.schema.field("image").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    assert table.num_rows == 130 and table["key"].to_pylist() == sorted(set(table["key"].to_pylist()))
    for row in table.to_pylist():
        image = Image.open(io.BytesIO(row["image"]["bytes"]))
        image.load()
        assert image.format == "PNG" and image.size == (32, 32)
        assert image.convert("RGBA").getextrema()[3] == (255, 255)  # opaque
        assert row["image"]["path"] == f"{row['key']}.png" and row["text"] and row["source"]
    assert b"CC BY-SA 4.0" in table.schema.metadata[b"license"]
    assert {pq.ParquetFile(p).metadata.row_group(0).num_rows for p in paths} <= {43, 44}


def test_returns_at_once_when_complete_and_repairs_when_not(tmp_path):
    paths = write_openmoji(tmp_path, shards=2, size=16, limit=20)
    before = [path.stat().st_mtime_ns for path in paths]
    assert write_openmoji(tmp_path, shards=2, size=16, limit=20) == paths
    assert [path.stat().st_mtime_ns for path in paths] == before

    content = paths[1].read_bytes()
    paths[1].unlink()
    write_openmoji(tmp_path, shards=2, size=16, limit=20)
    assert paths[1].read_bytes() == content

    other = tmp_path / "mine.parquet"
    other.write_bytes(b"")
    fewer = write_openmoji(tmp_path, shards=1, size=16, limit=20)
    assert sorted(tmp_path.iterdir()) == sorted([other, *fewer])


def test_whole_corpus_has_the_near_duplicates(rows):
    assert len(rows) > 3_900
    assert len({row.key for row in rows}) == len(rows)
    assert sum("skin tone" in row.text for row in rows) > 1_500
    sources = [row.source for row in rows]
    assert sources.count("flags") > 250 and sources.count("people-body") > 2_000
    assert len(set(sources)) == 11
    assert all(row.text.strip() == row.text and not re.search(r"[_:]$|_", row.text) for row in rows)


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("thumbs_up_medium_skin_tone", "people-body", "thumbs up: medium skin tone"),
        ("man_medium-light_skin_tone_red_hair", "people-body", "man: medium-light skin tone, red hair"),
        (
            "kiss_man_man_dark_skin_tone_light_skin_tone",
            "people-body",
            "kiss man man: dark skin tone, light skin tone",
        ),
        ("medium-dark_skin_tone", "component", "medium-dark skin tone"),
        ("Germany", "flags", "flag: Germany"),
        ("pirate_flag", "flags", "pirate flag"),
        ("keycap_#", "symbols", "keycap: #"),
    ],
)
def test_caption(name, source, expected):
    assert caption(name, source) == expected


def test_group():
    assert group([0x1F44D, 0x1F3FD]) == "people-body"
    assert group([0x1F3F4, 0x200D, 0x2620, 0xFE0F]) == "flags"
    assert group([0x1F441, 0xFE0F, 0x200D, 0x1F5E8, 0xFE0F]) == "smileys-emotion"
    assert group([0x23, 0xFE0F, 0x20E3]) == "symbols"
    assert group([0x1F50B]) == "objects"
    assert group([0x1]) == "objects"


def test_limit_is_capped_and_checked(tmp_path):
    for name in ("shards", "size", "limit"):
        with pytest.raises(ValueError, match=f"`{name}` is 0; it must be at least 1"):
            write_openmoji(tmp_path, **{name: 0})


def test_missing_package_names_the_extra(tmp_path, monkeypatch):
    original = builtins.__import__

    def without(name, *args, **options):
        if name == "resvg_py":
            raise ModuleNotFoundError("No module named 'resvg_py'", name=name)
        return original(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"needs `resvg_py`: pip install -e '\.\[demo\]'"):
        write_openmoji(tmp_path)
