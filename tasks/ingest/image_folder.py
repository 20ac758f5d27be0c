"""Pictures in folders: the folder is the source, a .txt file beside a picture its caption.

Each folder that itself holds pictures is a unit. Files count as pictures by their extension, in any case. Left out are
names that begin with a dot, folders called `__MACOSX`, and links to folders inside the input, whose pictures are there
under names of their own. Links that lead outside are not followed: each is a row that failed.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import pyarrow as pa

from configs.errors import InputError
from storage import files
from storage.fingerprints import fingerprint
from storage.shards import InputFile, shown
from tasks.ingest import Slice, Types, fields
from tasks.ingest.pictures import LOT, Folder
from tasks.ingest.records import LONGEST, PICTURES, Row, Unusable, bare, decode, extension, slices

Infos = dict[str, dict[str, Any]]
"""What the file system says of the files of a folder, by name."""


class ImageFolderReader:
    """Reads folders of pictures; no picture is decoded."""

    in_place: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        self._path: str = config.path
        self._captions = config.text is not None
        self._first_line = config.caption == "first_line"
        names = ("image", "text", "key", "source") if self._captions else ("image", "key", "source")
        self._types = {name: fields.IMAGE if name == "image" else fields.TEXT for name in names}
        self._fs, self._root = files.filesystem(config.path)
        self._local = files.is_local(config.path)
        self._folder = Folder(config.path)

    def units(self) -> list[InputFile]:
        """The folders that hold pictures, the top one as `.`; see `Reader`."""
        if not self._fs.isdir(self._root):
            raise InputError(f"`input.path` is {self._path!r}; no folder is there")
        folders = self._walk("") if self._local else self._find()
        units = [unit for inside, infos in folders if (unit := self._unit(inside, infos))]
        if not units:
            raise InputError(f"`input.path` is {self._path!r}; no picture ({', '.join(PICTURES)}) is there")
        return sorted(units, key=lambda unit: unit.file)

    def _walk(self, inside: str) -> Iterator[tuple[str, Infos]]:
        """Folders with what is in them. One that must not be listed is an error; `find` leaves it out silently."""
        infos = self._listed(posixpath.join(self._root, inside))
        folders = [name for name, info in infos.items() if info["type"] == "directory" and _is_shown(name)]
        yield inside, infos
        for name in folders:
            yield from self._walk(posixpath.join(inside, name))

    def _find(self) -> Iterable[tuple[str, Infos]]:
        """The same by one listing of everything, which object stores do best."""
        folders: dict[str, Infos] = {}
        for path, info in self._fs.find(self._root, detail=True).items():
            inside, name = posixpath.split(path[len(self._root) :].lstrip("/"))
            if all(map(_is_shown, inside.split("/"))):
                folders.setdefault(inside, {})[name] = info
        return folders.items()

    def _listed(self, path: str) -> Infos:
        return {posixpath.basename(info["name"].rstrip("/")): info for info in self._fs.ls(path, detail=True)}

    def _unit(self, inside: str, infos: Infos) -> InputFile | None:
        names = self._pictures(inside, infos)
        captions = _captions(infos)
        names += sorted({captions[stem] for name in names if self._captions and (stem := _stem(name)) in captions})
        sizes = [int(infos[name]["size"] or 0) for name in names]
        seen = [[shown(name), size, _stamp(infos[name])] for name, size in zip(names, sizes, strict=True)]
        url = self._fs.unstrip_protocol(posixpath.join(self._root, inside).rstrip("/"))
        # Keys, sources and where links may lead depend on the folder's place below `path`, too.
        stamp = fingerprint({"files": seen, "inside": shown(inside)})
        return InputFile(shown(inside) or ".", url, sum(sizes), stamp) if names else None

    def _pictures(self, inside: str, infos: Infos) -> list[str]:
        """Names that are rows: pictures, and links to folders outside; in code-point order."""
        found = []
        for name, info in infos.items():
            if name.startswith(".") or info["type"] == "directory":
                continue
            if info.get("islink"):
                path = posixpath.join(self._root, inside, name)
                if os.path.exists(path):
                    info = infos[name] = {**self._fs.info(path), "target": info["destination"]}
                if os.path.isdir(path) and not self._leads_out(posixpath.join(inside, name)):
                    continue
            if extension(name) in PICTURES or info["type"] == "directory":
                found.append(name)
        return sorted(found, key=shown)

    def _leads_out(self, name: str) -> bool:
        try:
            self._folder.locate(name)
        except Unusable:
            return True
        return False

    def peek(self, unit: InputFile) -> pa.Schema:
        """The columns, the same for all folders."""
        return pa.schema(list(self._types.items()))

    def read(self, unit: InputFile, types: Types) -> Iterator[Slice]:
        """The pictures of a folder in the order of their names; see `Reader`."""
        return slices(self._rows(files.filesystem(unit.url)[1]), {**self._types, **types})

    def _rows(self, path: str) -> Iterator[Row]:
        inside = path[len(self._root) :].lstrip("/")
        self._fs.invalidate_cache(path)
        infos = self._listed(path)
        captions = _captions(infos) if self._captions else {}
        names = self._pictures(inside, infos)
        for start in range(0, len(names), LOT):
            lot = names[start : start + LOT]
            beside = [captions.get(_stem(name)) for name in lot]
            wanted = [name and posixpath.join(inside, name) for pair in zip(lot, beside, strict=True) for name in pair]
            found = self._folder.fetch(wanted)
            for name, picture, caption in zip(lot, found, found, strict=True):
                yield self._row(inside, name, picture, caption)

    def _row(self, inside: str, name: str, picture: bytes | Unusable | None, caption: bytes | Unusable | None) -> Row:
        source = inside or posixpath.basename(self._root)
        record: dict[str, Any] = {"key": shown(posixpath.join(inside, name)), "source": shown(source)}
        try:
            if self._captions:
                record["text"] = self._text(caption)
            if isinstance(picture, Unusable):
                raise picture
        except Unusable as unusable:
            return Row(record, 0, unusable)
        data = picture or b""
        record["image"] = fields.Picture(data, bare(name))
        return Row(record, len(data) + len(record.get("text") or ""))

    def _text(self, caption: bytes | Unusable | None) -> str | None:
        if isinstance(caption, Unusable):
            raise Unusable(caption.reason.replace("image", "caption"), caption.detail)
        if caption is None:
            return None
        if len(caption) > LONGEST:
            raise Unusable("caption_too_large", f"{len(caption):,} bytes; at most {LONGEST:,} are read")
        return decode(re.split(rb"[\r\n]", caption, maxsplit=1)[0] if self._first_line else caption).rstrip("\r\n")


def _captions(infos: Infos) -> dict[str, str]:
    """Stem -> name of the caption's file; of several, the first in code-point order."""
    return {_stem(name): name for name in sorted(infos, reverse=True) if extension(name) == "txt"}


def _is_shown(folder: str) -> bool:
    return not folder.startswith(".") and folder != "__MACOSX"


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _stamp(info: dict[str, Any]) -> str:
    """What changes when the content does, or where a link leads."""
    stamp = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("created") or ""
    return f"{stamp} {info.get('target', '')}"
