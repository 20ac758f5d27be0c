"""Cheap looks at how PNG, JPEG, GIF, WebP, BMP and PPM files are built, before decoders that cannot be stopped run.

Each `check_*` raises `BadImage` for a file that would take seconds or gigabytes whatever its size in pixels. (PNG, ISO
15948; JPEG, ITU T.81; GIF89a; WebP, RFC 9649; BMP; Netpbm.)
"""

from __future__ import annotations

import re
import struct

from tasks.embed.images.limits import FREE_PIXELS, SLOW_PIXELS, Hollow, check_count, check_ratio, check_size
from tasks.embed.reasons import BadImage

DEFLATE_RATIO = 1032
"""Bytes that one byte of deflate can become."""
PNG_CHUNKS = 100_000
PNG_COMPRESSED_CHUNKS = 32
"""Compressed texts and profiles, each of which Pillow inflates to up to 1 MB."""
PNG_TEXT_BYTES = 16_000_000

JPEG_SEGMENTS = 5_000
JPEG_EXIF_SEGMENTS = 64
JPEG_JUNK = 65_536
JPEG_SCANS = 1_000
JPEG_SCANNED_PIXELS = 4_000_000_000
"""Pixels times scans: a progressive scan of a few bytes makes the decoder visit every pixel, at about 1 ns each."""
HUFFMAN_PIXELS_PER_BYTE = 512
"""A Huffman-coded block of 64 pixels takes a bit at least."""

GIF_BLOCKS = 100_000
PPM_COMMENTS = 1_000

_marker = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_frames = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_progressive = {0xC2, 0xC6, 0xCA, 0xCE}
_arithmetic = {*range(0xC9, 0xD0)}
_ppm_number = rb"(?:\s|#[^\r\n]*[\r\n])+(\d{1,9})"
_ppm_header = re.compile(rb"P([1-6])" + 2 * _ppm_number + rb"(?:" + _ppm_number + rb")?")
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def check_png(data: bytes, max_pixels: int) -> None:
    """Chunks, and whether their deflated bytes can hold the pixels."""
    at, chunks, compressed, text, pixel_bytes, kind = 8, 0, 0, 0, 0, b""
    while at + 8 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IDAT":
            pixel_bytes += min(length, len(data) - at - 8)
        elif kind in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            text += length
            compressed += kind != b"tEXt"
        at += 12 + length
        chunks += 1
        check_count(chunks, PNG_CHUNKS, "chunks")
    check_count(compressed, PNG_COMPRESSED_CHUNKS, "compressed texts and profiles")
    check_count(text, PNG_TEXT_BYTES, "bytes of text")
    if len(data) >= 26 and data[12:16] == b"IHDR":
        width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
        check_size(width, height, max_pixels)
        row = 1 + (width * bits * _PNG_CHANNELS.get(colour, 1) + 7) // 8
        if width * height > FREE_PIXELS and row * height > DEFLATE_RATIO * (pixel_bytes + 1):
            raise Hollow(width * height, pixel_bytes)


def check_jpeg(data: bytes, max_pixels: int) -> None:
    """Segments, junk between them, and the passes over the pixels that the scans ask for."""
    at, segments, exif, scans, pixels, components, frame = 2, 0, 0, 0, 0, 0, 0
    while found := _marker.search(data, at):
        check_count(0 if scans else found.start() - at, JPEG_JUNK, "bytes between segments")
        segments += 1
        check_count(segments, JPEG_SEGMENTS, "segments")
        kind, at = data[found.start() + 1], found.end()
        if kind == 0xD9 and scans:
            break
        if kind in (0xD8, 0xD9):
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if kind in _frames and len(data) >= at + 8:
            bits, height, width, components = struct.unpack_from(">BHHB", data, at + 2)
            if bits != 8 or components not in (1, 3, 4):
                raise BadImage("unsupported_image", f"{components} components of {bits} bits; 1, 3 or 4 of 8 are read")
            frame, pixels = kind, width * height
            check_size(width, height, max_pixels)
            if kind not in _arithmetic:
                check_ratio(pixels, data, HUFFMAN_PIXELS_PER_BYTE)
        elif kind == 0xDA and len(data) > at + 2:
            scans += 1
            check_count(scans, JPEG_SCANS, "scans")
            check_count(scans * pixels, JPEG_SCANNED_PIXELS, f"pixels to visit in {scans} scans")
            if frame not in _progressive and data[at + 2] == components:
                break  # one scan holds everything
        exif += kind == 0xE1 and data[at + 2 : at + 6] == b"Exif"
        check_count(exif, JPEG_EXIF_SEGMENTS, "EXIF segments")
        at += length
    check_count(0 if scans else len(data) - at, JPEG_JUNK, "bytes between segments")


def check_gif(data: bytes, max_pixels: int) -> None:
    """Blocks before the first frame, and the size of the screen that it is drawn on."""
    if len(data) < 13:
        return
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    check_size(width, height, max_pixels)
    at, blocks = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0), 0
    while at + 9 < len(data) and data[at] != 0x3B:
        if data[at] == 0x2C:
            left, top, wide, high = struct.unpack_from("<HHHH", data, at + 1)
            check_size(max(width, left + wide), max(height, top + high), max_pixels)
            return
        if data[at] == 0x21:
            at += 2
            while at < len(data) and data[at]:
                at += 1 + data[at]
                blocks += 1
                check_count(blocks, GIF_BLOCKS, "blocks before the first frame")
        at += 1
        blocks += 1
        check_count(blocks, GIF_BLOCKS, "blocks before the first frame")


def check_webp(data: bytes, max_pixels: int) -> None:
    """The size of the canvas, which the decoder allocates before anyone can ask it."""
    kind, body = data[12:16], data[20:30].ljust(10, b"\0")
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(body[at : at + 3], "little") for at in (4, 7))
    elif kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", body, 6))
    check_size(width, height, max_pixels)
    check_ratio(width * height, data)


def check_bmp(data: bytes, max_pixels: int) -> None:
    """Run-length coded ones are decoded in Python."""
    if len(data) < 34 or data[14] == 12:  # the oldest kind has no compression
        return
    width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
    _check_size(abs(width), abs(height), max_pixels, compression in (1, 2))


def check_ppm(data: bytes, max_pixels: int) -> None:
    """Plain ones, and those whose numbers must be scaled, are decoded in Python."""
    if data.startswith(b"Pf"):
        return
    header = _ppm_header.match(data[:4096])
    if header is None:
        raise ValueError("no width and height in the first 4096 bytes")
    kind, width, height = int(header[1]), int(header[2]), int(header[3])
    scaled = kind >= 5 and header[4] is not None and int(header[4]) not in (255, 65535)
    _check_size(width, height, max_pixels, kind < 4 or scaled)
    if kind < 4:
        check_count(data.count(b"#"), PPM_COMMENTS, "comments")


def _check_size(width: int, height: int, max_pixels: int, slow: bool) -> None:
    if slow:
        check_size(width, height, SLOW_PIXELS, " in this kind of file, which takes long to decode")
    check_size(width, height, max_pixels)
