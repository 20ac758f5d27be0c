"""Exports as their own libraries read them: order, content, count, bytes."""

from __future__ import annotations

import base64
import json
import shutil
import tarfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exported import NAMES, check, contents, export, exports, picture, write_mix
from hypothesis import given
from hypothesis import strategies as st
from small_mixes import spoil

from configs.errors import MixError, RunFailed
from configs.export import Export
from tasks import load
from tasks.export import METHODS
from tasks.export.checking import check_shard
from tasks.export.plan import Extent, cuts, survey
from tasks.export.rows import Source, samples
from tasks.export.webdataset import extension

KEYS = [f"{i // 8:08d}-{i % 8 // 4:05d}-{i % 4:07d}" for i in range(90)]


@pytest.fixture(scope="module")
def mix(tmp_path_factory):
    """A mix, and an export of it in each format."""
    folder = tmp_path_factory.mktemp("exports")
    url, rows = exports(folder)
    return folder, url, rows.to_pylist()


@pytest.mark.parametrize("kind", METHODS)
def test_the_same_bytes_for_any_number_of_workers_and_all_rows_in_order(mix, kind, tmp_path):
    folder, url, rows = mix
    made = export(url, tmp_path / "again", kind=kind, shards=4, workers=3)
    assert contents(tmp_path / "again") == contents(folder / kind)
    assert made.message.startswith("verified: 90 rows in order, 4 shards")
    assert check(str(folder / kind), url) == len(rows) == 90
    told = json.loads((folder / kind / "export.json").read_text())
    assert told["mix"]["version"] == "0123456789ab" and told["options"]["shards"] == 4
    assert [facts["rows"] for facts in told["files"].values() if facts["rows"]] == [22, 23, 22, 23]
    assert {*told["files"], "export.json"} == {*contents(folder / kind)}


def test_webdataset_reads_every_member_as_it_was_in_the_mix(mix):
    import webdataset

    folder, _, rows = mix
    urls = [str(folder / "webdataset" / f"{number:05d}.tar") for number in range(4)]
    found = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [one["__key__"] for one in found] == KEYS
    for i, (one, row) in enumerate(zip(found, rows, strict=True)):
        suffixes = {name for name in one if not name.startswith("__")}
        wanted = {"json", *({NAMES[i % 6]} if i != 1 else ()), *({"txt"} if i != 2 else ())}
        assert suffixes == wanted
        assert i == 1 or one[NAMES[i % 6]] == row["image"]["bytes"]
        assert i == 2 or one["txt"].decode() == row["caption"]
        rest = json.loads(one["json"])
        assert (rest["id"], rest["source"], rest["tags"]) == (row["id"], "web", row["tags"])
        assert (rest["mix_step"], rest["mix_rank"], rest["mix_slot"]) == (i // 8, i % 8 // 4, i % 4)
        assert rest["mix_uid"] == row["mix_uid"] and rest["seen"] == "2026-01-01 00:00:00"
        assert base64.b64decode(rest["raw"]) == row["raw"]
        assert rest["quality"] == (None if i == 4 else i / 2)
        assert rest.get("image") == ("a.b/x.png" if i == 3 else None)


def test_tar_headers_carry_no_time_and_no_user(mix):
    for number in range(4):
        with tarfile.open(mix[0] / "webdataset" / f"{number:05d}.tar") as tar:
            assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar.getmembers()} == {(0, 0, 0, "", "")}


