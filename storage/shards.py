"""Input shards: finding them, knowing their content, reading their columns."""

from __future__ import annotations

import base64
import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from configs.errors import InputError
from storage import files, together
from storage.fingerprints import digest, fingerprint
from storage.naming import AS_IT_IS, Naming

SLICE_BYTES = 64 * files.MiB
"""About how many bytes of images are in memory at once while a shard is read."""


@dataclass(frozen=True)
class InputFile:
    """A file as the listing shows it."""

    file: str
    """URL relative to the input root, with forward slashes; behind the input's name, if it has one."""
    url: str
    size: int
    stamp: str
    """What changes when the content does: ETag, else modification time."""
    naming: Naming = AS_IT_IS
    failures: str | None = None
    """URL of the rows that could not be used when this shard was made from something else."""


@dataclass(frozen=True)
class Shard:
    """A file whose content is known."""

    index: int
    """Position among the run's shards, which stand in the order of `file`."""
    file: str
    url: str
    digest: str
    """Digest of the content, as this run's names show it."""
    rows: int
    naming: Naming = AS_IT_IS


def find(path: str, suffixes: tuple[str, ...] = (".parquet",)) -> list[InputFile]:
    """The files that `path` (a folder, a glob or one file) names, in code-point order of their relative URL.

    Of a folder, also one that the glob matches, those at any depth that end in one of `suffixes`; nothing hidden,
    nothing that begins with `_`.

    Raises:
        InputError: Nothing matches.
    """
    fs, root = files.filesystem(path)
    magic = any(character in root for character in "*?[") and not fs.exists(root)
    if not magic and fs.isfile(root):
        root, pattern = posixpath.dirname(root), posixpath.basename(root)
        found = {f"{root}/{pattern}": fs.info(f"{root}/{pattern}")}
    else:
        pattern = " or ".join(f"*{suffix}" for suffix in suffixes)
        if magic:
            fixed = [part for part in _before_magic(root)]
            pattern, root = root[len("/".join(fixed)) + 1 :], "/".join(fixed)
            found = fs.glob(f"{root}/{pattern}", detail=True)
            folders = [name for name, info in found.items() if _followed(fs, name, info)["type"] == "directory"]
            for folder in folders:  # data sets that other programs write are folders called x.parquet
                found |= {k: v for k, v in _below(fs, folder).items() if k.endswith(suffixes)}
        else:
            found = {k: v for k, v in _below(fs, root).items() if k.endswith(suffixes)}
    result = []
    for name, info in found.items():
        relative = name[len(root) :].lstrip("/")
        info = _followed(fs, name, info)
        if info["type"] != "file" or any(part.startswith((".", "_")) for part in relative.split("/")):
            continue
        stamp = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("created") or ""
        result.append(InputFile(shown(relative), fs.unstrip_protocol(name), int(info["size"]), str(stamp)))
    if not result:
        raise InputError(f"`input.path` is {path!r}; no {pattern} file is there")
    return sorted(result, key=lambda entry: entry.file)


def shown(name: str) -> str:
    """A name of a file as text: bytes that are not UTF-8 are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _below(fs: Any, root: str) -> dict[str, Any]:
    """Every file below a folder; a folder that cannot be listed is an error, never a smaller input."""
    if not isinstance(fs, LocalFileSystem):
        return dict(fs.find(root, detail=True))
    if not os.path.isdir(root):
        return {}

    def fail(error: OSError) -> None:
        raise error

    seen = [f"{os.path.realpath(root)}/"]

    def is_new(path: str) -> bool:
        """Whether a folder is to be gone into: links lead to folders outside, each once, and never round in circles."""
        if not os.path.islink(path):
            return True
        target = f"{os.path.realpath(path)}/"
        known = any(target.startswith(one) or one.startswith(target) for one in seen)
        seen.append(target)
        return not known

    names = []
    for folder, folders, inside in os.walk(root, onerror=fail, followlinks=True):
        folders[:] = [name for name in sorted(folders) if is_new(f"{folder}/{name}")]
        names += [f"{folder}/{name}" for name in inside]
    dead = {"type": "file", "size": 0}  # a link to nothing is a file that cannot be read, not one that is not there
    return {name: fs.info(name) if os.path.exists(name) else dead for name in names}


def _followed(fs: Any, name: str, info: dict[str, Any]) -> dict[str, Any]:
    """What a link stands for; shards are often links, into a cache for one."""
    if not info.get("islink") or not isinstance(fs, LocalFileSystem) or not os.path.exists(name):
        return info
    facts, kind = os.stat(name), "directory" if os.path.isdir(name) else "file" if os.path.isfile(name) else "other"
    return info | {"type": kind, "size": facts.st_size, "mtime": facts.st_mtime}


def _before_magic(path: str) -> Iterator[str]:
    for part in path.split("/"):
        if any(character in part for character in "*?["):
            return
        yield part


NOTES = ("ingest", "_files")
"""Folder in the store of what is remembered of input files."""


class Memory:
    """What earlier runs learned of input files: digest, rows and schema by URL, size and stamp."""

    def __init__(self, store: str) -> None:
        self._folder = files.join(store, *NOTES)
        self._known = set(files.names(self._folder))

    def recall(self, entry: InputFile) -> dict[str, Any] | None:
        """What is known of the file as it is listed now; None if it is new or has changed."""
        return self.recall_all([entry])[0]

    def recall_all(self, entries: Sequence[InputFile]) -> list[dict[str, Any] | None]:
        """`recall` of each of `entries`, read together where they are many."""
        names = [_note_of(entry) for entry in entries]
        copy = together.stored(self._folder) if len(names) > together.FEW else {}
        # Notes change with their files: one that no longer fits is read itself.
        fitting = {n for n, entry in zip(names, entries, strict=True) if n in copy and _fits(copy[n], entry)}
        fresh = together.read_each(self._folder, sorted({n for n in names if n in self._known} - fitting))
        if len(fresh) > together.FEW:
            together.store(self._folder, copy | fresh)
        found = {name: copy[name] for name in fitting & self._known} | fresh
        return [
            found[n] if n in found and _fits(found[n], entry) else None for n, entry in zip(names, entries, strict=True)
        ]

    def remember(self, entry: InputFile, content: str, rows: int, schema: pa.Schema, broken: str | None = None) -> None:
        """Note what a full read of the file has shown; `broken` says why it cannot be used."""
        facts = {
            "url": entry.url,
            "size": entry.size,
            "stamp": entry.stamp,
            "digest": content,
            "rows": rows,
            "schema": base64.b64encode(schema.serialize()).decode(),
            "broken": broken,
            "pyarrow": pa.__version__,
        }
        files.write_json(files.join(self._folder, _note_of(entry)), facts)


def _fits(facts: dict[str, Any], entry: InputFile) -> bool:
    """Whether a note is of the file as it is listed now; another version may read what one of pyarrow could not."""
    readable = not facts.get("broken") or facts["pyarrow"] == pa.__version__
    return readable and (facts["size"], facts["stamp"]) == (entry.size, entry.stamp)


def note_of(entry: InputFile) -> str:
    """Name, without its ending, of what is remembered of a file."""
    return digest(entry.url.encode("utf-8", "surrogateescape"))


def _note_of(entry: InputFile) -> str:
    return f"{note_of(entry)}.json"


def schema_of(facts: dict[str, Any]) -> pa.Schema:
    """The remembered schema."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(facts["schema"])))


