"""Which device there is, found without torch, and who may use it."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from configs.errors import ModelError

Device = Literal["cpu", "cuda"]

_slot = threading.Lock()
_users = 0
_lock_file = -1


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
def device_slot(device: Device) -> Iterator[None]:
    """Hold the GPU for this process; other processes wait. No-op on a CPU.

    An `flock` on a file in the temporary folder, one per visible device: the kernel frees it when the process dies.
    Threads of one process share the slot, their forward passes are serialised elsewhere.
    """
    if device == "cpu":
        yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


def slot_path() -> Path:
    """The lock file of the first visible CUDA device."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    return Path(tempfile.gettempdir()) / f"mixwright-cuda-{re.sub(r'[^A-Za-z0-9]', '_', first)}.lock"


def _enter() -> None:
    global _users, _lock_file
    with _slot:  # also while waiting for another process: a second thread could do no better
        if _users == 0:
            _lock_file = _locked(slot_path())
        _users += 1


def _leave() -> None:
    global _users
    with _slot:
        _users -= 1
        if _users == 0:
            os.close(_lock_file)  # closing releases the lock


def _locked(path: Path) -> int:
    import fcntl

    try:
        handle = os.open(path, os.O_RDONLY)  # first without O_CREAT, which Linux refuses on another user's file in /tmp
    except FileNotFoundError:
        handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle
