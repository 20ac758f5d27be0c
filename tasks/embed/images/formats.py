"""What kind of file some bytes are, by how they begin."""

from __future__ import annotations

import importlib.metadata
import re

from tasks.embed.reasons import BadImage

# An allow-list: Pillow's other readers are rare on the web, and some start other programs (EPS runs Ghostscript).
SIGNATURES = {
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "JPEG": rb"\xff\xd8\xff",
    "GIF": rb"GIF8[79]a",
    "WEBP": rb"RIFF....WEBPVP8[ LX]",
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "JPEG2000": rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n",
    "PPM": rb"P(?:[1-6]|f)[\s#]",
}
"""Pillow's name of a format -> how it begins; AVIF and HEIF share a signature and are told apart by their brands."""

AVIF_BRANDS = {b"avif", b"avis"}
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}

UNSUPPORTED = {
    "an SVG drawing": rb"\s*(?:<\?xml.{0,1000}|<!--.{0,1000}|<!DOCTYPE svg.{0,1000})?<svg\b",
    "a JPEG XL picture": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "a Photoshop document": rb"8BPS",
    "an icon": rb"\0\0[\x01\x02]\0|icns",
    "an EPS drawing": rb"%!PS|\xc5\xd0\xd3\xc6",
    "an OpenEXR picture": rb"v/1\x01",
    "a DDS texture": rb"DDS ",
    "a QOI picture": rb"qoif",
    "a GIMP document": rb"gimp xcf",
    "a Windows metafile": rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF",
    "a DjVu document": rb"AT&TFORM",
    "a colour PFM picture": rb"PF\s",
}
NO_IMAGES = {
    "a web page": rb"(?i:\s*(?:<!--.{0,1000})?<(?:!doctype html|html|head|body|script|title|meta)\b)",
    "XML": rb"\s*<\?xml",
    "JSON": rb"\s*[\[{]\s*[\"\[{\]}]",
    "a PDF document": rb"%PDF",
    "a zip archive": rb"PK\x03\x04",
    "gzip-compressed data": rb"\x1f\x8b",
    "a Git LFS pointer, not the file it stands for": rb"version https://git-lfs",
    "a video": rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI ",
}
OPTIONAL_READERS = ("pillow-heif",)
SEEN = 2048
"""Bytes that the longer patterns look at."""

_formats = {name: re.compile(pattern, re.DOTALL) for name, pattern in SIGNATURES.items()}
_unsupported = {name: re.compile(pattern, re.DOTALL) for name, pattern in UNSUPPORTED.items()}
_no_images = {name: re.compile(pattern, re.DOTALL) for name, pattern in NO_IMAGES.items()}


def image_format(data: bytes) -> str:
    """Pillow's name of the format: PNG, JPEG, GIF, WEBP, BMP, TIFF, AVIF, HEIF, JPEG2000 or PPM.

    Raises:
        BadImage: `not_an_image` or `unsupported_image`; the message says what the bytes look like.
    """
    for name, pattern in _formats.items():
        if pattern.match(data):
            return name
    if data[4:8] == b"ftyp":
        brands = _brands(data)
        if AVIF_BRANDS & brands:
            return "AVIF"
        if HEIF_BRANDS & brands:
            return "HEIF"
    head = data[:SEEN].removeprefix(b"\xef\xbb\xbf")  # the mark that some programs put before UTF-8
    for name, pattern in _unsupported.items():
        if pattern.match(head):
            raise BadImage("unsupported_image", f"{name}, a format that is not read here")
    raise BadImage("not_an_image", f"{_kind(head)} ({len(data)} bytes, the first are {data[:12]!r})")


def optional_readers() -> tuple[str, ...]:
    """Installed packages, beyond the required ones, that read pictures; none of them is imported."""
    return tuple(name for name in OPTIONAL_READERS if any(importlib.metadata.distributions(name=name)))


def _brands(data: bytes) -> set[bytes]:
    """Major and compatible brands of an ISO file."""
    end = min(int.from_bytes(data[:4], "big"), len(data), 256)
    return {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}


def _kind(head: bytes) -> str:
    for name, pattern in _no_images.items():
        if pattern.match(head):
            return name
    if not head:
        return "nothing"
    if not head.strip(b"\0"):
        return "zeros"
    return "no known image format" if re.search(rb"[\0-\x08\x0e-\x1f]", head) else "text"
