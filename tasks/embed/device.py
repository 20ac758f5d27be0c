"""Which device there is, found without torch, and who may use it."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import psutil

from configs.errors import ModelError

Device = Literal["cpu", "cuda"]

TOLD_SECONDS = 60
"""How often a process that waits for the GPU says so."""

_elsewhere: ContextVar[bool] = ContextVar("work is planned for machines with GPUs", default=False)
_slot = threading.Lock()
_users = 0
_lock_file = -1


@contextmanager
def planned_for(gpus: bool) -> Iterator[None]:
    """Within the block, what is planned here runs on GPUs elsewhere, if `gpus`; only who computes looks for one."""
    before = _elsewhere.set(gpus)
    try:
        yield
    finally:
        _elsewhere.reset(before)


def resolve_device(name: str) -> Device:
    """The device class that `name` (`auto`, `cpu`, `cuda`) means in this process.

    Asks the CUDA driver, which honours `CUDA_VISIBLE_DEVICES`; torch is not imported, so a plan can call this.

    Raises:
        ModelError: For `cuda` where there is none, and for an unknown name.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ModelError(f"`device` is {name!r}; it must be auto, cpu or cuda")
    if name == "cpu":
        return "cpu"
    if _elsewhere.get():
        return "cuda"
    if _visible_devices() and _torch_has_cuda():
        return "cuda"
    if name == "cuda":
        raise ModelError("`device` is 'cuda', but no CUDA device is usable here; set it to auto or cpu")
    return "cpu"


def _visible_devices() -> int:
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):  # nonzero: an error, no device for one
        return 0
    return count.value


def _torch_has_cuda() -> bool:
    """Whether torch was built for CUDA, told by its files: CPU-only builds on GPU machines are common."""
    spec = importlib.util.find_spec("torch")
    return bool(spec and spec.origin and any((Path(spec.origin).parent / "lib").glob("*torch_cuda.*")))


@contextmanager
def device_slot(device: Device, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold the GPU for this process; other processes wait, and `say` who has it. No-op on a CPU.

    An `flock` on a file in the temporary folder, one per visible device: the kernel frees it when the process dies.
    Threads of one process share the slot, their forward passes are serialised elsewhere.
    """
    if device == "cpu":
        yield
        return
    _enter(say)
    try:
        yield
    finally:
        _leave()


def slot_path() -> Path:
    """The lock file of the first visible CUDA device."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    return Path(tempfile.gettempdir()) / f"mixwright-cuda-{re.sub(r'[^A-Za-z0-9]', '_', first)}.lock"


def _enter(say: Callable[[str], None]) -> None:
    global _users, _lock_file
    with _slot:  # also while waiting for another process: a second thread could do no better
        if _users == 0:
            _lock_file = _locked(slot_path(), say)
        _users += 1


def _leave() -> None:
    global _users
    with _slot:
        _users -= 1
        if _users == 0:
            os.close(_lock_file)  # closing releases the lock


def _locked(path: Path, say: Callable[[str], None]) -> int:
    """A handle that holds the lock of `path`, in which the holder's name stands, for those who wait."""
    handle = _opened(path)
    try:
        _wait(handle, say)
        _sign(handle)
    except BaseException:  # a run may be cancelled while it waits
        os.close(handle)
        raise
    return handle


def _opened(path: Path) -> int:
    # No link is followed: in a folder that all may write to, it could lead to a file of ours, which would be emptied.
    for mode in (os.O_RDWR | os.O_NOFOLLOW, os.O_RDONLY | os.O_NOFOLLOW):
        # Without O_CREAT, which Linux refuses on another user's file in /tmp.
        with suppress(FileNotFoundError, PermissionError):
            return os.open(path, mode)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    with suppress(PermissionError):
        os.fchmod(handle, 0o666)  # whatever the umask: other users sign it too
    return handle


def _wait(handle: int, say: Callable[[str], None]) -> None:
    """Take the lock. Polled: a blocking `flock` could neither speak nor be interrupted."""
    import fcntl

    started, told = time.monotonic(), 0.0
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            now = time.monotonic()
            if not told or now - told >= TOLD_SECONDS:
                told = now
                say(f"waits for the GPU, held by {_holder(handle)}; waited {now - started:.0f} s so far")
            time.sleep(0.2)
        else:
            if told:
                say(f"has the GPU after {time.monotonic() - started:.0f} s")
            return


def _sign(handle: int) -> None:
    """Write into the lock file who holds it; a file of another user's that cannot be written stays as it is."""
    me = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(me).encode(), 0)


def _holder(handle: int) -> str:
    """Who holds the lock, in words: `pid 4711 on host gpu1 since 2026-11-21T02:00:07+00:00`."""
    try:
        who = json.loads(os.pread(handle, 1000, 0))
        pid, host, since = int(who["pid"]), str(who["host"]), str(who["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
    if host == socket.gethostname() and not psutil.pid_exists(pid):
        return "another process"  # what a process wrote that has died since
    return f"pid {pid} on host {host} since {since}"
