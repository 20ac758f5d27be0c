"""Files of a store that no kept mix stands on, and their removal, by listings: linear, a step's folder at a time.

What is removed can be made again by a run. Commit points go first, so a crash in the middle leaves files that do not
exist for readers. Only names that runs give are touched; frozen vocabularies, which users name, never are.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from storage import files
from storage.listing import Listed, below, listed
from storage.together import TOGETHER

PER_SHARD, GLOBAL, PASSING = ("ingest", "embed", "annotate", "score"), ("select", "mix", "sample"), ("emit", "report")
"""Stages by what a mix needs of them: its shards' sidecars; a step whole; nothing once it is published."""
NOTES, STATES, FROZEN = "_files", "_states", "_frozen"
HALF_MADE = ("_building-", "_mining-")
REMOVED = ".removed-"
DIGEST = re.compile("[0-9a-f]{32}")
BULK = 1000
"""Objects removed by one request."""


@dataclass
class References:
    """What the kept mixes stand on."""

    shards: dict[str, set[str]] = field(default_factory=dict)
    """`<stage>/<kind>/<fingerprint>` of a per-shard step or a conversion -> its shards or units."""
    steps: set[str] = field(default_factory=set)
    """Global steps."""
    files: set[str] = field(default_factory=set)
    """Paths in the store without their endings: notes of input files, frozen states."""
    complete: bool = True
    """False if a mix does not say which notes, conversions and states it needs: then all of these stay."""

    def add(self, manifest: dict[str, Any]) -> None:
        """Add what one mix stands on."""
        parents = {one["digest"] for one in manifest["parents"]}
        for told in manifest["steps"]:
            step = f"{told['stage']}/{told['kind']}/{told['fingerprint']}"
            if told["stage"] in PER_SHARD:
                self.shards.setdefault(step, set()).update(parents)
            else:
                self.steps.add(step)
        reuses = manifest.get("reuses")
        if reuses is None:
            self.complete = False
            return
        for step, units in reuses["converted"].items():
            self.shards.setdefault(step, set()).update(units)
        self.files |= {f"ingest/{NOTES}/{name}" for name in reuses["notes"]} | set(reuses["states"])


@dataclass
class Piece:
    """One folder of the store: what of it stays and what goes."""

    stage: str
    kind: str
    url: str
    kept_files: int = 0
    kept_bytes: int = 0
    names: list[str] = field(default_factory=list)
    """Files that go."""
    bytes: int = 0
    whole: bool = False
    """The folder goes with all that is in it."""

    def keep(self, entry: Listed) -> None:
        """Count a file that stays."""
        self.kept_files, self.kept_bytes = self.kept_files + 1, self.kept_bytes + entry.bytes

    def drop(self, name: str, entry: Listed) -> None:
        """Note a file that goes."""
        self.names.append(name)
        self.bytes += entry.bytes


def find(store: str, needed: References, before: float) -> Iterator[Piece]:
    """The folders of a store, one by one.

    Args:
        store: The store.
        needed: What the kept mixes stand on.
        before: Seconds since 1970: what is younger stays.
    """
    for stage in (*PER_SHARD, *GLOBAL, *PASSING):
        for kind in _folders(files.join(store, stage)):
            url = files.join(store, stage, kind)
            if kind == NOTES and stage == "ingest":
                yield _files_of(Piece(stage, kind, url), needed, before)
                continue
            for name in _folders(url):
                piece = Piece(stage, kind, files.join(url, name))
                if name == STATES:
                    yield _files_of(piece, needed, before)
                elif name.startswith(REMOVED):
                    yield _whole(piece, float("inf"))
                elif name.startswith(HALF_MADE) or (stage not in PER_SHARD and DIGEST.fullmatch(name)):
                    stays = f"{stage}/{kind}/{name}" in needed.steps
                    yield _whole(piece, 0.0 if stays else before)
                elif DIGEST.fullmatch(name):
                    converts = stage == "ingest" and kind != "parquet"
                    wanted = needed.shards.get(f"{stage}/{kind}/{name}", set())
                    yield _shards_of(piece, wanted, 0.0 if converts and not needed.complete else before)


def _folders(url: str) -> list[str]:
    """Names of the folders in `url`, hidden ones only where they are on their way out; frozen vocabularies left out."""
    found = (one.name for one in listed(url) if one.is_folder)
    return sorted(name for name in found if name != FROZEN and (name[0] != "." or name.startswith(REMOVED)))


