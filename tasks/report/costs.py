"""What stages cost: bytes that they read and left in the store, and the machine they ran on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable

from storage import files
from storage.steps import Step


def sizes(folder: str) -> dict[str, int]:
    """Bytes of the files directly in `folder` by name, temporaries left out; empty if there is no such folder."""
    fs, path = files.filesystem(folder)
    try:
        found = fs.ls(path, detail=True)
    except FileNotFoundError:
        return {}
    names = {
        one["name"].rstrip("/").rsplit("/", 1)[-1]: int(one["size"] or 0) for one in found if one["type"] == "file"
    }
    return {name: size for name, size in names.items() if not name.startswith(".")}


def stored(step: Step, digests: Iterable[str]) -> int:
    """Bytes that `step` left in the store for these shards, and for all of them together."""
    mine = {*digests}
    found = sizes(step.url) | sizes(files.join(step.url, "coverage"))
    # Other runs share the store: files that bear a shard's digest count only if the shard is one of ours.
    return sum(size for name, size in found.items() if len(name.split(".")[0]) != 32 or name.split(".")[0] in mine)


def machine() -> str:
    """The machine in one line: nothing that names it or its owner."""
    import psutil

    memory = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB of memory"
    return f"{system}, Python {platform.python_version()}"
