"""Members of tars, read as a stream (POSIX.1-2024 pax, "ustar interchange format", and GNU's long names).

Own code, since it reads hostile archives: nothing is put on a disk, no name is used as a path, no header can make it
hold more than a megabyte, go back or wait, and it says at which byte an archive is damaged. The standard library's
`tarfile` reads headers of any claimed size into memory, takes some damage for the end of the archive
(and, before its fix of CVE-2025-8194, runs in circles).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from storage.files import MiB
from storage.streams import Content

BLOCK = 512
LONGEST_HEADER = MiB
"""Most bytes of a long name or of extended headers."""
_ZEROS = bytes(BLOCK)

_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a folder",
    b"6": "a pipe",
    b"S": "a sparse file",
}
_REGULAR = (b"0", b"\0", b"7")


class Member(NamedTuple):
    """What a header says."""

    name: str
    """As it stands, never to be used as a path; bytes that are not UTF-8 are escaped."""
    kind: str | None
    """What it is if not a file: `a folder`, `a symbolic link`."""
    size: int
    at: int
    """Position of its header in the content."""


def members(content: Content) -> Iterator[Member]:
    """Members in order; before going on to the next, up to `size` bytes of one's data can be read from `content`.

    An archive ends with a block of zeros; what follows is read too, since archives are joined with `cat`.

    Raises:
        BrokenFile: It is no tar, is damaged, or breaks off; the place is where its last whole member ends.
        OSError: It cannot be read now.
    """
    shared: dict[str, str] = {}
    while (member := _next(content, shared)) is not None:
        start = content.position
        yield member
        left = member.size - (content.position - start)
        if content.skip(left + -member.size % BLOCK) < left:
            raise content.broken(f"the tar breaks off inside member {member.name[:100]!r}", member.at)


def _next(content: Content, shared: dict[str, str]) -> Member | None:
    """The next member, its data not yet read; None at the end. `shared` holds what applies to all that follow."""
    own: dict[str, str] = {}
    at, ended = content.position, False
    while True:
        here = content.position
        header = content.read(BLOCK)
        if header == _ZEROS and not own:
            at, ended = content.position, True
            continue
        if ended and not header.strip(b"\0"):
            return None
        if not header and here:
            raise content.broken("the tar breaks off: no block of zeros ends it", at)
        kind, size, name = _parsed(content, header, here, at)
        if kind in (b"x", b"X", b"g", b"L", b"K"):
            body = _extension(content, size, at)
            if kind == b"L":
                own["path"] = _text(body.split(b"\0", 1)[0])
            elif kind != b"K":
                (shared if kind == b"g" else own).update(_records(content, body, at))
            continue
        if kind == b"S":
            _skip_sparse_map(content, header, at)
        facts = {**shared, **own}
        if "size" in facts:
            size = _number(content, facts["size"].encode(), 10, at)
        name = facts.get("path", name)
        what = None if kind in _REGULAR else _KINDS.get(kind, f"of type {kind!r}")
        if what is None and name.endswith("/"):  # folders of old archives
            what = "a folder"
        if what is None and any(key.startswith("GNU.sparse") for key in own):
            what = "a sparse file"
        return Member(name, what, size if kind in (*_REGULAR, b"S") or kind not in _KINDS else 0, at)


def _parsed(content: Content, header: bytes, here: int, at: int) -> tuple[bytes, int, str]:
    """Type, size and name that a header gives."""
    if len(header) < BLOCK:
        raise content.broken("this is no tar" if not here else "the tar breaks off inside a header", at)
    given = _number(content, header[148:156], 8, at, why="this is no tar" if not here else None)
    fields = header[:148] + b" " * 8 + header[156:]
    if given != sum(fields) and given != sum(struct.unpack("512b", fields)):  # old tars summed up signed bytes
        raise content.broken("this is no tar" if not here else "the tar's header has a wrong checksum", at)
    size = header[124:136]
    if size[0] & 0x80:  # GNU: binary, for sizes beyond 8 GiB
        count = int.from_bytes(size[1:], "big")
        if size[0] != 0x80 or count >> 62:
            raise content.broken(f"the tar's header has {size!r} for a size", at)
    else:
        count = _number(content, size, 8, at)
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return header[156:157], count, _text(b"/".join(part for part in (prefix, name) if part))


def _number(content: Content, field: bytes, base: int, at: int, why: str | None = None) -> int:
    digits = field.split(b"\0", 1)[0].strip(b" ") or b"0"
    try:
        if not digits.isdigit() or len(digits) > 20:
            raise ValueError
        return int(digits, base)
    except ValueError:
        raise content.broken(why or f"the tar's header has {field[:20]!r} for a number", at) from None


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _extension(content: Content, size: int, at: int) -> bytes:
    if size > LONGEST_HEADER:
        raise content.broken(f"the tar has an extended header of {size:,} bytes; at most 1 MiB is read", at)
    body = content.read(size)
    if len(body) + content.skip(-size % BLOCK) < size + -size % BLOCK:
        raise content.broken("the tar breaks off inside a header", at)
    return body


def _records(content: Content, body: bytes, at: int) -> dict[str, str]:
    """What counts for us of pax records: `length key=value newline`, one after the other."""
    found: dict[str, str] = {}
    start, rest = 0, len(body.rstrip(b"\0"))
    while start < rest:
        length, _, _ = body[start : start + 10].partition(b" ")
        end = start + int(length) if length.isdigit() else 0
        key, equals, value = body[start + len(length) + 1 : end].partition(b"=")
        if not (equals and value.endswith(b"\n") and end <= len(body)):
            raise content.broken(f"the tar has {body[start : start + 20]!r} for a pax record", at)
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse"):
            found[_text(key)] = _text(value[:-1])
        start = end
    return found


def _skip_sparse_map(content: Content, header: bytes, at: int) -> None:
    more = header[482]
    while more:
        block = content.read(BLOCK)
        if len(block) < BLOCK:
            raise content.broken("the tar breaks off inside a header", at)
        more = block[504]