def _whole(piece: Piece, before: float) -> Piece:
    """A folder that stays or goes as one: it stays while one of its files is not older than `before`."""
    inside = list(below(piece.url))
    if any(entry.modified >= before for _, entry in inside):
        for _, entry in inside:
            piece.keep(entry)
        return piece
    piece.whole = before > 0.0
    for name, entry in inside:
        piece.drop(name, entry)
    return piece


def _shards_of(piece: Piece, wanted: set[str], before: float) -> Piece:
    """A folder of sidecars or converted shards: all files of a shard or unit stay or go together."""
    every = [entry for entry in listed(piece.url) if not entry.is_folder]
    inside = [entry for entry in every if entry.name != TOGETHER]
    young = {entry.name[:32] for entry in inside if entry.modified >= before}
    for entry in inside:
        name = entry.name[:32]
        if name in wanted or name in young or not (DIGEST.fullmatch(name) or _is_scratch(entry.name)):
            piece.keep(entry)
        else:
            piece.drop(entry.name, entry)
    return _with_copy(piece, every)


def _files_of(piece: Piece, needed: References, before: float) -> Piece:
    """A folder of single files: notes of input files, frozen states with what lies beside them."""
    place = "/".join(piece.url.rstrip("/").split("/")[-2 if piece.kind == NOTES else -3 :])
    every = list(listed(piece.url))
    for entry in every:
        if entry.name == TOGETHER:
            continue
        stem = f"{place}/{entry.name.split('.')[0]}"
        known = _is_scratch(entry.name) or (needed.complete and stem not in needed.files)
        if entry.modified >= before or entry.is_folder or not known:
            piece.keep(entry)
        else:
            piece.drop(entry.name, entry)
    return _with_copy(piece, every)


def _with_copy(piece: Piece, every: Iterable[Listed]) -> Piece:
    """The folder with the copy of what its files say: that goes as soon as it tells of one that goes."""
    for entry in (entry for entry in every if entry.name == TOGETHER):
        if piece.names or not piece.kept_files:
            piece.drop(entry.name, entry)
        else:
            piece.keep(entry)
    return piece


def _is_scratch(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


# ------------------------------------------------------------------------------------------------------------- removal
def remove(piece: Piece, check: Callable[[], None]) -> None:
    """Remove what goes of a folder, commit points first; `check` is called again and again and may raise.

    A whole local folder is first renamed, so that nothing half of it is left under its name.
    """
    fs, path = files.filesystem(piece.url)
    check()
    if isinstance(fs, LocalFileSystem) and piece.whole:
        with suppress(FileNotFoundError):
            if not os.path.basename(path).startswith(REMOVED):
                gone = os.path.join(os.path.dirname(path), f"{REMOVED}{secrets.token_hex(8)}")
                os.rename(path, gone)
                path = gone
            shutil.rmtree(path)
        return
    for names in _by_rank(piece.names):
        for first in range(0, len(names), BULK):
            check()
            _remove_files(fs, [f"{path}/{name}" for name in names[first : first + BULK]])
        if names:
            _settle(piece.url, names)
    if isinstance(fs, LocalFileSystem) and not piece.kept_files:
        with suppress(OSError):
            os.rmdir(path)


def _by_rank(names: Iterable[str]) -> list[list[str]]:
    """Names in the order of their removal.

    Copies of commit points, commit points of steps, of parts, states that stand for one, the rest.
    """
    ranks: list[list[str]] = [[], [], [], [], []]
    for name in names:
        last = name.rsplit("/", 1)[-1]
        rank = 2 if last.endswith(".json") else 3 if last.endswith(".npz") else 4
        ranks[{TOGETHER: 0, "_done.json": 1}.get(last, rank)].append(name)
    return ranks


def _remove_files(fs: Any, paths: list[str]) -> None:
    if not isinstance(fs, LocalFileSystem):
        with suppress(FileNotFoundError):
            fs.rm(paths)
        return
    for path in paths:
        with suppress(FileNotFoundError):
            os.unlink(path)


def _settle(url: str, names: list[str]) -> None:
    """See that the files are gone for good before those that follow go.

    Raises:
        PermissionError: Some are still there: bulk removal from object stores keeps silent on what was refused.
    """
    fs, path = files.filesystem(url)
    if not isinstance(fs, LocalFileSystem):
        if left := {name for name, _ in below(url)} & set(names):
            raise PermissionError(errno.EACCES, f"{len(left)} files cannot be removed, first {min(left)}", url)
        return
    with suppress(OSError):  # some network file systems flush no folders
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
