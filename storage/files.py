"""Files behind fsspec URLs: whole under their final name or not there at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

DAY = 86_400
MiB = 1 << 20


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of `url` and the path inside it; a bare path is local."""
    fs, path = fsspec.core.url_to_fs(url)
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


def is_writable(url: str) -> bool:
    """Whether a folder at `url` exists or can be made, and be written to; of other file systems than local: yes."""
    if not is_local(url):
        return True
    path = os.path.abspath(filesystem(url)[1])
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return os.path.isdir(path) and os.access(path, os.W_OK) and not path.startswith("/proc")


def size(url: str) -> int:
    """Bytes of the file at `url`."""
    fs, path = filesystem(url)
    return int(fs.size(path))


def names(url: str) -> list[str]:
    """Sorted names in the folder `url`, temporaries left out; empty if there is no such folder."""
    fs, path = filesystem(url)
    fs.invalidate_cache(path)
    try:
        found = fs.ls(path, detail=False)
    except FileNotFoundError:
        return []
    return sorted(name for name in (entry.rstrip("/").rsplit("/", 1)[-1] for entry in found) if name[0] != ".")


@contextmanager
def reading(url: str, *, memory_map: bool = False) -> Iterator[pa.NativeFile]:
    """Open `url` for random access. With `memory_map`, arrays read from a local file are views of its pages."""
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        with pa.memory_map(path) if memory_map else pa.OSFile(path) as file:
            yield file
    elif isinstance(fs, MemoryFileSystem):
        # Its open files are one object with one position for all readers.
        with pa.BufferReader(fs.cat_file(path)) as file:
            yield file
    else:
        with fs.open(path, "rb") as raw, pa.PythonFile(raw, mode="r") as file:
            yield file


@contextmanager
def publishing(url: str) -> Iterator[pa.NativeFile]:
    """Yield a file to write; it appears at `url` only when the block ends without an error.

    Local: a temporary in the same folder, flushed to disk, then renamed. Object stores make an object visible when
    its upload is complete; there the commit object, written last, alone decides.
    """
    fs, path = filesystem(url)
    folder, name = path.rsplit("/", 1)
    fs.makedirs(folder or "/", exist_ok=True)
    if isinstance(fs, MemoryFileSystem):
        with pa.BufferOutputStream() as file:
            yield file
            fs.pipe_file(path, file.getvalue().to_pybytes())
        return
    if not isinstance(fs, LocalFileSystem):
        with fs.open(path, "wb") as raw, pa.PythonFile(raw, mode="w") as file:
            yield file
        return
    scratch = f"{folder}/.{name}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        with pa.OSFile(scratch, "wb") as file:
            yield file
        with open(scratch, "rb") as written:
            os.fsync(written.fileno())
        os.replace(scratch, path)
    finally:
        if os.path.exists(scratch):
            os.unlink(scratch)


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
