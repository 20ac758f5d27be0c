"""Full and read-only places: nothing half-written under a final name, one sentence about it."""

import errno
import os
import resource

import pyarrow as pa
import pytest

from configs.errors import PlaceFull, ReadOnly
from storage import files


def refused(url: str) -> str:
    """What is said of a file that cannot be written; what stood there before stands there still, and nothing else."""
    with pytest.raises((PlaceFull, ReadOnly)) as told:
        files.write_bytes(url, bytes(2_000_000))
    assert files.read_bytes(url) == b"before" and os.listdir(os.path.dirname(url)) == ["x"]
    assert "\n" not in str(told.value) and str(told.value).startswith(f"cannot write {url}: ")
    return str(told.value)


@pytest.fixture
def url(tmp_path):
    files.write_bytes(f"{tmp_path}/x", b"before")
    return f"{tmp_path}/x"


def test_no_space_while_writing(url, monkeypatch):
    real = pa.OSFile
    monkeypatch.setattr(pa, "OSFile", lambda path, mode="rb": real("/dev/full" if mode == "wb" else path, mode))
    told = refused(url)
    assert "no space is left (" in told and " MB are free on /" in told and "run again: only what is missing" in told


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, PlaceFull, "no space is left"),
        (errno.EDQUOT, PlaceFull, "the disk quota is used up"),
        (errno.EROFS, ReadOnly, "its file system has become read-only"),
    ],
)
def test_what_is_said_when_the_flush_fails(url, monkeypatch, number, kind, words):
    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", fail)
    assert words in refused(url)
    with pytest.raises(kind):
        files.write_bytes(url, b"")


def test_a_limit_on_file_sizes(url):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        told = refused(url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "larger than the system or a limit (`ulimit -f`) allows" in told


def test_another_error_stays_what_it_is(url, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        files.write_bytes(url, b"new")
    assert files.read_bytes(url) == b"before"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_leaves_nothing(url, interrupt):
    with pytest.raises(interrupt), files.publishing(url) as file:
        file.write(b"half")
        raise interrupt
    assert files.read_bytes(url) == b"before" and os.listdir(os.path.dirname(url)) == ["x"]
