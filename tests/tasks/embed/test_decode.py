"""Decoding pictures as they come: every odd kind as a person would see it."""

import importlib.metadata
import io
import itertools
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from pictures import DRAWINGS, LIMIT, PAGES, Odd, encode, heic, odd_pictures, png, sample, tiff_strips, turned
from PIL import Image, ImageFile

from tasks.embed.decode import CHECKS, ROOM, UPRIGHT, _quiet, decode, decoded, to_rgb
from tasks.embed.images import formats
from tasks.embed.images.limits import Room
from tasks.embed.reasons import REASONS, BadImage

NOISE = np.random.default_rng(0).integers(0, 256, (10, 14, 3), np.uint8)
LOSSLESS = {"WEBP": {"lossless": True}, "GIF": {}, "JPEG2000": {}, "PNG": {}, "BMP": {}, "TIFF": {}, "PPM": {}}
ODD = odd_pictures()


def pixels(data):
    picture = decode(data, LIMIT)
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def check(odd: Odd):
    seen = pixels(odd.data)
    assert seen.shape == odd.pixels.shape
    assert np.abs(seen - odd.pixels).mean() <= odd.tolerance


def reason(data, limit=LIMIT):
    with pytest.raises(BadImage) as caught:
        decode(data, limit)
    assert caught.value.reason in REASONS
    assert " at 0x" not in str(caught.value)  # an address would differ from run to run
    assert 0 < len(str(caught.value)) <= 400
    return caught.value.reason


