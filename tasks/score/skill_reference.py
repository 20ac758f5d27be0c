"""The reference of a graph of skills: a Parquet file of any size, read batch by batch, known by its content."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3

from configs.errors import ConfigError
from storage import files
from tasks.score.skills import check_lists


def content_digest(url: str) -> str:
    """Digest of the reference's content.

    Raises:
        ConfigError: There is no such file, or it cannot be read.
    """
    found = blake3()
    try:
        with files.reading(url) as file:
            while block := file.read(files.READ_AHEAD):
                found.update(block)
    except FileNotFoundError:
        raise ConfigError(
            f"`score: skill_graph` has `reference` {url!r}, but there is no such file (relative paths start at the "
            "working directory); mend the path, or leave it out to take the data's own rows",
            remedy="",
        ) from None
    except OSError as error:
        raise ConfigError(f"`score: skill_graph` has `reference` {url!r}, which cannot be read: {error}") from None
    return found.hexdigest(length=16)


def lists_of(url: str, column: str) -> Iterator[pa.Array]:
    """The reference's lists of skills, batch after batch; the first `next` finds what is wrong with the file.

    Raises:
        ConfigError: It is no Parquet file, or has no such column.
        ColumnError: The column is not of lists of strings.
    """
    try:
        with files.reading(url) as file:
            parquet = pq.ParquetFile(file)
            names = parquet.schema_arrow.names
            if column not in names:
                raise ConfigError(
                    f"`score: skill_graph` has `reference` {url!r}, which has no column {column!r}; name one of "
                    f"{', '.join(names)} in `reference_column`",
                    remedy="",
                )
            where = f"`score: skill_graph`: {column!r} of `reference` {url!r}"
            check_lists(parquet.schema_arrow.field(column).type, where)
            for batch in parquet.iter_batches(columns=[column]):
                yield batch.column(0)
    except pa.ArrowInvalid as error:
        raise ConfigError(f"`score: skill_graph` has `reference` {url!r}, which is no Parquet file: {error}") from None
