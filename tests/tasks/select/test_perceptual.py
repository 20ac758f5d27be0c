"""Near-duplicate pictures: the search against brute force, keepers, blank pictures, targets, and whole runs."""

import io
from math import comb
from pathlib import Path

import corpora
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import encode
from PIL import Image, ImageDraw

from configs.methods.duplicates import Perceptual as Config
from configs.methods.score import ImageHash
from flows.pipeline import examine
from tasks.score.image_hash import ImageHasher
from tasks.select import covers, hamming, linking, perceptual
from tasks.select.perceptual import Perceptual


def strings(bits, distance, seed, count=400):
    """Random strings and copies in which some bits differ, up to two more than `distance`; distinct."""
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 2, (count, bits), dtype=np.uint8)
    copies = table[: count // 3].repeat(3, axis=0)
    for row in copies:
        row[rng.choice(bits, rng.integers(1, distance + 3), replace=False)] ^= 1
    table = np.unique(np.concatenate([table, copies]), axis=0)
    packed = np.zeros((len(table), -(-bits // 64) * 8), np.uint8)
    packed[:, : bits // 8] = np.packbits(table, axis=1)
    return packed.view("<u8")


def apart(a, b):
    return np.bitwise_count(a[:, None] ^ b[None]).sum(axis=2)


@pytest.mark.parametrize("bits, distance", [(64, 0), (64, 1), (64, 4), (64, 8), (144, 6), (256, 20), (1024, 40)])
@pytest.mark.parametrize("agree", [0, 1, 2])
def test_all_pairs_are_found_once(bits, distance, agree, monkeypatch):
    words = strings(bits, distance, seed=bits + distance)
    monkeypatch.setattr(hamming, "chunks_to_agree", lambda *_: agree)
    found = hamming.near(words, bits, distance)
    table = apart(words, words)
    wanted = np.argwhere(np.triu(table <= distance, 1))
    order = np.lexsort((found.j, found.i))
    assert np.array_equal(np.stack([found.i, found.j], 1)[order], wanted) and found.capped == 0
    assert np.array_equal(found.distance, table[found.i, found.j])
    assert len(wanted) > 50 or distance == 0


def test_masks_are_all_choices_of_chunks():
    masks = hamming.masks(144, 4, 2)
    assert masks.shape == (comb(6, 2), 3) and len(np.unique(masks, axis=0)) == 15
    assert np.bitwise_count(masks).sum(axis=1).tolist() == [48] * 15
    assert np.bitwise_or.reduce(masks)[2] == (1 << 16) - 1  # no bit behind the last


def test_many_strings_that_agree_are_compared_in_part_and_counted(monkeypatch):
    monkeypatch.setattr(hamming, "WINDOW", 8)
    monkeypatch.setattr(hamming, "ALL_PAIRS", 0)
    monkeypatch.setattr(hamming, "chunks_to_agree", lambda *_: 1)
    words = np.arange(256, dtype=np.uint64)[:, None]  # each differs from each in few of the same eight bits
    found = hamming.near(words, 64, 4)
    assert found.capped and 0 < len(found.i) <= 5 * 256 * 8
    monkeypatch.setattr(hamming, "WINDOW", 4096)
    assert hamming.near(words, 64, 4).capped == 0
    monkeypatch.setattr(hamming, "MOST_PAIRS", 1000)
    monkeypatch.setattr(hamming, "PAIRS_EACH", 0)
    assert len(hamming.near(words, 64, 4).i) <= 1000
    monkeypatch.setattr(hamming, "chunks_to_agree", lambda *_: 0)  # too many pairs for that, too
    assert hamming.near(words, 64, 4).capped


def test_all_are_compared_where_chunks_tell_nothing_apart(monkeypatch):
    words = np.random.default_rng(1).integers(0, 1 << 64, (12_000, 1), np.uint64)
    assert hamming.chunks_to_agree(len(words), 64, 16) == 0 and hamming.chunks_to_agree(1 << 20, 64, 4) > 0
    found = hamming.near(words, 64, 16)
    expected = len(words) * (len(words) - 1) / 2 * sum(comb(64, k) for k in range(17)) / 2**64
    assert found.capped == 0 and abs(len(found.i) - expected) < 5 * expected**0.5  # 2,784 by the binomial
    assert (found.i < found.j).all() and (np.bitwise_count(words[found.i] ^ words[found.j])[:, 0] <= 16).all()
    # Alike in all but a few bits: chunks seem to tell more apart than they do.
    alike = np.unique(np.random.default_rng(2).integers(0, 1 << 15, 4000, np.uint64))[:, None]
    monkeypatch.setattr(hamming, "chunks_to_agree", lambda *_: 1)
    monkeypatch.setattr(hamming, "WINDOW", 16)
    found = hamming.near(alike, 64, 2)
    assert found.capped == 0 and len(found.i) == np.sum(np.triu(apart(alike, alike) <= 2, 1))
    monkeypatch.setattr(hamming, "ALL_PAIRS", 1000)
    assert hamming.near(alike, 64, 2).capped


@pytest.mark.parametrize(
    "bits, distance, parts, q",
    [(64, 4, 1, 2), (64, 4, 1, 3), (64, 4, 1, 4), (64, 4, 2, 5), (144, 8, 3, 2), (256, 8, 5, 3), (64, 0, 1, 7)],
)
def test_strings_within_a_distance_agree_under_one_mask(bits, distance, parts, q):
    masks = covers.cover(bits, distance, parts, q)
    directions = (q ** (distance // parts + 1) - 1) // (q - 1)
    assert len(masks) == parts * directions
    rng = np.random.default_rng(0)
    flips = np.argsort(rng.random((3000, bits)), axis=1)[:, :distance]
    table = np.unpackbits(masks.view(np.uint8), axis=1, bitorder="little")[:, :bits]
    assert (~table[:, flips].any(axis=2)).any(axis=0).all()
    lengths = table.sum(axis=1)
    assert abs(lengths.mean() * parts / bits - q ** (distance // parts) / directions) < 0.03 and lengths.min() > 0


@pytest.mark.parametrize(
    "count, bits, distance", [(1_100_000, 64, 4), (8_000_000, 64, 4), (1_100_000, 144, 8), (1_100_000, 256, 16)]
)
def test_few_meet_by_chance_however_many_there_are(count, bits, distance):
    masks = covers.fitting(count, bits, distance)
    assert covers.company(count, masks) <= covers.COMPANY and len(masks) <= covers.MOST_KEYS
    assert len(covers.fitting(count // 10, bits, distance)) <= len(masks)
    assert len(perceptual.linking_masks(count, bits, distance)) == len(masks)
    flipped = perceptual.linking_masks(count, bits, distance, flips=True)
    assert 4 * covers.company(count, flipped) <= covers.COMPANY
    hundred = covers.fitting(100_000_000, bits, min(distance, bits // 20))
    assert covers.company(100_000_000, hundred) < 0.5  # from one on, nearly all would be one group


def groups_of(words, masks):
    """Component of every row whose hashes agree under a mask, in links of runs, as the generic code makes them."""
    root = np.arange(len(words))
    for mask in masks:
        linking.unite(root, *linking.stars(hamming.masked(words, mask), np.arange(len(words))))
    linking.settle(root)
    return root


def test_rows_linked_by_chance_stay_few(monkeypatch):
    monkeypatch.setattr(perceptual, "ROWS_TOGETHER", 10_000)
    monkeypatch.setattr(covers, "ENTROPY", 1.0)
    n, distance = 40_000, 3
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << 48, n + 500, np.uint64)[:, None]
    for row in range(500):
        words[n + row] = words[row] ^ np.bitwise_or.reduce(np.uint64(1) << rng.choice(48, distance).astype(np.uint64))
    masks = perceptual.linking_masks(len(words), 48, distance)
    root = groups_of(words, masks)
    assert (root[n:] == root[:500]).all()
    sizes = np.bincount(root)
    assert sizes.max() <= 5 and (sizes[sizes > 1] - 1).sum() < 500 + 0.05 * n
    assert np.bincount(groups_of(words, hamming.masks(48, distance, 1))).max() > n / 2  # as few masks would have it


@pytest.mark.parametrize("one", [{"flips": True}, {"max_pixels": 1_000_000}])
def test_selects_that_differ_in_their_hashes_have_their_own(tmp_path, one):
    corpus(tmp_path / "in")
    select = [{"kind": "perceptual"}, {"kind": "perceptual"} | one]
    for order in (select, select[::-1]):
        settings = corpora.config(tmp_path, {"select": order, "sample": {"kind": "iid", "batch_size": 4}})
        assert len([planned for planned in examine(settings)[1] if planned.config.kind == "image_hash"]) == 2


def test_room_for_pairs_grows():
    words = np.unique(np.random.default_rng(0).integers(0, 1 << 12, (700, 1)).astype(np.uint64), axis=0)
    assert len(hamming.near(words, 64, 6).i) == np.sum(np.triu(apart(words, words) <= 6, 1)) > 1 << 16


def table(hashes, spread=50.0, pixels=None, uids=None, mirrored=None):
    """Rows with 64-bit hashes; None: no picture."""
    n = len(hashes)
    packed = [None if value is None else int(value).to_bytes(8, "little") for value in hashes]
    spreads = [None if value is None else s for value, s in zip(hashes, np.broadcast_to(spread, n), strict=True)]
    columns = {
        "uid": pa.array(uids or [i.to_bytes(16, "big") for i in range(n)], pa.binary(16)),
        "phash_64": pa.array(packed, pa.binary(8)),
        "phash_64_spread": pa.array(spreads, pa.float32()),
        "width": pa.array(pixels or [10] * n, pa.int32()),
        "height": pa.array([10] * n, pa.int32()),
        "__shard": pa.array([0] * n, pa.int32()),
        "__row": pa.array(range(n), pa.int64()),
    }
    if mirrored:
        columns = {name.replace("phash_64", "phash_64_flips"): column for name, column in columns.items()}
        columns["phash_64_flips_mirrored"] = pa.array([int(v).to_bytes(8, "little") for v in mirrored], pa.binary(8))
    return pa.table(columns)


def decide(rows, **settings):
    return Perceptual(Config(**settings), seed=0).decide(rows, {})


def test_the_largest_picture_stands_for_those_within_reach():
    rows = table([0, 0b1111, 0b11111 << 20, 0b11, 0], pixels=[5, 7, 9, None, 7])
    told = decide(rows)
    assert told.keep.tolist() == [False, True, True, False, False]
    assert told.keeper.tolist() == [1, -1, -1, 1, 1]
    assert np.allclose(told.score[[0, 3, 4]], [1, 62 / 64, 60 / 64]) and np.isnan(told.score[[1, 2]]).all()
    assert told.reason.tolist() == ["near_duplicate_image", "", "", *["near_duplicate_image"] * 2]
    first = decide(rows, keep_by="first")
    assert first.keeper.tolist() == [-1, 0, -1, 0, 0] and first.score[4] == 1


def test_a_chain_is_one_group_of_components_alone():
    rows = table([0, 0b111, 0b111111, 0b111111111])
    assert decide(rows, keep_by=None, max_distance=3).keeper.tolist() == [-1, 0, -1, 2]
    assert decide(rows, keep_by=None, max_distance=3, groups="components").keeper.tolist() == [-1, 0, 0, 0]


def test_blank_pictures_are_alike_only_if_rows_are_equal():
    uid = [b"a" * 16, b"b" * 16, b"a" * 16, b"c" * 16, b"c" * 16]
    told = decide(table([0, 0, 0, None, None], spread=[1.0, 1.0, 1.0, 0, 0], uids=uid))
    assert told.keep.tolist() == [True, True, False, True, True] and told.keeper.tolist() == [-1, -1, 0, -1, -1]
    assert decide(table([0, 0, 0], spread=1.0), min_spread=0.5).keep.tolist() == [True, False, False]


def test_mirrored_copies_are_found_if_wanted():
    rng = np.random.default_rng(0)
    a, b, c, d = (int(value) for value in rng.integers(0, 1 << 63, 4))
    rows = table([a, b ^ 1, b, c], mirrored=[b, a, a ^ 6, d])
    unflipped = rows.rename_columns([name.replace("_flips", "") for name in rows.column_names])
    assert decide(unflipped, keep_by=None).keep.tolist() == [True, True, False, True]
    told = decide(rows, keep_by=None, flips=True)
    assert told.keep.tolist() == [True, False, False, True] and told.keeper.tolist() == [-1, 0, 0, -1]
    assert told.score[2] == 1 and told.score[1] == 1  # b is a's mirrored hash, and a is that of the second
    keys = Perceptual(Config(flips=True), seed=0).keys(rows, {"masks": hamming.masks(64, 4, 1)})
    assert keys.shape == (4, 10) and (keys[0] == keys[1]).any() and not (keys[0] == keys[3]).any()


def test_with_a_target_rows_rank_by_likeness_then_by_size():
    rows = table([0, 0, 0b1, 0b111 << 30, 1 << 63 | 0xFF00], pixels=[8, 9, 7, 1, 2])
    method = Perceptual(Config(target_rows=3), seed=0)
    told = method.decide(rows, {})
    assert method.ranked and told.keep.all() and told.keeper.tolist() == [1, -1, 1, 1, -1]
    assert np.allclose(told.rank[:, 0], [1, -np.inf, 63 / 64, 61 / 64, -np.inf])
    assert told.rank[:, 1].tolist() == [-80, -90, -70, -10, -20]
    assert told.reason.tolist() == ["near_duplicate_image", "", *["near_duplicate_image"] * 2, ""]


@pytest.mark.parametrize("hash_size", [8, 16])
def test_alike_rows_share_a_key_and_rows_without_a_picture_none(hash_size, monkeypatch):
    monkeypatch.setattr(perceptual, "ROWS_TOGETHER", 100)
    config = Config(hash_size=hash_size, max_distance=hash_size // 2)
    method, bits = Perceptual(config, seed=0), hash_size**2
    words = strings(bits, config.max_distance, seed=3)
    state = method.fit([pa.table({"rows": [60]}), pa.table({"rows": [1_000_000]})], None)
    assert 1 < len(state["masks"]) <= covers.MOST_KEYS
    n = len(words)
    rows = pa.table(
        {
            "uid": pa.array([i.to_bytes(16, "little") for i in range(n)], pa.binary(16)),
            config.sketch.column: pa.array([row.tobytes() for row in words], pa.binary(bits // 8)),
            config.sketch.spread_column: pa.array([None, None, 0.0, 0.0] + [20.0] * (n - 4), pa.float32()),
            "__shard": pa.array(np.zeros(n, np.int32)),
            "__row": pa.array(np.arange(n)),
        }
    )
    keys = method.keys(rows, state)
    met = (keys[:, None] == keys[None]).any(axis=2)
    assert met[4:, 4:][apart(words, words)[4:, 4:] <= config.max_distance].all()
    assert met[:4].sum() == 4 and np.mean(met) < 0.02
    together = method.keys(rows, method.fit([pa.table({"rows": [100]})], None))
    assert together.shape[1] == 1 and len(np.unique(together)) == 5


def test_equal_pictures_by_the_hundred_thousand_are_linear():
    n = 200_000
    hashes = np.full(n, 77, "<u8").view(np.uint8)
    rows = pa.table(
        {
            "uid": pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), n, [None, pa.py_buffer(np.zeros(2 * n, "<u8"))]),
            "phash_64": pa.FixedSizeBinaryArray.from_buffers(pa.binary(8), n, [None, pa.py_buffer(hashes)]),
            "phash_64_spread": pa.array(np.full(n, 30, np.float32)),
        }
    )
    told = decide(rows, keep_by=None)
    assert told.keep.sum() == 1 and (told.keeper[1:] == 0).all() and told.counts == {"capped_runs": 0}


def test_capped_comparisons_are_told():
    method = Perceptual(Config(), seed=0)
    assert method.warnings({"capped_runs": 0}) == [] and "2,048" in method.warnings({"capped_runs": 3})[0]


def test_a_distance_that_tells_nothing_apart_is_refused():
    with pytest.raises(ValueError, match="17 of 64 bits; at most 16"):
        Config(max_distance=17)
    assert Config(max_distance=17, hash_size=12).sketch == ImageHash(hash_size=12)


def drawing(seed, side=160):
    """A picture of some coloured discs."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (side, side), tuple(rng.integers(0, 256, 3).tolist()))
    for _ in range(12):
        x, y, r = rng.integers(0, side, 3).tolist()
        r = 5 + r // 4
        ImageDraw.Draw(picture).ellipse((x - r, y - r, x + r, y + r), tuple(rng.integers(0, 256, 3).tolist()))
    return picture


EDITS = {
    "half the size": lambda picture: picture.resize((80, 80), Image.Resampling.LANCZOS),
    "JPEG": lambda picture: Image.open(io.BytesIO(encode(picture, "JPEG", quality=50))),
    "turned by EXIF": lambda picture: picture.rotate(90),
}


def test_edited_copies_are_found_and_others_are_not():
    pictures = [drawing(i) for i in range(40)]
    exif = Image.Exif()
    exif[0x0112] = 6
    images = [encode(picture) for picture in pictures]
    for name, edit in EDITS.items():
        images += [encode(edit(picture), **({"exif": exif} if "EXIF" in name else {})) for picture in pictures]
    config = Config(max_distance=6)
    rows = ImageHasher(config.sketch).run(pa.table({"image": pa.array(images, pa.binary())})).table
    rows = rows.append_column("uid", pa.array([i.to_bytes(16, "big") for i in range(len(images))], pa.binary(16)))
    told = decide(rows, max_distance=6)
    assert told.keep[:40].all()
    found = told.keeper[40:].reshape(3, 40) == np.arange(40)
    assert found.mean(axis=1).min() > 0.9 and found[2].all() and not (told.keeper >= 40).any()


def corpus(folder):
    """Three shards of drawings; every fourth is a smaller copy of one in the shard before, two are blank."""
    folder.mkdir()
    for shard in range(3):
        columns = corpora.rows(20, seed=shard + 1)
        pictures = [drawing(100 * shard + i) for i in range(20)]
        if shard:
            for i in range(0, 20, 4):
                pictures[i] = drawing(100 * shard - 100 + i + 1).resize((90, 90), Image.Resampling.LANCZOS)
        pictures[5] = pictures[6] = Image.new("RGB", (30 + shard, 30), "white")
        columns["image"] = [encode(picture) for picture in pictures]
        columns["image"][7] = b"no picture"
        pq.write_table(pa.table(columns), folder / f"{shard:05d}.parquet", row_group_size=7)
    return folder


def outcome(folder, over):
    settings = corpora.config(folder, over)
    mix = corpora.run(settings)
    ledger = [row for file in Path(mix.url).glob("ledger/*.parquet") for row in pq.read_table(file).to_pylist()]
    return mix, {(row["file"], row["row"]): row for row in ledger}


@pytest.mark.parametrize("together", [10, pytest.param(1 << 20, marks=pytest.mark.nightly)])
def test_a_run_keeps_the_larger_copy_wherever_it_is(tmp_path, monkeypatch, together):
    monkeypatch.setattr(perceptual, "ROWS_TOGETHER", together)
    corpus(tmp_path / "in")
    over = {"select": [{"kind": "perceptual"}], "sample": {"kind": "iid", "batch_size": 4}}
    _, ledger = outcome(tmp_path, over)
    gone = {place: row for place, row in ledger.items() if row["reason"] == "near_duplicate_image"}
    wanted = {(f"{s:05d}.parquet", i): (f"{s - 1:05d}.parquet", i + 1) for s in (1, 2) for i in range(0, 20, 4)}
    # The smaller copies of a blank or a broken picture have nobody to stand for them.
    wanted = {place: keeper for place, keeper in wanted.items() if keeper[1] not in (5, 7)}
    assert {p: (row["keeper_file"], row["keeper_row"]) for p, row in gone.items()} == wanted
    broken = [p for p, row in ledger.items() if row["reason"] == "not_an_image"]
    assert sorted(broken) == [(f"{s:05d}.parquet", 7) for s in range(3)]


@pytest.mark.nightly
def test_a_run_meets_its_target_exactly(tmp_path):
    corpus(tmp_path / "in")
    copies = {(f"{s:05d}.parquet", i) for s in (1, 2) for i in (0, 8, 12, 16)}
    blank = {(f"{s:05d}.parquet", i) for s in range(3) for i in (5, 6)}
    for rows in (52, 40):
        over = {"select": [{"kind": "perceptual", "target_rows": rows}], "sample": {"kind": "iid", "batch_size": 4}}
        _, ledger = outcome(tmp_path, over)
        gone = {place: row for place, row in ledger.items() if row["stage"] == "select/perceptual"}
        assert len(gone) == 57 - rows
        alike = {place for place, row in gone.items() if row["reason"] == "near_duplicate_image"}
        assert all(gone[place]["keeper_file"] for place in alike)
        # Equal likeness and size: the latest go first. Of pictures that are like no other the smallest go first.
        assert alike == (copies if rows == 40 else set(sorted(copies)[3:]))
        assert rows == 52 or blank <= set(gone)
