"""Our reader of tars against the standard library's and GNU's; hostile and damaged ones end in BrokenFile alone."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile

import numpy as np
import pytest
from archives import tar_bytes
from hypothesis import given
from hypothesis import strategies as st

from storage import files
from storage.broken import BrokenFile
from storage.streams import content
from tasks.ingest import tars

FORMATS = [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]
NAMES = [
    "a.jpg",
    "d/e/f.txt",
    "n" * 99 + "/" + "m" * 60 + ".jpg",
    "ü猫.png",
    "../../etc/passwd",
    "/abs/x.txt",
    "./y.txt",
]


def read(data):
    """Members with their data."""
    files.write_bytes("memory://tars/x.tar", data)
    with content("memory://tars/x.tar") as stream:
        return [(m.name, m.kind, m.size, stream.read(min(m.size, 1 << 20))) for m in tars.members(stream)]


def as_tarfile_reads(data):
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as tar:
        return [(m.name, m.size, tar.extractfile(m).read()) for m in tar if m.isreg()]


@given(
    st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=300), st.binary(max_size=1100)), max_size=5),
    st.sampled_from(FORMATS[:2]),
)  # fmt: skip
def test_members_are_those_that_the_standard_library_reads(members, kind):
    members = [(name.rstrip("/") or "x", data) for name, data in members]
    data = tar_bytes(members, kind)
    assert [(name, body) for name, what, _, body in read(data) if what is None] == members
    assert [(name, size, body) for name, _, size, body in read(data)] == as_tarfile_reads(data)


@pytest.mark.parametrize("kind", FORMATS)
def test_names_of_all_lengths_in_all_formats(kind):
    members = [(name, name.encode()) for name in NAMES]
    assert [(name, body) for name, _, _, body in read(tar_bytes(members, kind))] == members


@pytest.mark.skipif(not shutil.which("tar"), reason="no tar program")
@pytest.mark.parametrize("kind", ["gnu", "ustar", "pax", "v7"])
def test_tars_of_the_tar_program(tmp_path, kind):
    names = ["a.jpg", "d/b.txt"] + (["e" * 120 + ".txt"] if kind in ("gnu", "pax") else [])
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode() * 400)
    (tmp_path / "link.txt").symlink_to("a.jpg")
    subprocess.run(["tar", f"--format={kind}", "-cf", "x.tar", *names, "d", "link.txt"], cwd=tmp_path, check=True)
    found = read((tmp_path / "x.tar").read_bytes())
    assert [(n, b) for n, what, _, b in found if what is None][: len(names)] == [(n, n.encode() * 400) for n in names]
    assert ("d/", "a folder", 0, b"") in found and ("link.txt", "a symbolic link", 0, b"") in found


@pytest.mark.skipif(not shutil.which("tar"), reason="no tar program")
@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_what_stands_behind_a_sparse_file_is_found(tmp_path, kind):
    with open(tmp_path / "s.bin", "wb") as file:
        for place in range(40):
            file.seek(place * 100_000)
            file.write(b"x")
    (tmp_path / "z.txt").write_text("z")
    command = ["tar", f"--format={kind}", "-S", "-cf", "x.tar", "s.bin", "z.txt"]
    subprocess.run(command, cwd=tmp_path, check=True)
    sparse, last = read((tmp_path / "x.tar").read_bytes())
    assert sparse[1] in ("a sparse file", None) and last == ("z.txt", None, 1, b"z")


def test_joined_tars_are_read_to_their_end():
    assert [m[0] for m in read(tar_bytes([("a", b"1")]) + tar_bytes([("b", b"2")]))] == ["a", "b"]


def test_special_members_say_what_they_are():
    sink = io.BytesIO()
    kinds = [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for number, kind in enumerate(kinds):
            info = tarfile.TarInfo(f"m{number}")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    assert [m[1] for m in read(sink.getvalue())] == [
        "a hard link", "a symbolic link", "a character device", "a block device", "a folder", "a pipe",
    ]  # fmt: skip


def header(name=b"a.jpg", size=b"00000000001", kind=b"0", checksum=None, rest=b""):
    """A header block by hand."""
    block = bytearray(512)
    block[: len(name)] = name
    block[124 : 124 + len(size)] = size
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % (checksum(block) if checksum else sum(block) + 256)
    return bytes(block) + rest


END = bytes(1024)


def test_numbers_of_other_ages():
    body = b"x".ljust(512, b"\0")
    big = header(size=b"\x80" + (1).to_bytes(11, "big"), rest=body) + END
    assert read(big) == [("a.jpg", None, 1, b"x")]
    spaces = header(size=b"         1 \0", rest=body) + END
    assert read(spaces) == [("a.jpg", None, 1, b"x")]
    signed = header(name=b"\xfc.jpg", checksum=lambda b: sum(c - 256 if c > 127 else c for c in b) + 256, rest=body)
    assert read(signed + END) == [("\\xfc.jpg", None, 1, b"x")]


def pax(records, kind=b"x"):
    return header(b"pax", b"%011o" % len(records), kind, rest=records + bytes(-len(records) % 512))


def test_pax_headers_say_path_and_size_for_one_member_or_all():
    body = b"x".ljust(512, b"\0")
    data = pax(b"10 size=1\n", b"g") + pax(
        "18 path=ü/b.txt\n".encode()[:0] + b"15 path=b.txt\n\0\0"[:14].replace(b"15", b"14")
    )
    data += header(size=b"00000000000", rest=body) + header(size=b"00000000000", rest=body) + END
    assert read(data) == [("b.txt", None, 1, b"x"), ("a.jpg", None, 1, b"x")]


WHOLE = tar_bytes([("a.jpg", b"1" * 700), ("b.txt", b"2" * 100), ("c" * 150 + ".txt", b"3")])
STARTS = [0, 1536, 2560]
"""Where its members' headers begin; that of the third, which is long-named, with its extended header."""


