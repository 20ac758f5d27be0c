"""The mixes of a store: each is noted in `<store>/_mixes` when it is published, wherever it is written.

Several configurations may share a store, on several machines; by these notes cleaning knows whose files it holds.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from configs.errors import StoreInUse
from storage import files, manifests
from storage.fingerprints import digest

FOLDER = "_mixes"
VERSION = re.compile("[0-9a-f]{12}")
NOTE = re.compile(r"[0-9a-f]{32}\.json")


@dataclass(frozen=True)
class Known:
    """A mix that the store, or a configuration, knows of."""

    url: str
    """Folder of the version."""
    note: str | None = None
    """URL of the store's note."""
    host: str | None = None
    """Machine that noted it, where `url` is local; None: not told."""


def register(store: str, url: str, name: str, version: str) -> None:
    """Note that the mix at `url` stands on files of the store."""
    url = files.absolute(url)
    note = _note_of(store, url)
    if not files.exists(note):
        host = {"host": socket.gethostname()} if files.is_local(url) else {}
        files.write_json(note, {"url": url, "name": name, "version": version} | host)


def forget(store: str, url: str) -> None:
    """Drop the note of a mix that is gone."""
    files.remove(_note_of(store, files.absolute(url)))


def _note_of(store: str, url: str) -> str:
    return files.join(store, FOLDER, f"{digest(url.encode('utf-8', 'surrogateescape'))}.json")


def registered(store: str) -> list[Known]:
    """The mixes that the store has notes of.

    Raises:
        StoreInUse: A note cannot be read; by its name it may speak of a mix.
    """
    names = [name for name in files.names(files.join(store, FOLDER)) if NOTE.fullmatch(name)]
    return [_noted(files.join(store, FOLDER, name)) for name in names]


def _noted(note: str) -> Known:
    try:
        told = files.read_json(note)
        return Known(told["url"], note, told.get("host"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreInUse(
            f"which mix {note} tells of cannot be read ({type(error).__name__}: {error}). Nothing was removed; delete "
            "the note if its mix is gone, else run the mix's configuration again after that, which writes it anew"
        ) from error


def versions(folder: str) -> list[str]:
    """URLs of what looks like versions in the folder of one mix's name, half-made ones too, in no special order."""
    return [files.absolute(files.join(folder, name)) for name in files.names(folder) if VERSION.fullmatch(name)]


def manifest_at(mix: Known) -> dict[str, Any] | None:
    """The manifest of a mix, or None if it is gone.

    Raises:
        StoreInUse: That cannot be told: its place is not there (a disk that is not mounted, one of another machine, a
            bucket of another account), may not be read, or what stands there is no manifest.
    """
    try:
        return dict(files.read_json(files.join(mix.url, manifests.MANIFEST)))
    except FileNotFoundError:
        why = _why_unreachable(mix)
        if why is None:
            return None
    except (OSError, json.JSONDecodeError) as error:
        why = str(error)
    advice = f"; if it was deleted, delete {mix.note} too" if mix.note else ""
    raise StoreInUse(
        f"whether the mix {mix.url} still needs the store cannot be told: {why}. Nothing was removed; make it "
        f"reachable{advice}"
    )


def is_link(mix: Known) -> bool:
    """Whether the mix's folder is a link, to another disk perhaps: it is not ours to remove."""
    return files.is_local(mix.url) and os.path.islink(files.filesystem(mix.url)[1])


def _why_unreachable(mix: Known) -> str | None:
    """What speaks against a mix being deleted rather than out of reach; None if nothing does."""
    fs, path = files.filesystem(mix.url)
    if not files.is_local(mix.url):
        bucket = path.split("/")[0] if not path.startswith("/") else "/"
        try:
            fs.ls(bucket, detail=False)
        except FileNotFoundError:
            return f"{bucket} is not there"
        return None
    named = os.path.dirname(path)
    linked = [place for place in (path, named) if os.path.islink(place)]
    out = os.path.dirname(named)
    try:
        for place in [*linked, out]:
            if not os.path.isdir(place):
                return f"{place} is not there" if place == out else f"{place} is a link to what is not there"
            if not os.listdir(place):
                return f"{place} is empty, as the folder of a disk that is not mounted"
    except OSError as error:
        return str(error)
    if mix.host not in (None, socket.gethostname()) and not os.path.isdir(path):
        return f"it was written on {mix.host} and is not there on this machine, {socket.gethostname()}"
    return None


def kept(store: str, folder: str, going: set[str]) -> Iterator[tuple[Known, dict[str, Any] | None]]:
    """Every mix that may stand on the store with its manifest, None if it is gone; those in `going` left out.

    Args:
        store: The store.
        folder: Where a configuration writes its versions: mixes made before there were notes count too.
        going: URLs of versions that are to be removed.
    """
    found = {mix.url: mix for mix in map(Known, versions(folder))} | {mix.url: mix for mix in registered(store)}
    for url, mix in sorted(found.items()):
        if url not in going:
            yield mix, manifest_at(mix)
