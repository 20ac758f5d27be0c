"""Packed content reads as its plain self; what is cut off or damaged is told from what cannot be read now."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import zstandard
from archives import packed

from storage import files, streams
from storage.broken import BrokenFile
from storage.streams import content

DATA = np.random.default_rng(1).bytes(100_000) + b"\0" * 3_000_000
NAMES = ("x", "x.gz", "x.zst")


def read(url):
    with content(str(url)) as stream:
        found = b""
        while block := stream.read(70_001):
            found += block
        assert stream.position == len(found)
        return found


@pytest.mark.parametrize("name", NAMES)
def test_content_is_unpacked_by_how_it_begins_not_by_its_name(tmp_path, name):
    (tmp_path / "any").write_bytes(packed(DATA, name))
    assert read(tmp_path / "any") == DATA
    files.write_bytes("memory://streams/any", packed(DATA, name))
    assert read("memory://streams/any") == DATA


@pytest.mark.parametrize("name", NAMES[1:])
def test_packed_files_that_were_joined_read_as_one(tmp_path, name):
    (tmp_path / name).write_bytes(packed(b"one,", name) + packed(b"two", name))
    assert read(tmp_path / name) == b"one,two"


@pytest.mark.parametrize("name", NAMES[1:])
@pytest.mark.parametrize("left", [-1, -9, 0.5, 6])
def test_cut_off_packed_content_is_broken_at_a_place(tmp_path, name, left):
    whole = packed(DATA, name)
    cut = whole[:left] if isinstance(left, int) else whole[: int(len(whole) * left)]
    (tmp_path / name).write_bytes(cut)
    with pytest.raises(BrokenFile) as caught:
        read(tmp_path / name)
    assert caught.value.at is not None and 0 <= caught.value.at <= len(cut)


def test_damage_is_found_by_checksums(tmp_path):
    for name, data in (
        ("x.gz", packed(DATA, ".gz")),
        ("x.zst", zstandard.ZstdCompressor(write_checksum=True).compress(DATA)),
    ):
        (tmp_path / name).write_bytes(data[:50_000] + bytes([data[50_000] ^ 1]) + data[50_001:])
        with pytest.raises(BrokenFile, match="damaged"):
            read(tmp_path / name)


def test_a_packed_file_of_no_bytes_is_broken(tmp_path):
    (tmp_path / "x.gz").write_bytes(b"")
    (tmp_path / "x").write_bytes(b"")
    assert read(tmp_path / "x") == b""
    with pytest.raises(BrokenFile, match="empty"):
        read(tmp_path / "x.gz")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("error", [OSError("no number"), ConnectionError(errno.ECONNRESET, "reset"), RuntimeError("x")])
def test_errors_of_reading_pass_as_they_are(tmp_path, name, error, monkeypatch):
    (tmp_path / name).write_bytes(packed(np.random.default_rng(1).bytes(3_000_000), name))

    class Breaking:
        def __init__(self, file):
            self.file, self.count = file, 0

        def seek(self, place):
            self.file.seek(place)

        def read(self, count):
            self.count += 1
            if self.count > 4:
                raise error
            return self.file.read(count)

        def readinto(self, buffer):
            data = self.read(len(buffer))
            buffer[: len(data)] = data
            return len(data)

    real = files.reading

    from contextlib import contextmanager

    @contextmanager
    def reading(url):
        with real(url) as file:
            yield Breaking(file)

    monkeypatch.setattr(streams.files, "reading", reading)
    monkeypatch.setattr(streams, "BLOCK", 100_000)
    with pytest.raises(type(error), match=str(error.args[-1])):
        read(tmp_path / name)


def test_skipping_counts_what_there_was(tmp_path):
    (tmp_path / "x.gz").write_bytes(packed(DATA, ".gz"))
    with content(str(tmp_path / "x.gz")) as stream:
        assert stream.read(10) == DATA[:10] and stream.skip(2_000_000) == 2_000_000
        assert stream.read(5) == DATA[2_000_010:2_000_015]
        assert stream.skip(9_000_000) == len(DATA) - 2_000_015 and stream.position == len(DATA)


def test_a_small_file_that_unpacks_to_much_is_read_in_pieces(tmp_path):
    bomb = zstandard.ZstdCompressor(level=3).compress(bytes(1 << 28))
    assert len(bomb) < 1 << 16
    (tmp_path / "x.zst").write_bytes(bomb)
    import pyarrow as pa

    with content(str(tmp_path / "x.zst")) as stream:
        before, most = pa.total_allocated_bytes(), 0
        while stream.read(1 << 16):
            most = max(most, pa.total_allocated_bytes() - before)
    assert most < 1 << 25