def footer(url: str) -> tuple[int, pa.Schema]:
    """Rows and Arrow schema of a Parquet file."""
    with files.reading(url) as file:
        parquet = pq.ParquetFile(file)
        return parquet.metadata.num_rows, parquet.schema_arrow


def shard_digest(content: str, naming: Naming) -> str:
    """Digest of a file's content as a run sees it: under other names of columns it is another shard."""
    return content if not naming.columns else fingerprint({"content": content, "columns": naming.columns})


def set_digest(shards: list[Shard]) -> str:
    """Digest of an ordered set of shards: what a global step depends on."""
    return fingerprint({"shards": [[shard.file, shard.digest] for shard in shards]})


def as_binary(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Image bytes of an image column: binary as it is, `struct<bytes, path>` by its `bytes`; null where null."""
    if pa.types.is_struct(column.type):
        kind = column.type.field("bytes").type
        column = pa.chunked_array([pc.struct_field(chunk, "bytes") for chunk in column.chunks], kind)
    return column.cast(pa.binary()) if pa.types.is_null(column.type) else column


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A text column as `string` or `large_string`."""
    plain = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return column if plain else column.cast(pa.string())


def as_label(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of keys or groups as `string`; bytes that are not UTF-8, which files may declare to be, are escaped."""
    labels = column.cast(pa.string())
    try:
        labels.validate(full=True)
    except pa.ArrowInvalid:
        raw = labels.cast(pa.binary()).to_pylist()
        escaped = [None if value is None else value.decode("utf-8", "backslashreplace") for value in raw]
        return pa.chunked_array([pa.array(escaped, pa.string())])
    return labels


def read(shard: Shard | InputFile, columns: Sequence[str]) -> pa.Table:
    """Columns of a shard under the run's names, whole."""
    physical = shard.naming.physical(columns)
    with files.reading(shard.url) as file:
        parquet = pq.ParquetFile(file)
        if not physical:  # constants only: as many rows as there are
            return shard.naming.table(pa.table({"": pa.nulls(parquet.metadata.num_rows)}), columns)
        return shard.naming.table(parquet.read(columns=sorted(set(physical)), use_threads=False), columns)


def stream(shard: Shard | InputFile, columns: Sequence[str], image: str | None) -> Iterator[pa.Table]:
    """Columns of a shard under the run's names, in slices of about 64 MiB, so that images are never all in memory.

    The image column arrives as binary, whatever its form in the file.
    """
    naming = shard.naming
    with files.reading(shard.url) as file:
        parquet = pq.ParquetFile(file)
        inside = naming.in_file(image) if image is not None and image in columns else None
        physical = [f"{c}.bytes" if c == inside and _is_struct(parquet, c) else c for c in naming.physical(columns)]
        size = slice_rows(parquet.metadata)
        for batch in parquet.iter_batches(batch_size=size, columns=physical, use_threads=False):
            table = naming.table(pa.Table.from_batches([batch]), columns)
            if inside:
                position = table.column_names.index(image)
                table = table.set_column(position, image, as_binary(table.column(position)))
            yield table


def _is_struct(parquet: pq.ParquetFile, column: str) -> bool:
    return pa.types.is_struct(parquet.schema_arrow.field(column).type)


def slice_rows(metadata: pq.FileMetaData) -> int:
    """Rows of a slice of about `SLICE_BYTES`, at the density of the file's densest row group."""
    densest = 1.0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        densest = max(densest, group.total_byte_size / max(1, group.num_rows))
    return int(min(65_536, max(1, SLICE_BYTES // densest)))
