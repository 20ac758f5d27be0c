"""Sketches of pictures: the library's own hashes of the upright picture over white, and no hash of what is none."""

import io

import imagehash
import numpy as np
import pyarrow as pa
import pytest
from pictures import encode, sample
from PIL import Image

from configs.methods.score import ImageHash
from tasks.embed.decode import decode, decoded
from tasks.score.image_hash import ImageHasher, unpack

PICTURE = Image.fromarray(sample(90, 70))
LIBRARY = {
    "phash": imagehash.phash,
    "dhash": imagehash.dhash,
    "ahash": imagehash.average_hash,
    "whash": lambda picture, hash_size: imagehash.whash(picture, hash_size, image_scale=8 * hash_size),
}


def hashed(images, **settings):
    return ImageHasher(ImageHash(**settings)).run(pa.table({"image": pa.array(images, pa.binary())}))


def noise(seed, side=40):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", LIBRARY)
@pytest.mark.parametrize("size", [8, 16, 32])
def test_a_hash_is_the_librarys_own(name, size):
    result = hashed([encode(noise(1)), encode(PICTURE)], hash=name, hash_size=size)
    config = ImageHash(hash=name, hash_size=size)
    assert config.bits == size**2 and result.table.schema.field(config.column).type == pa.binary(size**2 // 8)
    wanted = [np.packbits(LIBRARY[name](picture, hash_size=size).hash).tobytes() for picture in (noise(1), PICTURE)]
    assert result.table[config.column].to_pylist() == wanted and wanted[0] != wanted[1]


def test_hashes_of_any_length_are_whole_words():
    bits = hashed([encode(noise(1))], hash_size=12).table["phash_144"]
    words = unpack(bits)
    assert words.shape == (1, 3) and words[0, 2] < 1 << 16
    assert words.tobytes()[:18] == bits[0].as_py()


def test_pictures_are_upright_and_over_white():
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    PICTURE.rotate(90, expand=True).save(turned, "PNG", exif=exif)
    hidden = np.dstack([np.asarray(PICTURE), np.full((70, 90), 255, np.uint8)])
    hidden[:, 45:, 3] = 0  # the right half is transparent, whatever colour it has below
    seen = np.asarray(PICTURE).copy()
    seen[:, 45:] = 255
    images = [encode(PICTURE), turned.getvalue(), encode(Image.fromarray(hidden)), encode(Image.fromarray(seen))]
    table = hashed(images).table
    hashes = table["phash_64"].to_pylist()
    assert hashes[0] == hashes[1] and hashes[2] == hashes[3] != hashes[0]
    assert table["width"].to_pylist() == [90] * 4 and table["height"].to_pylist() == [70] * 4


def test_broken_pictures_fail_in_the_words_of_the_embedder():
    good = encode(noise(2))
    jpeg = encode(noise(3, 200), "JPEG")
    images = [good, b"<html>", None, good[:60], jpeg[: len(jpeg) // 2], encode(noise(4, 300)), b""]
    result = hashed(images, max_pixels=50_000)
    assert [(f.row, f.reason) for f in result.failures] == [
        (1, "not_an_image"),
        (3, "truncated_image"),
        (4, "truncated_image"),
        (5, "too_many_pixels"),
        (6, "not_an_image"),
    ]
    for name in result.table.column_names:
        assert [value is not None for value in result.table[name].to_pylist()] == [True] + [False] * 6
    assert set(ImageHash.reasons) >= {failure.reason for failure in result.failures}


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_draft_of_a_jpeg_has_nearly_its_hash_and_tells_its_size(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    blobs = Image.fromarray(np.random.default_rng(5).integers(0, 256, (9, 12, 3), dtype=np.uint8))
    data = encode(blobs.resize((1200, 900), Image.Resampling.BICUBIC), "JPEG", quality=90, exif=exif)
    assert np.prod(decode(data, 10**7).size) == 1200 * 900
    with decoded(data, 10**7, enough=256) as drafted:
        assert sorted(drafted.size) == [450, 600]  # a quarter would be less than enough
    exact, draft = (hashed([data], draft=draft).table for draft in (False, True))
    for name in ("width", "height"):
        assert exact[name] == draft[name]
    assert draft["width"][0].as_py() == (900 if orientation == 6 else 1200)
    assert np.bitwise_count(unpack(exact["phash_64"]) ^ unpack(draft["phash_64"])).sum() <= 2
    broken = hashed([data[: len(data) // 2]])
    assert [failure.reason for failure in broken.failures] == ["truncated_image"]


def test_spread_tells_blank_pictures_from_others():
    line = np.full((200, 200, 3), 255, np.uint8)
    line[100, :] = 200
    clear = np.zeros((50, 50, 4), np.uint8)
    pictures = [Image.new("RGB", (64, 64), "red"), Image.fromarray(clear), Image.fromarray(line), PICTURE]
    spread = hashed([encode(picture) for picture in pictures]).table["phash_64_spread"].to_numpy()
    assert spread[0] == spread[1] == 0 and 0 < spread[2] < 2 < spread[3]


def test_mirrored_hashes_are_those_of_the_mirrored_picture():
    mirrored = PICTURE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    table = hashed([encode(PICTURE), encode(mirrored)], flips=True, hash="dhash").table
    assert table["dhash_64_flips_mirrored"].to_pylist() == table["dhash_64_flips"].to_pylist()[::-1]
    assert ImageHasher(ImageHash(flips=True)).provides == ImageHasher(ImageHash(flips=True)).sketches
    names = {ImageHash(**one).column for one in ({}, {"flips": True}, {"max_pixels": 9}, {"max_pixels": 8})}
    assert len(names) == 4 and ImageHash(draft=False).column == "phash_64"


def test_slices_and_threads_change_nothing():
    images = [encode(noise(i)) if i % 7 else (None if i % 2 else b"x") for i in range(50)]
    table = pa.table({"image": pa.array(images, pa.binary())})
    whole = ImageHasher(ImageHash(decode_threads=1)).run(table)
    slices = iter([table.slice(0, 3), table.slice(3, 0), table.slice(3, 33), table.slice(36)])
    sliced = ImageHasher(ImageHash(decode_threads=4)).run(slices)
    assert sliced.table.equals(whole.table) and sliced.failures == whole.failures and len(whole.failures) == 4
    assert [row for row in range(50) if not whole.table["phash_64"][row].is_valid] == list(range(0, 50, 7))
    assert decode(images[1], 10_000).size == (40, 40)
    assert ImageHash(decode_threads=4).output_fields() == ImageHash().output_fields()


def test_no_rows_have_no_hashes():
    table = hashed([]).table
    assert table.num_rows == 0 and table.schema.field("phash_64").type == pa.binary(8)


def test_wavelets_need_a_power_of_two():
    with pytest.raises(ValueError, match="must be 8, 16 or 32"):
        ImageHash(hash="whash", hash_size=12)
    with pytest.raises(ValueError, match="multiple of 4"):
        ImageHash(hash_size=10)
