"""Files behind fsspec URLs: whole under their final name or not there at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from storage import faults, objects
from storage.objects import Told

DAY = 86_400
MiB = 1 << 20
READ_AHEAD = 8 * MiB
"""What a read of a remote file fetches beyond what was asked for; the libraries' own 5 to 50 MiB suit no one reader."""
UPLOAD_BYTES = 32 * MiB
"""Bytes of a remote file held in memory while it is written: one part of its upload."""


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of `url` and the path inside it; a bare path is local."""
    fs, path = objects.filesystem(url)
    return fs, path.rstrip("/") or "/"


def is_local(url: str) -> bool:
    """Whether `url` is on this machine's own file system."""
    return isinstance(filesystem(url)[0], LocalFileSystem)


def join(url: str, *parts: str) -> str:
    """`url` with `parts` appended."""
    return "/".join([url.rstrip("/") or "/", *parts])


def absolute(url: str) -> str:
    """`url` with a relative local path made absolute, so that workers in other folders find it."""
    return filesystem(url)[1] if is_local(url) else url


def exists(url: str) -> bool:
    """Whether a file or folder stands at `url`."""
    fs, path = filesystem(url)
    return fs.exists(path)


def try_writing(url: str) -> None:
    """Write a file in the folder `url`, or where that would be made, and remove it: permissions alone tell little.

    Raises:
        OSError: Nothing can be written there.
    """
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        while not os.path.lexists(path):
            path = os.path.dirname(path)
        with tempfile.TemporaryFile(dir=path):
            return
    trial = f"{path}/{_scratch_name('trial')}"
    fs.pipe_file(trial, b"\n")
    with suppress(PermissionError):  # some buckets let nothing be removed; names that begin with a dot are not listed
        fs.rm_file(trial)


def size(url: str) -> int:
    """Bytes of the file at `url`."""
    fs, path = filesystem(url)
    return int(fs.size(path))


def has_size(url: str, size_: int) -> bool:
    """Whether a file stands at `url` with so many bytes."""
    return exists(url) and size(url) == size_


def names(url: str) -> list[str]:
    """Sorted names in the folder `url`, temporaries left out; empty if there is no such folder."""
    fs, path = filesystem(url)
    fs.invalidate_cache(path)
    try:
        found = fs.ls(path, detail=False)
    except FileNotFoundError:
        return []
    # Some tools mark a folder of an object store by an empty object of its name.
    inside = (entry.rstrip("/") for entry in found if entry.strip("/") != path.strip("/"))
    return sorted(name for name in (entry.rsplit("/", 1)[-1] for entry in inside) if name[0] != ".")


@contextmanager
def reading(url: str, *, memory_map: bool = False) -> Iterator[pa.NativeFile]:
    """Open `url` for random access. With `memory_map`, arrays read from a local file are views of its pages."""
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        name = os.fsencode(path)  # Arrow takes no text that stands for bytes which are not UTF-8
        with pa.memory_map(name) if memory_map else pa.OSFile(name) as file:
            yield file
    elif isinstance(fs, MemoryFileSystem):
        # Its open files are one object with one position for all readers.
        with pa.BufferReader(fs.cat_file(path)) as file:
            yield file
    else:
        with fs.open(path, "rb", block_size=READ_AHEAD, cache_type="readahead") as raw:
            with pa.PythonFile(raw, mode="r") as file:
                yield file


@contextmanager
def publishing(url: str) -> Iterator[pa.NativeFile]:
    """Yield a file to write; it appears at `url` only when the block ends without an error.

    Local: a temporary in the same folder, flushed to disk, then renamed. Object stores make an object visible when
    its upload is complete; there the commit object, written last, alone decides.

    Raises:
        PlaceFull, ReadOnly: The local disk takes nothing more.
        OSError: Anything else that the system says.
    """
    fs, path = filesystem(url)
    if isinstance(fs, MemoryFileSystem):
        with pa.BufferOutputStream() as file:
            yield file
            fs.pipe_file(path, file.getvalue().to_pybytes())
        return
    if not isinstance(fs, LocalFileSystem):
        if objects.has_folders(url):
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        raw = cast(Told, fs.open(path, "wb", block_size=UPLOAD_BYTES))
        try:
            file = pa.PythonFile(raw, mode="w")
            yield file
            file.close()
        except BaseException:  # an interrupt too must not leave half an object; it goes on below
            raw.abandon()
            raise
        return
    with faults.writing(path), _local(path) as file:
        yield file


@contextmanager
def _local(path: str) -> Iterator[pa.NativeFile]:
    """See `publishing`; an interrupt (Ctrl-C, a cancelled run) takes the temporary away as well."""
    folder, name = path.rsplit("/", 1)
    os.makedirs(folder or "/", exist_ok=True)
    scratch = f"{folder}/{_scratch_name(name)}"
    try:
        with pa.OSFile(scratch, "wb") as file:
            yield file
        with open(scratch, "rb") as written:
            os.fsync(written.fileno())
        os.replace(scratch, path)
    finally:
        with suppress(OSError):  # gone with its folder, or on a disk that is read-only by now: swept later
            os.unlink(scratch)


def _scratch_name(name: str) -> str:
    return f".{name}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}.tmp"


def read_table(url: str, columns: list[str] | None = None) -> pa.Table:
    """A whole Parquet file, or some of its columns.

    Without Arrow's threads, here and wherever we read: tasks run side by side already, and Arrow's threads may abort
    the process at exit while they hold a Python file (apache/arrow#34314).
    """
    with reading(url) as file:
        return pq.read_table(file, columns=columns, use_threads=False)


def write_bytes(url: str, data: bytes | pa.Buffer) -> None:
    """Publish `data` at `url`."""
    with publishing(url) as file:
        file.write(data)


def read_bytes(url: str) -> bytes:
    """The whole file at `url`."""
    with reading(url) as file:
        return bytes(file.read())


def write_json(url: str, value: Any) -> None:
    """Publish `value` as JSON with sorted keys."""
    write_bytes(url, (json.dumps(value, sort_keys=True, indent=1) + "\n").encode())


def read_json(url: str) -> Any:
    """The JSON value at `url`."""
    return json.loads(read_bytes(url))


def remove(url: str) -> None:
    """Remove the file or folder at `url`; nothing if it is gone already.

    A folder into which another run is writing at this moment stays: that run will remove it.
    """
    fs, path = filesystem(url)
    try:
        fs.rm(path, recursive=True)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise


def sweep(url: str, older_than: float = DAY) -> int:
    """Remove temporaries in the local folder `url` that crashed runs left more than `older_than` seconds ago."""
    fs, path = filesystem(url)
    if not isinstance(fs, LocalFileSystem) or not os.path.isdir(path):
        return 0
    count = 0
    for entry in os.scandir(path):
        if entry.name.startswith(".") and entry.name.endswith(".tmp"):
            try:
                if time.time() - entry.stat().st_mtime > older_than:
                    os.unlink(entry.path)
                    count += 1
            except FileNotFoundError:  # another run swept it first
                continue
    return count
