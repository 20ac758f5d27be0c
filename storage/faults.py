"""What the operating system says of files, sorted: what another try may mend, and what a person must."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from configs.errors import PlaceFull, ReadOnly
from storage.objects import NoAccess, NoObject, ObjectError

LOCAL_WAITS: tuple[float, ...] = (1, 4, 16)
"""Seconds before each further try after an error of a disk or of a network file system."""
REMOTE_WAITS: tuple[float, ...] = (16,)
"""The same for object stores, whose libraries have by then tried for half a minute themselves."""

_PASSING = {
    getattr(errno, name)
    for name in (
        *("EIO", "ETIMEDOUT", "ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "EPIPE", "ENOTCONN", "ESHUTDOWN"),
        *("EHOSTUNREACH", "EHOSTDOWN", "ENETUNREACH", "ENETDOWN", "ENETRESET", "ESTALE", "EREMOTEIO", "ENOLINK"),
        *("EAGAIN", "EBUSY", "EINTR", "ENOMEM"),
    )
    if hasattr(errno, name)
}
_FULL = {errno.ENOSPC: "no space is left", errno.EDQUOT: "the disk quota is used up"}
_FULL[errno.EFBIG] = "the file would be larger than the system or a limit (`ulimit -f`) allows"


def waits(error: BaseException) -> tuple[float, ...]:
    """Seconds to wait before each further try of what failed by `error`; empty if none would mend it.

    Arrow raises OSError without errno for damaged content: that stays damaged.
    """
    if isinstance(error, ObjectError):
        return () if isinstance(error, NoObject | NoAccess) else REMOTE_WAITS
    if isinstance(error, TimeoutError | ConnectionError | socket.gaierror):
        return LOCAL_WAITS
    return LOCAL_WAITS if isinstance(error, OSError) and error.errno in _PASSING else ()


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Tell a full or read-only place of the local file `path` in one sentence.

    Raises:
        PlaceFull: The disk or quota is full, or the file too large; what was to be written is not there.
        ReadOnly: The file system was made read-only.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise PlaceFull(
                f"cannot write {path}: {_FULL[error.errno]} ({_free(path)}); make room or point `store` and "
                "`emit.out` elsewhere, then run again: only what is missing is done"
            ) from error
        if error.errno == errno.EROFS:
            raise ReadOnly(
                f"cannot write {path}: its file system has become read-only, as disks do after errors; look at the "
                "system's log, mount it writable, then run again: only what is missing is done"
            ) from error
        raise


def _free(path: str) -> str:
    """The room there is, in words: `12.0 MB of 8.0 GB are free on /data`."""
    folder = os.path.dirname(path)
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return "how much is free cannot be told"
    while not os.path.ismount(folder):
        folder = os.path.dirname(folder)
    return f"{usage.free / 1e6:,.1f} of {usage.total / 1e6:,.1f} MB are free on {folder}"
