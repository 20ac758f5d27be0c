"""Files that data name: read from inside one folder, and from nowhere else."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence

from storage import files, objects
from storage.shards import SLICE_BYTES
from tasks.ingest.records import LARGEST, Unusable

CONNECTIONS = 16
"""Files read at once where that pays: not from this machine's own disks."""
LOT = 64
"""Most files to ask for at once."""

_NO_SUCH_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}


class Folder:
    """A folder whose files are read by names that come from data."""

    def __init__(self, url: str) -> None:
        self._fs, self._root = files.filesystem(url)
        self._local = files.is_local(url)
        self._real = os.path.realpath(self._root) if self._local else self._root
        self._known: dict[str, str] = {}

    def locate(self, name: str) -> str:
        """The path of the file `name`, which stands inside the folder, links followed.

        Raises:
            Unusable: `path_escapes_folder`: absolute, a URL, or leading outside by `..` or by a link. Nothing outside
                is opened or asked for. `image_not_found`: no file can have this name.
        """
        plain = posixpath.normpath(name)
        if plain.startswith(("/", "../")) or plain == ".." or "://" in name or os.path.isabs(name):
            raise Unusable("path_escapes_folder", f"{name[:200]!r} is not inside the folder")
        if plain == "." or "\0" in name:
            raise Unusable("image_not_found", f"{name[:200]!r} is no name of a file")
        path = posixpath.join(self._root, plain)
        return self._followed(path, name) if self._local else path

    def _followed(self, path: str, name: str) -> str:
        """The path behind links; folders are remembered, so that a file costs one look at the disk."""
        above, last = os.path.split(path)
        if above not in self._known:
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[above] = os.path.realpath(above)
        real = os.path.join(self._known[above], last)
        real = os.path.realpath(real) if os.path.islink(real) else real
        if real != self._real and not real.startswith(self._real.rstrip("/") + "/"):
            raise Unusable("path_escapes_folder", f"{name[:200]!r} is a link that leads out of the folder")
        return real

    def size(self, name: str) -> int:
        """Bytes of the file `name`.

        Raises:
            Unusable: As `locate`; `image_not_found`: nothing there, or no file; `image_too_large`: above `LARGEST`.
            OSError: It cannot be told now.
        """
        path = self.locate(name)
        try:
            if self._local:
                found = os.stat(path)
                size, regular = found.st_size, stat.S_ISREG(found.st_mode)  # a pipe would make us wait for ever
            else:
                info = self._fs.info(path)
                size, regular = int(info["size"] or 0), info["type"] == "file"
        except OSError as error:
            if isinstance(error, FileNotFoundError) or error.errno in _NO_SUCH_FILE:
                raise Unusable("image_not_found", f"{name[:200]!r} is not there") from None
            raise
        if not regular:
            raise Unusable("image_not_found", f"{name[:200]!r} is not a file")
        if size > LARGEST:
            raise Unusable("image_too_large", f"{name[:200]!r} has {size:,} bytes; at most {LARGEST:,} are read")
        return size

    def read(self, name: str) -> bytes:
        """The content of the file `name`, which `size` has found to be there.

        Raises:
            Unusable: As `locate`.
            OSError: It cannot be read now.
        """
        path = self.locate(name)
        if not self._local:
            return bytes(self._fs.cat_file(path))
        with open(path, "rb") as file:
            return file.read()

    def fetch(self, names: Sequence[str | None]) -> Iterator[bytes | Unusable | None]:
        """The contents of files, or why one cannot be used, in order; None for None.

        All are asked for at once, so `names` are few (`LOT`); about 64 MiB are in memory at once.
        """
        if self._local:
            for name in names:
                yield self._content(name, self._sized(name))
            return
        with objects.threads(CONNECTIONS) as pool:
            for group in _by_size(names, list(pool.map(self._sized, names))):
                yield from pool.map(self._content, *zip(*group, strict=True))

    def _sized(self, name: str | None) -> int | Unusable | None:
        try:
            return None if name is None else self.size(name)
        except Unusable as unusable:
            return unusable

    def _content(self, name: str | None, size: int | Unusable | None) -> bytes | Unusable | None:
        try:
            return self.read(name) if name is not None and isinstance(size, int) else size  # type: ignore[return-value]
        except Unusable as unusable:
            return unusable


Asked = tuple[str | None, int | Unusable | None]


def _by_size(names: Sequence[str | None], sizes: Sequence[int | Unusable | None]) -> Iterator[list[Asked]]:
    """Names with their sizes in groups of about 64 MiB."""
    group: list[Asked] = []
    total = 0
    for name, size in zip(names, sizes, strict=True):
        size_now = size if isinstance(size, int) else 0
        if group and total + size_now > SLICE_BYTES:
            yield group
            group, total = [], 0
        group.append((name, size))
        total += size_now
    if group:
        yield group