@pytest.mark.parametrize("name", ODD)
def test_odd_pictures_are_seen_as_a_person_sees_them(name):
    check(ODD[name])


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000"])
def test_noise_without_loss_is_returned_as_it_is(kind):
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(NOISE), kind, **LOSSLESS[kind])), NOISE)


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "La", "PA"])
def test_transparency_lies_over_white(mode):
    image = Image.new("LA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        image.putpixel((x, 0), (40, alpha))
    expected = [255, round(40 * 128 / 255 + 255 * 127 / 255), 40]
    image = image.convert("RGBA").convert(mode) if mode in ("RGBa", "PA") else image.convert(mode)
    np.testing.assert_allclose(np.asarray(to_rgb(image))[0, :, 0], expected, atol=1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled(kind):
    grey = Image.fromarray(np.array([[0, 256, 32768, 65535]], np.uint16))
    assert pixels(encode(grey, kind))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_numbers_are_scaled_alike_in_all_rows():
    grey = np.arange(600, dtype=np.uint16).repeat(3).reshape(600, 3) * 100
    assert pixels(encode(Image.fromarray(grey)))[:, 1, 1].tolist() == [round(v * 100 * 255 / 65535) for v in range(600)]


def test_16_bit_pnm_is_big_endian():
    data = b"P5 3 1 65535\n" + np.array([0, 32768, 65535], ">u2").tobytes()
    assert pixels(data)[0, :, 1].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    "numbers",
    [
        np.int32([[0, 1 << 20]]),
        np.int32([[-1, 5]]),
        np.float32([[0, 1e9]]),
        np.float32([[-0.1, 1]]),
        np.float32([[np.nan]]),
    ],
    ids=["large", "negative", "large float", "negative float", "NaN"],
)
def test_numbers_without_a_known_range_are_refused(numbers):
    assert reason(encode(Image.fromarray(numbers), "TIFF")) == "unsupported_image"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", [1, *UPRIGHT])
def test_pictures_are_turned_upright(kind, orientation):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif")
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind in ("JPEG", "AVIF") else {}
    odd = turned(kind, orientation, **options)
    check(odd._replace(tolerance=0 if kind in ("PNG", "TIFF") else 4))
    assert (odd.pixels.shape[:2] == (40, 24)) == (orientation >= 5)


def test_broken_exif_is_no_reason_to_lose_a_picture():
    whole = encode(Image.fromarray(NOISE), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert pixels(whole).shape == (10, 14, 3)


def test_the_name_and_order_of_formats_change_nothing():
    """Bytes alone say what they are: a PNG named .jpg is a PNG."""
    assert {formats.image_format(odd.data) for odd in ODD.values()} == {*CHECKS}
    Image.init()
    assert set(CHECKS) <= set(Image.OPEN)


# --------------------------------------------------------------------------------------------------------- HEIC
def test_heic():
    pytest.importorskip("pillow_heif")
    seen = sample()
    check(Odd(heic(Image.fromarray(seen)), seen, 3))
    alpha = np.full(seen.shape[:2], 128, np.uint8)
    over = (seen * (128 / 255) + 255 * (127 / 255)).astype(np.uint8)
    check(Odd(heic(Image.fromarray(np.dstack([seen, alpha]))), over, 3))
    assert reason(heic(Image.fromarray(seen)), 24 * 40 - 1) == "too_many_pixels"


def test_heic_is_read_by_many_threads_at_once_and_registers_nothing_with_pillow():
    """In a clean process, where the first pictures race for the import."""
    pytest.importorskip("pillow_heif")
    code = (
        "import sys, threading\n"
        "from PIL import Image\n"
        "from tasks.embed.decode import decode\n"
        "data = sys.stdin.buffer.read()\n"
        "Image.init()\n"
        "before, sizes = (list(Image.ID), dict(Image.OPEN), dict(Image.EXTENSION)), []\n"
        "threads = [threading.Thread(target=lambda: sizes.append(decode(data, 10**6).size)) for _ in range(16)]\n"
        "[thread.start() for thread in threads], [thread.join() for thread in threads]\n"
        "assert sizes == [(40, 24)] * 16, sizes\n"
        "assert before == (list(Image.ID), dict(Image.OPEN), dict(Image.EXTENSION))\n"
    )
    subprocess.run([sys.executable, "-c", code], input=heic(Image.fromarray(sample())), check=True, timeout=60)


def test_without_its_reader_heic_says_which_package_it_needs(monkeypatch):
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(BadImage, match="pillow-heif") as caught:
        decode(data, LIMIT)
    assert caught.value.reason == "unsupported_image"


def test_the_reader_of_heic_is_part_of_the_fingerprint_where_it_is_installed(monkeypatch):
    from configs.methods.embed import OpenClip
    from tasks.embed.open_clip import OpenClipEmbedder

    found = importlib.metadata.distributions
    assert ("pillow-heif" in OpenClipEmbedder(OpenClip()).libraries) == any(found(name="pillow-heif"))
    monkeypatch.setattr(importlib.metadata, "distributions", lambda **_: iter(()))
    assert OpenClipEmbedder(OpenClip()).libraries == ("torch", "open_clip_torch", "pillow", "torchvision")


# ------------------------------------------------------------------------------------------------- not pictures
@pytest.mark.parametrize("name", PAGES)
def test_pages_are_no_pictures(name):
    assert reason(PAGES[name]) == "not_an_image"


@pytest.mark.parametrize("name", DRAWINGS)
def test_other_pictures_are_named(name):
    assert reason(DRAWINGS[name]) == "unsupported_image"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "JPEG2000", "AVIF", "PPM", "HEIF"])
def test_every_cut_is_called_truncated_or_loses_no_pixel(kind):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif")
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8)).resize((120, 90))
    whole = heic(image, quality=60) if kind == "HEIF" else encode(image, kind)
    expected = pixels(whole)
    for share in np.linspace(0.1, 0.999, 40):
        cut = whole[: int(len(whole) * share)]
        try:
            np.testing.assert_array_equal(pixels(cut), expected)
        except BadImage as error:
            assert error.reason == "truncated_image"


def test_a_file_without_its_end_but_with_all_its_pixels_is_a_picture():
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(NOISE))[:-12]), NOISE)  # no IEND
    whole = encode(Image.fromarray(NOISE), "JPEG")
    np.testing.assert_array_equal(pixels(whole + b"trailing bytes"), pixels(whole))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF", "JPEG2000"])
def test_damage_is_told_apart_from_a_cut(kind):
    options = {"compression": "tiff_adobe_deflate"} if kind == "TIFF" else {}
    whole = bytearray(encode(Image.fromarray(NOISE), kind, **options))
    start = {"PNG": b"IDAT", "WEBP": b"VP8 ", "AVIF": b"mdat", "JPEG2000": b"jp2c", "TIFF": b"\x78\x9c"}[kind]
    at = whole.index(start) + len(start) + (14 if kind == "WEBP" else 0)  # past the size of a frame
    whole[at : at + 12] = b"\x55" * 12
    assert reason(bytes(whole)) == "undecodable_image"