def test_open_clip_reads_pictures_with_their_captions_and_knows_their_number(mix):
    from open_clip_train import data

    folder, _, rows = mix
    urls = f"{folder}/webdataset/{{00000..00003}}.tar"
    assert data.get_dataset_size(urls) == (90, 4)
    args = Namespace(val_data=urls, val_num_samples=90, batch_size=16, workers=0, world_size=1, seed=0)

    def pixels(image):
        return np.asarray(image.convert("RGB"), np.int16)

    loaded = data.get_wds_dataset(args, pixels, is_train=False, tokenizer=lambda text: [text])
    texts, images = [], []
    loaded.dataloader.persistent_workers = False
    for image, text in loaded.dataloader:
        texts += list(text)
        images += list(image.numpy())
    # Its reader takes jpg, png and webp, with a caption.
    wanted = [i for i in range(90) if i % 6 < 3 and i not in (1, 2)]
    assert texts == [rows[i]["caption"] for i in wanted]
    assert all(np.array_equal(found, decoded(i)) for i, found in zip(wanted, images, strict=True))


def decoded(number: int) -> np.ndarray:
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(picture(number))).convert("RGB"), np.int16)


def test_litdata_streams_rows_in_order_goes_on_where_it_was_and_holds_no_pickle(mix):
    import litdata

    folder, _, rows = mix
    index = json.loads((folder / "litdata" / "index.json").read_text())
    assert index["config"]["data_format"] == ["bytes", "str", "str", "str"]
    found = list(litdata.StreamingDataset(str(folder / "litdata"), shuffle=False))
    assert [one["key"] for one in found] == KEYS
    assert [bytes(one["image"]) for one in found] == [(row["image"] or {"bytes": b""})["bytes"] for row in rows]
    assert [one["text"] for one in found] == [row["caption"] or "" for row in rows]
    assert [json.loads(one["json"])["mix_uid"] for one in found] == [row["mix_uid"] for row in rows]

    def loader():
        dataset = litdata.StreamingDataset(str(folder / "litdata"), shuffle=False)
        return litdata.StreamingDataLoader(dataset, batch_size=10, num_workers=0)

    first, seen = loader(), []
    for number, batch in enumerate(first):
        seen += batch["key"]
        if number == 3:
            state = first.state_dict()
            break
    second = loader()
    second.load_state_dict(state)
    assert seen + [key for batch in second for key in batch["key"]] == KEYS


def test_litdata_keeps_a_caption_that_is_the_name_of_a_file(tmp_path, monkeypatch):
    """LitData's own choice of a serializer is then a pickle, for all captions."""
    url, _ = write_mix(tmp_path / "mix", rows=9)
    monkeypatch.chdir(tmp_path)
    for name in ("row 0: naïve 文 \n\u2028", "00000000-00000-0000000"):
        Path(name).write_text("not this")
    export(url, tmp_path / "out", kind="litdata")
    assert check(str(tmp_path / "out"), url) == 9


@pytest.mark.parametrize("kind", METHODS)
def test_a_mix_of_texts(kind, tmp_path):
    url, _ = write_mix(tmp_path / "mix", images=False)
    made = export(url, tmp_path / "out", kind=kind, shards=200)
    assert made.manifest["shards"] == 90  # none is empty
    assert check(str(tmp_path / "out"), url) == 90


@pytest.mark.parametrize("kind", METHODS)
def test_more_shards_than_ten_keep_their_order(mix, kind, tmp_path):
    export(mix[1], tmp_path / "out", kind=kind, shards=13)
    assert check(str(tmp_path / "out"), mix[1]) == 90


def test_shards_are_as_small_as_asked(tmp_path):
    url, _ = write_mix(tmp_path / "mix")
    made = export(url, tmp_path / "out", shard_bytes=100_000)
    sizes = [facts["bytes"] for facts in made.manifest["files"].values() if facts["rows"]]
    assert len(sizes) > 2 and max(sizes) <= 100_000


