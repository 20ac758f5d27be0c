"""The mixes of a store: each is noted in `<store>/_mixes` when it is published, wherever it is written.

Several configurations may share a store; by these notes cleaning knows whose files it holds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from configs.errors import StoreInUse
from storage import files, manifests
from storage.fingerprints import digest

FOLDER = "_mixes"
VERSION = re.compile("[0-9a-f]{12}")


@dataclass(frozen=True)
class Known:
    """A mix that the store, or a configuration, knows of."""

    url: str
    """Folder of the version."""
    note: str | None = None
    """URL of the store's note."""


def register(store: str, url: str, name: str, version: str) -> None:
    """Note that the mix at `url` stands on files of the store."""
    url = files.absolute(url)
    note = _note_of(store, url)
    if not files.exists(note):
        files.write_json(note, {"url": url, "name": name, "version": version})


def forget(store: str, url: str) -> None:
    """Drop the note of a mix that is gone."""
    files.remove(_note_of(store, files.absolute(url)))


def _note_of(store: str, url: str) -> str:
    return files.join(store, FOLDER, f"{digest(url.encode('utf-8', 'surrogateescape'))}.json")


def registered(store: str) -> list[Known]:
    """The mixes that the store has notes of."""
    notes = [files.join(store, FOLDER, name) for name in files.names(files.join(store, FOLDER))]
    return [Known(files.read_json(note)["url"], note) for note in notes]


def versions(folder: str) -> list[str]:
    """URLs of what looks like versions in the folder of one mix's name, half-made ones too, in no special order."""
    return [files.absolute(files.join(folder, name)) for name in files.names(folder) if VERSION.fullmatch(name)]


def manifest_at(mix: Known) -> dict[str, Any] | None:
    """The manifest of a mix, or None if it is gone.

    Raises:
        StoreInUse: That cannot be told: its place is not there (a disk that is not mounted, a bucket of another
            account), may not be read, or what stands there is no manifest.
    """
    try:
        return dict(files.read_json(files.join(mix.url, manifests.MANIFEST)))
    except FileNotFoundError:
        why = _why_unreachable(mix.url)
        if why is None:
            return None
    except (OSError, json.JSONDecodeError) as error:
        why = str(error)
    advice = f"; if it was deleted, delete {mix.note} too" if mix.note else ""
    raise StoreInUse(
        f"whether the mix {mix.url} still needs the store cannot be told: {why}. Nothing was removed; make it "
        f"reachable{advice}"
    )


def _why_unreachable(url: str) -> str | None:
    """What speaks against a mix being deleted rather than out of reach; None if nothing does."""
    fs, path = files.filesystem(url)
    if not files.is_local(url):
        bucket = path.split("/")[0] if not path.startswith("/") else "/"
        try:
            fs.ls(bucket, detail=False)
        except FileNotFoundError:
            return f"{bucket} is not there"
        return None
    out = os.path.dirname(os.path.dirname(path))
    try:
        return None if os.listdir(out) else f"{out} is empty, as the folder of a disk that is not mounted"
    except FileNotFoundError:
        return f"{out} is not there"
    except OSError as error:
        return str(error)


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
