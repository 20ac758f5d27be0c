"""What MixBatches says of pictures, files and folders that are not what mix.json promises."""

from __future__ import annotations

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_mixes import COLUMNS, build, draws, png, rows, spoil, units, write
from workers import loader

from configs.errors import MixError
from tasks.emit.loader import MixBatches


def with_bad_picture(folder, row):
    table = rows(7, 4, 2)
    images = table["image"].to_pylist()
    images[row]["bytes"] = png(7)[:40]
    column = pa.array(images, table.schema.field("image").type)
    write(folder, table.set_column(0, "image", column), 7, 2)
    return row


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("threads", [0, 2])
def test_a_picture_that_does_not_decode_is_named(tmp_path, workers, threads):
    row = with_bad_picture(tmp_path, 17)
    loaded = loader(MixBatches(tmp_path, columns=["image"], decode_threads=threads), workers)
    with pytest.raises(MixError) as error:
        list(loaded)
    said = str(error.value)
    assert f"the picture of row {100 + row} of web/0.parquet (batch 2, rank 0, place 0) does not decode" in said
    assert "truncated_image" in said and "`embed`" in said and "`decode=False`" in said


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["text", "tags"])
def test_a_text_that_is_not_utf8_is_named(tmp_path, workers, name):
    table, row = rows(7, 4, 2), 17
    texts = spoil([f"row {i}" for i in range(len(table))], row)
    column = texts if name == "text" else pa.ListArray.from_arrays(pa.array(range(len(table) + 1), pa.int32()), texts)
    write(tmp_path, table.set_column(table.column_names.index(name), name, column), 7, 2)
    loaded = loader(MixBatches(tmp_path, columns=["mix_draw", name]), workers)
    with pytest.raises(MixError) as error:
        list(loaded)
    said = str(error.value)
    assert f"the column '{name}' of row {100 + row} of web/0.parquet holds text that is not UTF-8 (b'\\xff" in said
    assert "`input.exclude`" in said and "`columns` reads without it" in said
    assert sum(map(len, draws(MixBatches(tmp_path, columns=["mix_draw"])))) == len(table)
    assert len(list(MixBatches(tmp_path, as_arrow=True))) == 14


def test_undecoded_pictures(tmp_path):
    row = with_bad_picture(tmp_path, 17)
    files = [data for batch in MixBatches(tmp_path, columns=["image"], decode=False) for data in batch["image"]]
    assert files[1] is None and files[row] == png(7)[:40] and files[2] == png(2)


def shade(image: Image.Image) -> int:
    return image.getpixel((0, 0))[0]


def test_threads_decode_the_same(tmp_path):
    build(tmp_path)
    seen = [list(MixBatches(tmp_path, columns=["image"], transform=shade, decode_threads=n)) for n in (0, 3)]
    assert seen[0] == seen[1]


def test_a_part_that_is_cut_off(tmp_path):
    build(tmp_path, part_rows=8)
    part = sorted((tmp_path / "data").iterdir())[2]
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MixError, match=r"part-00002.parquet cannot be read, it is cut off or overwritten"):
        draws(MixBatches(tmp_path, columns=COLUMNS))
    pages = bytearray(whole)
    pages[4:-2000] = bytes(len(pages) - 2004)
    part.write_bytes(pages)
    with pytest.raises(MixError, match=r"part-00002.parquet cannot be read, it is cut off or overwritten"):
        draws(MixBatches(tmp_path, columns=COLUMNS))


def test_a_mix_that_is_deleted_while_it_is_read(tmp_path):
    build(tmp_path / "mix", part_rows=8)
    stream = iter(MixBatches(tmp_path / "mix", columns=COLUMNS))
    next(stream)
    shutil.rmtree(tmp_path / "mix")
    with pytest.raises(MixError, match=r"part-0000\d.parquet is gone .* deleted or moved while it was read"):
        list(stream)


def test_a_newer_version_changes_nothing_for_who_has_begun(tmp_path):
    for version, steps in (("v1", 7), ("v2", 3)):
        build(tmp_path / version, steps)
        manifest = json.loads((tmp_path / version / "mix.json").read_text())
        (tmp_path / version / "mix.json").write_text(json.dumps(manifest | {"version": version}))
    (tmp_path / "latest.json").write_text('{"version": "v1"}')
    old = MixBatches(tmp_path, columns=COLUMNS)
    (tmp_path / "latest.json").write_text('{"version": "v2"}')
    assert len(draws(old)) == 14
    with pytest.raises(ValueError, match="saved with version 'v1'; this loader has 'v2'"):
        MixBatches(tmp_path).load_state_dict(old.state_dict())


def test_a_part_without_a_column(tmp_path):
    build(tmp_path, part_rows=30)
    part = sorted((tmp_path / "data").iterdir())[1]
    pq.write_table(pq.read_table(part).drop_columns(["text"]), part)
    with pytest.raises(MixError, match=r"part-00001.parquet has no column \['text'\]"):
        draws(MixBatches(tmp_path, columns=COLUMNS))


@pytest.mark.parametrize("gone", [1, -1])
def test_a_part_that_mix_json_counts_is_missed_at_once(tmp_path, gone):
    build(tmp_path, part_rows=8)
    parts = sorted((tmp_path / "data").iterdir())
    manifest = json.loads((tmp_path / "mix.json").read_text())
    manifest["files"] = {f"data/{part.name}": {} for part in parts} | {"README.md": {}}
    (tmp_path / "mix.json").write_text(json.dumps(manifest))
    expected = units(pq.read_table(tmp_path / "data"), 2)
    assert draws(MixBatches(tmp_path, columns=COLUMNS)) == expected
    parts[gone].unlink()
    with pytest.raises(MixError, match=f"lacks {parts[gone].name}, which mix.json counts"):
        MixBatches(tmp_path)