def test_a_tar_that_is_cut_anywhere_is_broken_where_its_last_whole_member_ends():
    ends = [*STARTS, len(WHOLE.rstrip(b"\0")) // 512 * 512 + 512]
    last = ends[-1]
    for cut in [*range(0, last, 97), *STARTS, 511, 512, 513, last, last + 1]:
        with pytest.raises(BrokenFile) as caught:
            read(WHOLE[:cut])
        padded = any(end <= cut <= next for end, next in ((1212, 1536), (2148, 2560), (last - 511, last)))
        assert caught.value.at == (cut if padded else max(end for end in ends if end <= cut)), cut
    assert len(read(WHOLE[: last + 512])) == 3


@pytest.mark.parametrize("data", [b"", b"x", b"<html>" * 300, b"\x89PNG" * 1000, bytes(100) + b"x" * 1000])
def test_what_is_no_tar_is_told_so(data):
    with pytest.raises(BrokenFile, match="this is no tar") as caught:
        read(data)
    assert caught.value.at == 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (header(size=b"-0000000001") + END, "for a number"),
        (header(size=b"0000000009x") + END, "for a number"),
        (header(size=b"1_000000000") + END, "for a number"),
        (header(size=b"\xff" * 12) + END, "for a size"),
        (header(size=b"\x80" + b"\xff" * 11) + END, "for a size"),
        (header(size=b"\x80" + bytes(5) + b"\xff" * 6) + END, "breaks off inside member"),
        (header(size=b"77777777777") + END, "breaks off inside member"),
        (header(kind=b"x", size=b"77777777777") + END, "extended header of 8,589,934,591 bytes"),
        (header(kind=b"L", size=b"77777777777") + END, "extended header of"),
        (pax(b"30 path=b.txt\n") + header() + END, "for a pax record"),
        (pax(b"0 path=b.txt\n") + header() + END, "for a pax record"),
        (pax(b"-9 path=b.txt\n") + header() + END, "for a pax record"),
        (pax(b"99999999999999999999 a=b\n") + header() + END, "for a pax record"),
        (pax(b"11 size=-1\n") + header() + END, "for a number"),
        (pax(b"14 path=b.txt\n") + END, "wrong checksum"),
        (pax(b"14 path=b.txt\n"), "no block of zeros"),
    ],
)
def test_hostile_headers_are_broken(data, said):
    with pytest.raises(BrokenFile, match=said):
        read(data)


def test_a_megabyte_of_tiny_records_is_read_at_once():
    records = b"6 a=b\n" * 170_000
    assert read(pax(records) + header(rest=b"x".ljust(512, b"\0")) + END) == [("a.jpg", None, 1, b"x")]


def test_mutated_tars_end_in_members_or_in_broken_file():
    rng = np.random.default_rng(5)
    for _ in range(400):
        data = bytearray(WHOLE)
        for place in rng.integers(0, len(data), rng.integers(1, 8)):
            data[place] = rng.integers(0, 256)
        if rng.random() < 0.3:
            del data[int(rng.integers(0, len(data))) :]
        try:
            assert len(read(bytes(data))) <= 3
        except BrokenFile as broken:
            assert 0 <= broken.at <= len(data)
