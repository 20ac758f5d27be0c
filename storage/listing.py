"""What a folder holds, by one listing: names, sizes, times of the last change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from storage import files


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry of a folder."""

    name: str
    bytes: int
    modified: float
    """Seconds since 1970 by the clock of where it lies; infinity if that is not told."""
    is_folder: bool = False


def listed(url: str) -> Iterator[Listed]:
    """Everything in the folder `url`, hidden files too, in no order; nothing if there is no such folder.

    What another process removes meanwhile is left out.
    """
    fs, path = files.filesystem(url)
    if isinstance(fs, LocalFileSystem):
        yield from _listed_here(path)
        return
    fs.invalidate_cache(path)
    try:
        found = fs.ls(path, detail=True)
    except FileNotFoundError:
        return
    for info in found:
        name = str(info["name"]).rstrip("/")
        if name.strip("/") == path.strip("/"):  # a folder of an object store, marked by an empty object of its name
            continue
        folder = info["type"] == "directory"
        yield Listed(name.rsplit("/", 1)[-1], int(info.get("size") or 0), _changed(info), folder)


def _listed_here(path: str) -> Iterator[Listed]:
    try:
        entries = os.scandir(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            try:
                facts = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield Listed(entry.name, facts.st_size, facts.st_mtime, entry.is_dir(follow_symlinks=False))


def below(url: str) -> Iterator[tuple[str, Listed]]:
    """Every file at any depth below the folder `url`, with its path relative to it."""
    for entry in listed(url):
        if entry.is_folder:
            for name, inner in below(files.join(url, entry.name)):
                yield f"{entry.name}/{name}", inner
        else:
            yield entry.name, entry


def _changed(info: dict[str, Any]) -> float:
    for field in ("LastModified", "mtime", "created"):
        value = info.get(field)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            return datetime.fromisoformat(value).timestamp()
    return float("inf")
