"""Webdataset tars: `<key>.jpg|png|…`, `<key>.txt` and `<key>.json` of every row, in batch order.

The headers are the standard library's, with no times and no users, so that the same mix gives the same tars; nothing of
webdataset is needed to write. A member that a row has nothing for (a null caption) is left out.

Readers split by shard: with W nodes of N workers, shard i is read by node i mod W, and there by worker (i div W) mod N.
So the number of shards should be a multiple of W x N; and who needs the mix's own batches reads it with `MixBatches`.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from typing import Any

from blake3 import blake3

from configs.export import Export
from storage import files
from tasks.embed.images.formats import image_format
from tasks.embed.reasons import BadImage
from tasks.export.rows import Sample

EXTENSIONS = {"JPEG": "jpg", "JPEG2000": "jp2", "HEIF": "heic"}
"""Formats whose extension is not their name in lower case; open_clip's reader takes jpg, png and webp."""


class Counting:
    """Writes a file in large pieces, and knows its size and digest."""

    def __init__(self, file: Any) -> None:
        self._file, self._digest, self._held, self._pieces = file, blake3(), 0, list[bytes]()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append `data`."""
        self._pieces.append(data)
        self.size += len(data)
        self._held += len(data)
        if self._held >= files.MiB:
            self.flush()

    def flush(self) -> None:
        """Hand on what is held back."""
        piece = b"".join(self._pieces)
        self._digest.update(piece)
        self._file.write(piece)
        self._held, self._pieces = 0, []

    @property
    def facts(self) -> dict[str, Any]:
        """Bytes and content digest, as manifests have them, of what was handed on."""
        return {"bytes": self.size, "digest": self._digest.hexdigest(length=16)}


def extension(image: bytes) -> str:
    """The usual file extension of an encoded picture, by how it begins; `bin` if it is none that is known."""
    try:
        found = image_format(image)
    except BadImage:  # a mix whose run has no `embed` stage holds what its input held
        return "bin"
    return EXTENSIONS.get(found, found.lower())


class WebdatasetExporter:
    """See the module."""

    package = "webdataset"
    row_bytes = 3_072  # three headers of 512, as much padding as that on average, and the JSON
    shard_bytes = 250_000_000

    def __init__(self, config: Export) -> None:
        """Every setting that changes a byte is in the rows that `write` is given."""

    def name(self, number: int) -> str:
        """See `Exporter`."""
        return f"{number:05d}.tar"

    def write(self, url: str, samples: Iterator[Sample]) -> dict[str, Any]:
        """See `Exporter`."""
        with files.publishing(url) as sink:
            tar = Counting(sink)
            for sample in samples:
                for suffix, data in _members(sample):
                    member = tarfile.TarInfo(f"{sample.key}.{suffix}")
                    member.size = len(data)
                    tar.write(member.tobuf(tarfile.USTAR_FORMAT))
                    tar.write(data)
                    tar.write(bytes(-len(data) % tarfile.BLOCKSIZE))
            end = 2 * tarfile.BLOCKSIZE
            tar.write(bytes(end + -(tar.size + end) % tarfile.RECORDSIZE))
            tar.flush()
        return tar.facts

    def index(self, shards: list[dict[str, Any]]) -> dict[str, bytes]:
        """See `Exporter`: `sizes.json`, from which open_clip learns the number of samples."""
        sizes = {self.name(number): facts["rows"] for number, facts in enumerate(shards)}
        return {"sizes.json": json.dumps(sizes, indent=1).encode()}

    def read(self, url: str, number: int, begin: int, end: int) -> Iterator[Sample]:
        """See `Exporter`; through our own file systems, as webdataset starts a program for each URL."""
        from webdataset.tariterators import group_by_keys, tar_file_expander

        with files.reading(files.join(url, self.name(number))) as stream:
            members = tar_file_expander([{"url": url, "stream": stream}])
            for found in group_by_keys(members):
                text = found.pop("txt", None)
                rest = found.pop("json").decode()
                pictures = [data for name, data in found.items() if not name.startswith("__")]
                image = pictures[0] if pictures else None
                yield Sample(found["__key__"], image, None if text is None else text.decode(), rest)


def _members(sample: Sample) -> Iterator[tuple[str, bytes]]:
    if sample.image is not None:
        yield extension(sample.image), sample.image
    if sample.text is not None:
        yield "txt", sample.text.encode()
    yield "json", sample.rest.encode()
