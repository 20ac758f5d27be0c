"""Decoding bytes from anywhere."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from tasks.embed.decode import FORMATS, UPRIGHT, TooManyPixels, decode, to_rgb

LIMIT = 1_000_000
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (10, 14, 3), np.uint8)


def encode(image, kind="PNG", **options):
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def pixels(data):
    image = decode(data, LIMIT)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_rgb_is_returned_as_it_is(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(NOISE), kind, **options)), NOISE)


@pytest.mark.parametrize("kind", ["JPEG", "AVIF", "JPEG2000"])
def test_lossy_formats_are_close(kind):
    smooth = Image.fromarray(NOISE).resize((60, 40))
    assert np.abs(pixels(encode(smooth, kind)) - np.asarray(smooth)).mean() < 12


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_opaque_modes_become_rgb(mode):
    image = Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode)
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    assert pixels(encode(image, kind)).min() >= 253


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "La", "PA"])
def test_transparency_lies_over_white(mode):
    image = Image.new("LA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        image.putpixel((x, 0), (40, alpha))
    expected = [255, round(40 * 128 / 255 + 255 * 127 / 255), 40]
    image = image.convert("RGBA").convert(mode) if mode in ("RGBa", "PA") else image.convert(mode)
    np.testing.assert_allclose(np.asarray(to_rgb(image))[0, :, 0], expected, atol=1)
    if mode in ("RGBA", "LA"):
        np.testing.assert_allclose(pixels(encode(image))[0, :, 0], expected, atol=1)


def test_palette_and_grey_with_a_transparent_colour_lie_over_white():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert pixels(encode(palette, transparency=0)).tolist() == [[[255] * 3, [40, 50, 60]]]
    assert pixels(encode(palette, "GIF", transparency=1)).tolist() == [[[10, 20, 30], [255] * 3]]
    grey = Image.fromarray(np.array([[7, 8]], np.uint8))
    assert pixels(encode(grey, transparency=8))[0, :, 0].tolist() == [7, 255]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled(kind):
    grey = Image.fromarray(np.array([[0, 256, 32768, 65535]], np.uint16))
    assert pixels(encode(grey, kind))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_16_bit_colour_and_big_endian_pnm():
    data = b"P5 3 1 65535\n" + np.array([0, 32768, 65535], ">u2").tobytes()
    assert pixels(data)[0, :, 1].tolist() == [0, 128, 255]


def test_numbers_without_a_known_range_are_refused():
    for array in (np.array([[0, 1 << 20]], np.int32), np.array([[0.1, 0.9]], np.float32)):
        with pytest.raises(ValueError, match="pixels"):
            decode(encode(Image.fromarray(array), "TIFF"), LIMIT)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, *UPRIGHT])
def test_pictures_are_turned_upright(kind, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(NOISE), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    np.testing.assert_array_equal(pixels(data), np.asarray(expected))
    assert (pixels(data).shape[:2] == (14, 10)) == (orientation >= 5)


def test_broken_exif_is_no_reason_to_lose_a_picture():
    whole = encode(Image.fromarray(NOISE), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert pixels(whole).shape == (10, 14, 3)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), color) for color in ((200, 0, 0), (0, 200, 0))]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        red, green, _ = pixels(data)[0, 0]
        assert red > 190 and green < 10


def test_multi_picture_jpeg_is_a_jpeg():
    frames = [Image.new("RGB", (8, 8), color) for color in ((200, 0, 0), (0, 200, 0))]
    red, green, _ = pixels(encode(frames[0], "MPO", save_all=True, append_images=frames[1:]))[0, 0]
    assert red > 190 and green < 10


def test_every_allowed_format_is_one_that_pillow_opens():
    Image.init()
    assert set(FORMATS) <= set(Image.OPEN)


def test_one_pixel():
    assert pixels(encode(Image.new("RGB", (1, 1), (1, 2, 3)))).tolist() == [[[1, 2, 3]]]


def claims(width, height):
    """A PNG whose header claims a size and which has no such pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(1001, 1000), (10_000, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_too_many_claimed_pixels_are_refused_before_decoding(size):
    with pytest.raises(TooManyPixels):
        decode(claims(*size), LIMIT)
    assert decode(encode(Image.new("1", (1000, 1000))), LIMIT).size == (1000, 1000)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        encode(Image.fromarray(NOISE))[:-40],
        encode(Image.fromarray(NOISE), "JPEG")[:300],
        claims(3, 3),
        EPS,
        bytes(1000),
    ],
    ids=["empty", "html", "svg", "cut png", "cut jpeg", "no pixels", "eps", "zeros"],
)
def test_what_is_no_picture_is_a_value_error_with_a_reason(data):
    with pytest.raises(ValueError, match=r"\w+Error: .+") as caught:
        decode(data, LIMIT)
    assert not isinstance(caught.value, TooManyPixels)
    assert " at 0x" not in str(caught.value)  # an address would differ from run to run
    assert "KeyError" not in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "JPEG2000", "AVIF", "PPM"])
def test_damaged_bytes_give_a_picture_or_a_value_error(kind):
    whole = np.frombuffer(encode(Image.fromarray(NOISE), kind), np.uint8)
    rng = np.random.default_rng(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(150):
            damaged = whole.copy()
            damaged[rng.integers(0, len(whole), rng.integers(1, 8))] = rng.integers(0, 256)
            try:
                assert decode(damaged[: rng.integers(len(whole) // 2, len(whole) + 1)].tobytes(), LIMIT).mode == "RGB"
            except ValueError:
                pass