@pytest.mark.parametrize(
    "taken, told",
    [
        (lambda rows: rows[:-1], "has fewer than its 23 rows"),
        (lambda rows: [*rows, rows[-1]._replace(key="99999999")], "has more than its 23 rows"),
        (lambda rows: [rows[0], rows[2], rows[1], *rows[3:]], "differs from row 23 of"),
        (lambda rows: [rows[0]._replace(text="other"), *rows[1:]], "differs from row 22 of"),
        (lambda rows: [rows[0]._replace(image=b"other"), *rows[1:]], "differs from row 22 of"),
    ],
)
@pytest.mark.parametrize("kind", METHODS)
def test_a_shard_that_is_not_its_rows_is_found_out(mix, kind, taken, told, tmp_path):
    folder, url, _ = mix
    exporter, source = load(METHODS, Export(kind=kind)), survey(url).source
    shutil.copytree(folder / kind, tmp_path / "out")
    facts = exporter.write(f"{tmp_path}/out/{exporter.name(1)}", iter(taken(list(samples(source, 22, 45)))))
    if kind == "litdata":
        index = json.loads((tmp_path / "out" / "index.json").read_text())
        index["chunks"][1] = facts["chunk"]
        (tmp_path / "out" / "index.json").write_text(json.dumps(index))
    check_shard(exporter, str(tmp_path / "out"), 0, source, (0, 22))
    with pytest.raises(MixError, match=f"{exporter.name(1)} {told}"):
        check_shard(exporter, str(tmp_path / "out"), 1, source, (22, 45))


@pytest.mark.parametrize("kind", METHODS)
def test_a_text_that_is_not_utf8_is_named(kind, tmp_path):
    url, _ = write_mix(tmp_path / "mix")
    part = tmp_path / "mix" / "data" / "part-00001.parquet"
    spoilt = pq.read_table(part)
    notes = pa.chunked_array([spoil(spoilt["source"].to_pylist(), 9)])
    pq.write_table(spoilt.set_column(spoilt.column_names.index("source"), "source", notes), part)
    with pytest.raises(RunFailed, match="^1 of 4 shards failed;") as error:
        export(url, tmp_path / "out", kind=kind, shards=4)
    said = str(error.value)
    assert "MixError: the column 'source' of row 146 of web/0.parquet holds text that is not UTF-8 (b'\\xff" in said
    assert "`input.exclude`" in said and "codec" not in said


def test_litdata_is_read_back_chunk_by_chunk_with_an_index_of_that_chunk_alone(mix, monkeypatch):
    import litdata

    folder, url, _ = mix
    seen, original = [], litdata.StreamingDataset

    def noting(place):
        seen.append(len(json.loads(Path(place, "index.json").read_text())["chunks"]))
        return original(place)

    monkeypatch.setattr(litdata, "StreamingDataset", noting)
    assert check(str(folder / "litdata"), url) == 90
    assert seen == [1, 1, 1, 1] and {*contents(folder / "litdata")} >= {"chunk-0-0.bin", "chunk-0-3.bin"}


def test_an_extension_says_what_the_picture_is():
    assert [extension(picture(i)) for i in range(6)] == list(NAMES)
    assert extension(b"no picture") == extension(b"") == "bin"


@given(
    groups=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 10_000)), min_size=1, max_size=20),
    shards=st.none() | st.integers(1, 2000),
    limit=st.integers(1_000, 50_000),
)
def test_shards_divide_the_rows_evenly_and_none_is_empty(groups, shards, limit):
    counted = np.concatenate([np.zeros((1, 2), np.int64), np.array(groups).cumsum(0)])
    rows = int(counted[-1, 0])
    found = cuts(Extent(Source("mix", (), rows, None, None), counted[:, 0], counted[:, 1]), shards, limit, 10)
    sizes = [end - begin for begin, end in found]
    assert found[0][0] == 0 and found[-1][1] == rows and all(a[1] == b[0] for a, b in zip(found, found[1:]))
    assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1
    assert shards is None or len(found) == min(shards, rows)
    if shards is None and len(found) < rows:
        estimated = np.diff(np.interp([0, *(end for _, end in found)], counted[:, 0], counted[:, 1])) + 10 * np.array(
            sizes
        )
        assert estimated.max() <= limit
