"""Folders of `save_to_disk` of Hugging Face `datasets`: Arrow streams beside `state.json`, read without the library.

So a folder costs no import, streams from object stores as well, and nothing that its JSON says is followed but names
of files right beside it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from configs.errors import InputError
from storage import files
from storage.broken import BrokenFile, parquet_errors
from storage.fingerprints import fingerprint
from storage.shards import InputFile
from tasks.ingest.records import SLICE_ROWS

PIECE = 16 * files.MiB
"""About how many bytes of a record batch are passed on at once."""


def is_saved(url: str) -> bool:
    """Whether `save_to_disk` has written the folder."""
    return any(files.exists(files.join(url, name)) for name in ("state.json", "dataset_dict.json"))


def unit(url: str, split: str) -> InputFile:
    """The split (`train`, `train[:1%]`, `train+test`): the size of its files, and what they look like.

    Raises:
        InputError: There is no such split, or the folder's JSON is not what `save_to_disk` writes.
    """
    infos = []
    for folder in (_folder(url, base_name(part)) for part in split.split("+")):
        fs, path = files.filesystem(folder)
        infos += [fs.info(posixpath.join(path, name)) for name in _names(folder)]
    look = [[info["size"], str(info.get("ETag") or info.get("mtime") or info.get("created") or "")] for info in infos]
    size = sum(int(info["size"]) for info in infos)
    return InputFile(split, files.absolute(url), size, fingerprint({"split": split, "files": look}))


def base_name(part: str) -> str:
    """The split that a part is of: `train` of `train[:1%]`."""
    return part.partition("[")[0].strip()


def _folder(url: str, name: str) -> str:
    if files.exists(files.join(url, "state.json")):
        has = _json(files.join(url, "state.json")).get("_split")
        # What is saved of a slice or a sum is called after it, and may be asked for by any name.
        if isinstance(has, str) and has.isidentifier() and has != name:
            raise InputError(f"`input.split` is {name!r}; the data set in {url} is its split {has!r}")
        return url
    splits = _json(files.join(url, "dataset_dict.json")).get("splits")
    if not isinstance(splits, list) or name not in splits or not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"`input.split` is {name!r}; the data set in {url} has {_listed(splits)}")
    return files.join(url, name)


def _listed(splits: Any) -> str:
    return ", ".join(map(repr, splits)) if isinstance(splits, list) else "no splits"


def _names(folder: str) -> list[Any]:
    """The names of the Arrow files in order, which stand beside `state.json`."""
    entries = _json(files.join(folder, "state.json")).get("_data_files")
    if not isinstance(entries, list):
        raise InputError(f"{folder}/state.json lists no data files; `save_to_disk` writes `_data_files`")
    names = [entry.get("filename") if isinstance(entry, dict) else entry for entry in entries]
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
            raise InputError(f"{folder}/state.json names the data file {name!r}; only files beside it are read")
    return names


def _json(url: str) -> dict[str, Any]:
    try:
        found = files.read_json(url)
    except ValueError as error:
        raise InputError(f"{url} is not the JSON that `save_to_disk` writes: {error}") from error
    return found if isinstance(found, dict) else {}


def schema(url: str, split: str) -> pa.Schema:
    """The schema of the first file.

    Raises:
        BrokenFile: It is damaged.
    """
    folder = _folder(url, base_name(split.split("+")[0]))
    name = next(iter(_names(folder)), None)
    if name is None:
        return pa.schema([])
    with parquet_errors(0), files.reading(files.join(folder, name)) as file, pa.ipc.open_stream(file) as reader:
        return reader.schema


def tables(url: str, split: str) -> Iterator[pa.Table]:
    """The rows of a split in tables of about 16 MiB, straight from the files' pages where they are local.

    Raises:
        BrokenFile: A file is damaged; the place is the position in that file.
        OSError: A file cannot be read now.
    """
    for part in split.split("+"):
        folder = _folder(url, base_name(part))
        ranges = _ranges(folder, part.strip()) if "[" in part else None
        at = 0
        for table in _pieces(folder):
            for low, high in [(0, at + table.num_rows)] if ranges is None else ranges:
                first, last = max(low - at, 0), min(high - at, table.num_rows)
                if first < last:
                    yield table.slice(first, last - first)
            at += table.num_rows


def _pieces(folder: str) -> Iterator[pa.Table]:
    for name in _names(folder):
        with files.reading(files.join(folder, name), memory_map=True) as file:
            for batch in _batches(file):
                count = max(1, min(SLICE_ROWS, batch.num_rows * PIECE // max(1, batch.nbytes)))
                for start in range(0, batch.num_rows, count):
                    yield pa.Table.from_batches([batch.slice(start, count)])


def _batches(file: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    place = 0
    try:
        with parquet_errors(), pa.ipc.open_stream(file) as reader:
            for batch in reader:
                _check(batch)
                place = file.tell()
                yield batch
    except BrokenFile as broken:
        raise BrokenFile(broken.why, place) from broken


def _check(batch: pa.RecordBatch) -> None:
    """Raise ArrowInvalid if buffers do not fit together. Texts that are not UTF-8 are a matter of their rows."""
    for column in batch.columns:
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            column = column.view(pa.binary() if pa.types.is_string(kind) else pa.large_binary())
        column.validate(full=True)


def _ranges(folder: str, part: str) -> list[tuple[int, int]]:
    """The rows that a part like `train[10%:20]` is of.

    Raises:
        InputError: It is no such part, or goes beyond the rows that there are.
    """
    from datasets import ReadInstruction

    rows = sum(table.num_rows for table in _pieces(folder))
    try:
        found = ReadInstruction.from_spec(part).to_absolute({base_name(part): rows})
    except (ValueError, AssertionError) as error:
        raise InputError(f"`input.split` is {part!r}, of {rows:,} rows; `datasets` says: {error}") from error
    return [(one.from_ or 0, rows if one.to is None else one.to) for one in found]