# ------------------------------------------------------------------------------------- leaving the process alone
def test_warnings_change_nothing_and_are_not_heard(monkeypatch):
    """Broken EXIF makes Pillow warn, and large pictures do; whoever turns warnings into errors keeps the rows."""
    cases = {
        "exif": encode(Image.fromarray(NOISE), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"),
        "tiff": tiff_strips(8, 8, [8, 8], [64], rows=8),
        "apng": png(8, 8, before=b"\0\0\0\x08acTL" + bytes(8) + b"\xe0\xaf\x99\x15"),
        "large": encode(Image.fromarray(NOISE)),
    }
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", NOISE[..., 0].size - 1)
    for name, data in cases.items():
        seen = []
        for action in ("ignore", "error", "always"):
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter(action)
                try:
                    seen.append(decode(data, 10**8).tobytes())
                except BadImage as error:
                    seen.append(error.reason)
            assert not heard, name
        assert seen[0] == seen[1] == seen[2], name


def test_other_threads_hear_their_warnings_while_one_decodes():
    started, done = threading.Event(), threading.Event()

    def hold():
        with _quiet():
            started.set()
            done.wait(20)
            warnings.warn("not heard", UserWarning, stacklevel=1)

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        thread = threading.Thread(target=hold)
        thread.start()
        started.wait(20)
        warnings.warn("mine", UserWarning, stacklevel=1)
        done.set()
        thread.join()
        warnings.warn("later", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in heard] == ["mine", "later"]


def test_pillow_keeps_its_settings():
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    for odd in itertools.islice(ODD.values(), 10):
        decode(odd.data, LIMIT)
    reason(encode(Image.fromarray(NOISE))[:-40])
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == before == (89_478_485, False)


def test_the_picture_is_a_plain_one_and_its_bytes_may_be_closed():
    for odd in itertools.islice(ODD.values(), 6):
        assert type(decode(odd.data, LIMIT)) is Image.Image


# -------------------------------------------------------------------------------------------------------- memory
def test_room_lets_in_what_fits_and_a_giant_alone():
    room, inside, most = Room(100), [], []
    lock = threading.Lock()

    def visit(pixels):
        with room.take(pixels):
            with lock:
                inside.append(pixels)
                most.append(list(inside))
            barrier.wait(0.02)
            with lock:
                inside.remove(pixels)

    class barrier:
        @staticmethod
        def wait(seconds):
            threading.Event().wait(seconds)

    threads = [threading.Thread(target=visit, args=(pixels,)) for pixels in (30, 60, 500, 40, 10, 100, 70) * 3]
    [thread.start() for thread in threads]
    [thread.join(30) for thread in threads]
    assert len(most) == 21 and not inside
    assert all(sum(together) <= 100 or together == [500] for together in most)
    assert max(map(len, most)) > 1


def test_room_is_given_back_after_an_error():
    with pytest.raises(KeyError), decoded(encode(Image.fromarray(NOISE)), LIMIT):
        assert ROOM._taken == NOISE[..., 0].size
        raise KeyError("the caller's own")
    reason(encode(Image.fromarray(NOISE))[:-40])
    assert ROOM._taken == 0


def test_every_reason_says_what_to_do():
    for word, entry in REASONS.items():
        assert word.islower() and " " not in word
        assert entry.meaning.endswith(".") and entry.remedy.endswith(".")


def test_damaged_bytes_of_any_format_give_a_picture_or_a_reason():
    rng = np.random.default_rng(7)
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "JPEG2000", "AVIF", "PPM"):
        whole = np.frombuffer(encode(Image.fromarray(NOISE), kind), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            damaged[rng.integers(0, len(whole), rng.integers(1, 8))] = rng.integers(0, 256)
            data = io.BytesIO(damaged[: rng.integers(len(whole) // 2, len(whole) + 1)].tobytes()).getvalue()
            try:
                assert decode(data, LIMIT).mode == "RGB"
            except BadImage as error:
                assert error.reason in REASONS
