"""Pictures as they come, odd ones and hostile ones, made byte by byte."""

from __future__ import annotations

import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image

LIMIT = 64_000_000
"""Pixels that the hostile ones are made for."""


def encode(image, kind="PNG", **options):
    """The bytes of a picture in one of Pillow's formats."""
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def heic(image, **options):
    """The bytes of a HEIC picture; needs pillow-heif."""
    import pillow_heif

    sink = io.BytesIO()
    pillow_heif.from_pillow(image).save(sink, format="HEIF", quality=options.pop("quality", -1), **options)
    return sink.getvalue()


def sample(width=40, height=24):
    """A smooth picture without symmetry, uint8 (height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x / (width - 1), 255 * y / (height - 1), 100 + 50 * np.sin(x / 9)], 2).astype(np.uint8)


# ------------------------------------------------------------------------------------------- parts of files
def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, body=None, *, bits=8, colour=2, interlace=0, before=b"", after=b""):
    """A PNG of zeros, or of whatever chunks `body` is."""
    if body is None:
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
        body = png_chunk(b"IDAT", zlib.compress(bytes((1 + (width * bits * channels + 7) // 8) * height), 9))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + header + before + body + after + png_chunk(b"IEND", b"")


def png_rows(width, rows, *, bits, colour, before=b""):
    """A PNG of the given raw rows."""
    body = png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return png(width, len(rows), body, bits=bits, colour=colour, before=before)


def jpeg_segment(marker, body=b""):
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg(width, height, *, frame=0xC2, scans=1, refining=False, before=b"", padding=0):
    """A grey JPEG of zeros: progressive scans that skip 32,767 blocks in 15 bits, or arithmetic ones of 4 bytes."""
    data = b"\xff\xd8" + before + jpeg_segment(0xDB, b"\0" + b"\1" * 64)
    data += jpeg_segment(frame, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0")
    data += jpeg_segment(0xC4, b"\0\1" + bytes(15) + b"\0") + jpeg_segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")
    runs = "0" + "1" * 14
    runs *= -(-(-(-width // 8) * -(-height // 8)) // 32_767)
    runs += "1" * (-len(runs) % 8)
    body = (
        bytes(4) if frame in (0xC9, 0xCA) else int(runs, 2).to_bytes(len(runs) // 8, "big").replace(b"\xff", b"\xff\0")
    )
    first, last = (0, 63) if frame in (0xC0, 0xC9) else (1, 63)
    for number in range(scans):
        bits = (0x10 if number else 0x01) if refining else 0
        data += jpeg_segment(0xDA, bytes([1, 1, 0, first, last, bits])) + body
    return data + bytes(padding) + b"\xff\xd9"


def gif(width, height, before=b"", *, frame=(0, 0, 1, 1)):
    data = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + before
    return data + b"," + struct.pack("<HHHHB", *frame, 0) + b"\x02\x02\x4c\x01\0;"


def tiff(tags, data=b"", *, claimed=None, following=0):
    """A little-endian TIFF: `tags` are (number, type 3 or 4, values); `data` comes last."""
    start = 8 + 2 + 12 * len(tags) + 4
    entries = outside = b""
    for tag, kind, values in sorted(tags):
        raw = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        place = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", start + len(outside))
        outside += raw if len(raw) > 4 else b""
        entries += struct.pack("<HHI", tag, kind, len(values)) + place
    head = b"II*\0" + struct.pack("<IH", 8, len(tags) if claimed is None else claimed)
    return head + entries + struct.pack("<I", following) + outside + data


def tiff_tags(width, height, *, compression=1, bits=8, samples=1):
    shape = [(256, 4, [width]), (257, 4, [height]), (258, 3, [bits]), (259, 3, [compression])]
    return [*shape, (262, 3, [1]), (277, 4, [samples])]


def tiff_strips(width, height, offsets, sizes, *, rows=None, **options):
    tags = [(273, 4, offsets), (278, 4, [rows or height]), (279, 4, sizes)]
    return tiff(tiff_tags(width, height, **options) + tags, bytes(64))


def tiff_tiles(width, height, side, count=1, **options):
    tags = [(322, 4, [side]), (323, 4, [side]), (324, 4, [8] * count), (325, 4, [64] * count)]
    return tiff(tiff_tags(width, height, **options) + tags, bytes(64))


def big_tiff(entries):
    body = b"".join(struct.pack("<HHQQ", 300 + i % 60_000, 1, 1, 0) for i in range(entries))
    return b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, entries) + body


def bmp(width, height, compression, body, bits=8):
    head = b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024)
    shape = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(body), 0, 0, 256, 0)
    return head + shape + bytes(range(256)) * 4 + body


def riff(*chunks):
    body = b"".join(kind + struct.pack("<I", len(data)) + data + bytes(len(data) & 1) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def webp_canvas(width, height, frames=1, padding=0):
    """An animated WebP with a canvas of a size and frames of one pixel."""
    whole = encode(Image.new("RGB", (1, 1)), "WEBP", lossless=True)
    pixel = whole[12 : 20 + struct.unpack_from("<I", whole, 16)[0]]
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    frame = bytes(12) + b"\1\0\0\0" + pixel + bytes(len(pixel) & 1)
    chunks = [(b"VP8X", b"\2\0\0\0" + size), (b"ANIM", bytes(6)), *[(b"ANMF", frame)] * frames]
    return riff(*chunks, (b"PADD", bytes(padding)))


def webp_lossless(width, height, padding=100):
    return riff((b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(padding)))


def codestream(width, height, *, tile=None, block=4, precinct=None, levels=5, layers=1, components=3, padding=4000):
    """A JPEG 2000 codestream of nothing: sides of tiles, exponents of code blocks less 2, precincts as two exponents."""
    tile = tile or max(width, height)
    size = struct.pack(">HIIIIIIIIH", 0, width, height, 0, 0, tile, tile, 0, 0, components) + b"\7\1\1" * components
    style = struct.pack(">BBHBBBBBB", precinct is not None, 0, layers, 0, levels, block, block, 0, 1)
    style += b"" if precinct is None else bytes([precinct]) * (levels + 1)
    data = b"\xff\x4f" + jpeg_segment(0x51, size) + jpeg_segment(0x52, style)
    data += jpeg_segment(0x5C, b"\x20" + b"\x48" * (3 * levels + 1))
    return data + jpeg_segment(0x90, struct.pack(">HIBB", 0, 0, 0, 1)) + b"\xff\x93" + bytes(padding) + b"\xff\xd9"


def with_claim(data, width, height):
    """An AVIF or HEIC file whose container claims another size; what is coded stays as it is."""
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


# -------------------------------------------------------------------------------------------------- odd pictures
class Odd(NamedTuple):
    """A picture that a person would see as `pixels`, uint8 (height, width, 3), give or take `tolerance` on average."""

    data: bytes
    pixels: np.ndarray
    tolerance: float = 0


def over_white(pixels, alpha):
    """What is seen of pixels (h, w, 3) with opacities (h, w) from 0 to 255 on white paper."""
    share = alpha[..., None] / 255
    return np.rint(pixels * share + 255 * (1 - share)).astype(np.uint8)


def odd_pictures():
    """Name -> picture, each of them to be embedded."""
    seen = sample()
    height, width = seen.shape[:2]
    rgb = Image.fromarray(seen)
    grey = np.asarray(rgb.convert("L"))
    grey_rgb = np.repeat(grey[..., None], 3, 2)
    alpha = np.linspace(0, 255, width).astype(np.uint8)[None].repeat(height, 0)
    rgba = Image.fromarray(np.dstack([seen, alpha]))
    palette = rgb.quantize(32)
    flat = np.asarray(palette.convert("RGB"))
    bits = np.asarray(rgb.convert("1"))
    deep = (grey.astype(np.uint16) << 8) + 77
    cmyk = rgb.convert("CMYK")
    printed = np.asarray(cmyk.convert("RGB"))
    frames = {"save_all": True, "append_images": [Image.new("RGB", (width, height), (0, 0, 255))]}

    odd = {
        "RGB PNG": Odd(encode(rgb), seen),
        "grey": Odd(encode(rgb.convert("L")), grey_rgb),
        "grey with alpha": Odd(encode(Image.fromarray(np.dstack([grey, alpha]))), over_white(grey_rgb, alpha), 0.6),
        "RGBA": Odd(encode(rgba), over_white(seen, alpha), 0.6),
        "RGBA WebP": Odd(encode(rgba, "WEBP", lossless=True, exact=True), over_white(seen, alpha), 0.6),
        "RGBA TIFF": Odd(encode(rgba, "TIFF"), over_white(seen, alpha), 0.6),
        "palette": Odd(encode(palette), flat),
        "one bit": Odd(encode(rgb.convert("1")), np.repeat(bits[..., None], 3, 2).astype(np.uint8) * 255),
        "CMYK JPEG (Adobe)": Odd(encode(cmyk, "JPEG", quality=100), printed, 3),
        "CMYK TIFF": Odd(encode(cmyk, "TIFF"), printed),
        "progressive JPEG": Odd(encode(rgb, "JPEG", quality=100, progressive=True, subsampling=0), seen, 2),
        "grey JPEG": Odd(encode(rgb.convert("L"), "JPEG", quality=100), grey_rgb, 1),
        "16-bit grey PNG": Odd(encode(Image.fromarray(deep)), grey_rgb, 1),
        "16-bit grey TIFF": Odd(encode(Image.fromarray(deep), "TIFF"), grey_rgb, 1),
        "16-bit grey TIFF, big-endian": Odd(encode(Image.fromarray(deep.astype(">u2")), "TIFF"), grey_rgb, 1),
        "16-bit RGB PNG": Odd(
            png_rows(width, [(row.astype(">u2") * 257).tobytes() for row in seen], bits=16, colour=2), seen
        ),
        "float TIFF": Odd(encode(Image.fromarray((grey / 255).astype(np.float32)), "TIFF"), grey_rgb),
        "float TIFF to 255": Odd(encode(Image.fromarray(grey.astype(np.float32)), "TIFF"), grey_rgb),
        "fax TIFF": Odd(
            encode(rgb.convert("1"), "TIFF", compression="group4"),
            np.repeat(bits[..., None], 3, 2).astype(np.uint8) * 255,
        ),
        "JPEG in TIFF": Odd(encode(rgb, "TIFF", compression="jpeg", quality=100), seen, 8),
        "deflated TIFF": Odd(encode(rgb, "TIFF", compression="tiff_adobe_deflate"), seen),
        "tiled TIFF with many pages": Odd(encode(rgb, "TIFF", compression="tiff_lzw", **frames), seen),
        "animated GIF": Odd(encode(rgb, "GIF", **frames), seen, 12),
        "animated WebP": Odd(encode(rgb, "WEBP", lossless=True, **frames), seen, 0.5),
        "animated PNG": Odd(encode(rgb, "PNG", **frames), seen),
        "animated AVIF": Odd(encode(rgb, "AVIF", quality=95, **frames), seen, 5),
        "AVIF": Odd(encode(rgb, "AVIF", quality=95, subsampling="4:4:4"), seen, 3),
        "AVIF with alpha": Odd(encode(rgba, "AVIF", quality=100, subsampling="4:4:4"), over_white(seen, alpha), 4),
        "JPEG 2000": Odd(encode(rgb, "JPEG2000"), seen),
        "JPEG 2000 codestream": Odd(encode(rgb, "JPEG2000", no_jp2=True), seen),
        "MPO": Odd(encode(rgb, "MPO", quality=95, subsampling=0, **frames), seen, 3),
        "BMP": Odd(encode(rgb, "BMP"), seen),
        "PPM": Odd(encode(rgb, "PPM"), seen),
        "1 x 1": Odd(encode(Image.new("RGB", (1, 1), (1, 2, 3))), np.full((1, 1, 3), (1, 2, 3), np.uint8)),
        "1 x 30000": Odd(png(1, 30_000, colour=0), np.zeros((30_000, 1, 3), np.uint8)),
        "30000 x 2": Odd(png(30_000, 2, colour=0), np.zeros((2, 30_000, 3), np.uint8)),
    }
    return odd | _see_through()


def _see_through():
    """PNGs with one colour, or some entries of a palette, made transparent."""
    colour = png_chunk(b"tRNS", struct.pack(">H", 1))
    palette = png_chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60, 70, 80, 90]))
    white = [255] * 3
    cases = {
        "1-bit grey, a colour transparent": (png_rows(2, [b"\x40"], bits=1, colour=0, before=colour), [[0] * 3, white]),
        "2-bit grey, a colour transparent": (
            png_rows(4, [b"\x1b"], bits=2, colour=0, before=colour),
            [[0] * 3, white, [170] * 3, white],
        ),
        "4-bit grey, a colour transparent": (
            png_rows(2, [b"\x12"], bits=4, colour=0, before=colour),
            [white, [34] * 3],
        ),
        "8-bit grey, a colour transparent": (png_rows(2, [b"\1\2"], bits=8, colour=0, before=colour), [white, [2] * 3]),
        "16-bit grey, a colour transparent": (
            png_rows(2, [b"\0\1\x80\0"], bits=16, colour=0, before=colour),
            [white, [128] * 3],
        ),
        "RGB, a colour transparent": (
            png_rows(
                2, [bytes([1, 2, 3, 4, 5, 6])], bits=8, colour=2, before=png_chunk(b"tRNS", bytes([0, 4, 0, 5, 0, 6]))
            ),
            [[1, 2, 3], white],
        ),
        "16-bit RGB, a colour transparent": (
            png_rows(2, [bytes(range(1, 13))], bits=16, colour=2, before=png_chunk(b"tRNS", bytes(range(7, 13)))),
            [[1, 3, 5], white],
        ),
        "palette, entries transparent": (
            png_rows(3, [b"\0\1\2"], bits=8, colour=3, before=palette + png_chunk(b"tRNS", b"\0\x80")),
            [white, [147, 152, 157], [70, 80, 90]],
        ),
        "palette, one entry transparent": (
            png_rows(2, [b"\0\1"], bits=8, colour=3, before=palette + png_chunk(b"tRNS", b"\xff\0")),
            [[10, 20, 30], white],
        ),
    }
    return {name: Odd(data, np.array([pixels], np.uint8)) for name, (data, pixels) in cases.items()}


def turned(kind, orientation, **options):
    """`sample` with an EXIF orientation, and as it is to be seen."""
    turns = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, -1),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = heic(Image.fromarray(sample()), exif=exif.tobytes()) if kind == "HEIF" else None
    data = data or encode(Image.fromarray(sample()), kind, exif=exif, **options)
    return Odd(data, turns[orientation](sample()))


# ---------------------------------------------------------------------------------------------- hostile pictures
HTML = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>Not found</body></html>"
PAGES = {
    "nothing": b"",
    "web page": HTML,
    "web page after a byte order mark": b"\xef\xbb\xbf\r\n" + HTML,
    "JSON error": b'{"error": {"code": 403, "message": "Forbidden"}}',
    "JSON list": b'[{"a": 1}]',
    "XML error": b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>",
    "plain text": b"Too many requests\n",
    "text like a Netpbm": b"Python is not a picture",
    "text like a BMP": b"BMW sells cars, not pixels, and more of them",
    "zeros": bytes(1000),
    "noise": np.random.default_rng(5).integers(0, 256, 5000, np.uint8).tobytes(),
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n",
    "PDF": b"%PDF-1.7\n%\xe2\xe3",
    "zip": b"PK\x03\x04" + bytes(100),
    "gzip": b"\x1f\x8b\x08\0" + bytes(100),
    "video": b"\0\0\0\x20ftypisom" + bytes(100),
}
DRAWINGS = {
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "SVG with a head": b"<?xml version='1.0'?>\n<!-- made by hand -->\n<svg/>",
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
    "Photoshop": b"8BPS\0\1" + bytes(100),
    "icon": b"\0\0\1\0\1\0" + bytes(100),
    "JPEG XL": b"\xff\x0a" + bytes(100),
    "QOI": b"qoif" + struct.pack(">IIBB", 8, 8, 3, 0),
}


def _endless_deflate(size):
    return zlib.compress(bytes(size), 9)


def hostile():
    """Name -> (bytes, the reason they are to be refused for), at `LIMIT` pixels."""
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(25 * 8)))
    bomb, small = _endless_deflate(30_000_000), _endless_deflate(1_000_000)
    cases = {name: (data, "not_an_image") for name, data in PAGES.items()}
    cases |= {name: (data, "unsupported_image") for name, data in DRAWINGS.items()}
    claims = {
        "PNG": png(30_000, 40_000, b""),
        "PNG, most": png(2**31 - 1, 2**31 - 1, b""),
        "JPEG": jpeg(65_535, 65_535),
        "GIF": gif(65_535, 65_535),
        "GIF, frame": gif(8, 8, frame=(60_000, 60_000, 5000, 5000)),
        "WebP": webp_lossless(16_383, 16_383),
        "WebP, under Pillow's limit": webp_lossless(13_000, 13_000, 100_000),
        "WebP, canvas": webp_canvas(13_000, 13_000, padding=100_000),
        "TIFF": tiff_strips(100_000, 100_000, [8], [64]),
        "TIFF, most": tiff_strips(2**32 - 1, 2**32 - 1, [8], [64]),
        "BMP": bmp(30_000, 30_000, 0, b""),
        "PPM": b"P6 50000 50000 255\n",
        "JPEG 2000": codestream(100_000, 100_000),
        "AVIF": with_claim(encode(Image.new("RGB", (16, 16)), "AVIF"), 16_000, 16_000),
        "PNG, just over": png(8_000, 8_001, b""),
    }
    cases |= {f"gigapixels: {name}": (data, "too_many_pixels") for name, data in claims.items()}
    hollow = {
        "PNG": png(8_000, 7_500, png_chunk(b"IDAT", zlib.compress(bytes(1000)))),
        "PNG, interlaced": png(8_000, 7_500, png_chunk(b"IDAT", bytes(1000)), interlace=1),
        "PNG, many small chunks": png(8_000, 7_500, png_chunk(b"IDAT", b"x") * 1000),
        "JPEG": jpeg(8_000, 8_000),
        "JPEG, arithmetic": jpeg(8_000, 8_000, frame=0xC9),
        "GIF": gif(8_000, 8_000),
        "WebP": webp_lossless(8_000, 8_000),
        "WebP, canvas": webp_canvas(8_000, 8_000),
        "TIFF": tiff_strips(8_000, 8_000, [8], [64], compression=4, bits=1),
        "JPEG 2000": codestream(8_000, 8_000, padding=100),
    }
    cases |= {f"hollow: {name}": (data, "image_bomb") for name, data in hollow.items()}
    blown = {
        "PNG: profile that inflates": png(8, 8, pixels, before=png_chunk(b"iCCP", b"p\0\0" + bomb)),
        "PNG: text that inflates": png(8, 8, pixels, before=png_chunk(b"zTXt", b"k\0\0" + bomb)),
        "PNG: international text that inflates": png(8, 8, pixels, after=png_chunk(b"iTXt", b"k\0\1\0\0\0" + bomb)),
        "PNG: a thousand profiles": png(8, 8, pixels, before=png_chunk(b"iCCP", b"p\0\0" + small) * 1000),
        "PNG: a thousand texts": png(8, 8, pixels, after=png_chunk(b"zTXt", b"\0\0" + small) * 1000),
        "PNG: 20 MB of text": png(8, 8, pixels, before=png_chunk(b"tEXt", b"k\0" + bytes(20_000_000))),
        "PNG: a million chunks": png(8, 8, pixels, before=png_chunk(b"abCd", b"") * 1_000_000),
        "JPEG: thousands of scans": jpeg(1_000, 1_000, scans=4_000),
        "JPEG: scans over many pixels": jpeg(8_000, 8_000, scans=100, refining=True, padding=200_000),
        "JPEG: a million comments": jpeg(8, 8, before=jpeg_segment(0xFE) * 1_000_000),
        "JPEG: thousands of EXIF blocks": jpeg(8, 8, before=jpeg_segment(0xE1, b"Exif\0\0" + bytes(900)) * 4_000),
        "JPEG: 10 MB of filling": jpeg(8, 8, before=b"\xff" * 10_000_000),
        "JPEG: 10 MB of junk": jpeg(8, 8, before=b"\xff\xfe\0\2" + b"a" * 10_000_000),
        "GIF: millions of comments": gif(8, 8, b"!\xfe" + b"\1a" * 5_000_000 + b"\0"),
        "GIF: 10 MB of junk": gif(8, 8, b"\1" * 10_000_000),
        "TIFF: a million strips": tiff_strips(8, 1_000_000, [8] * 1_000_000, [8] * 1_000_000, rows=1),
        "TIFF: tiles larger than the picture": tiff_tiles(10, 10, 30_000, compression=5),
        "TIFF: a million tags": big_tiff(1_000_000),
        "JPEG 2000: tiles of one pixel": codestream(255, 255, tile=1),
        "JPEG 2000: code blocks of 4 pixels": codestream(2_000, 2_000, block=0),
        "JPEG 2000: precincts of 2 pixels": codestream(2_000, 2_000, precinct=0x11),
        "JPEG 2000: precincts of 2 pixels in a thin picture": codestream(208, 2_000, tile=2_000, precinct=0x11),
        "JPEG 2000: 65,535 layers": codestream(2_000, 2_000, layers=65_535, levels=32),
        "PPM: a million comments": b"P3 500 500 255\n" + b"#\n" * 1_000_000 + b"1 " * 750_000,
    }
    cases |= {name: (data, "image_bomb") for name, data in blown.items()}
    cases |= {
        "BMP: runs of 36 megapixels": (bmp(6_000, 6_000, 1, b"\1\1\0\0" * 6_000), "too_many_pixels"),
        "PPM: 9 megapixels of text": (b"P3 3000 3000 255\n" + b"1 " * 1000, "too_many_pixels"),
        "PPM: 9 megapixels to scale": (b"P6 3000 3000 254\n" + bytes(1000), "too_many_pixels"),
        "PPM: 10 MB of comment": (b"P6 #" + b"a" * 10_000_000 + b"\n8 8 255\n" + bytes(192), "undecodable_image"),
        "TIFF: a loop of directories": (tiff(tiff_tags(10, 10), following=8), "unsupported_image"),
        "TIFF: old fax": (tiff_strips(8, 8_000, [8], [64], compression=3, bits=1), "unsupported_image"),
        "TIFF: 64-bit numbers": (tiff_strips(8, 8, [8], [64], bits=64), "unsupported_image"),
        "JPEG: 12 bits": (jpeg(8, 8).replace(b"\xff\xc2\0\x0b\x08", b"\xff\xc2\0\x0b\x0c"), "unsupported_image"),
        "JPEG 2000: 5 components": (codestream(8, 8, components=5), "unsupported_image"),
        "TIFF: a million samples a pixel": (tiff_strips(8, 8, [8], [64], samples=10**6), "unsupported_image"),
        "PNG: no pixels": (png(3, 3, png_chunk(b"IDAT", zlib.compress(b""))), "truncated_image"),
        "PNG: only its head": (png(8_000, 7_500, png_chunk(b"IDAT", bomb))[:5_000], "truncated_image"),
        "JPEG: only its head": (jpeg(8_000, 8_000)[:-2], "truncated_image"),
    }
    return cases
