"""Files whose content is not what it should be: found out, named with the place, and not read again."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa


class BrokenFile(Exception):
    """Raised when a file's content is damaged or not of the kind it should be; it is quarantined as a whole.

    Not for files that cannot be read at the moment (network, permissions, a full disk): those are OSError, and the
    work is tried again.
    """

    def __init__(self, why: str, at: int | None = None) -> None:
        super().__init__(why, at)
        self.why = why
        self.at = at
        """Byte position up to which the file could be read, if it is known."""

    def __str__(self) -> str:
        return self.why if self.at is None else f"{self.why} (at byte {self.at:,})"


@contextmanager
def parquet_errors(size: int | None = None) -> Iterator[None]:
    """Tell damaged content from failed reading: Arrow raises OSError for both, with an errno for the latter alone.

    Raises:
        BrokenFile: The block raised what Arrow says of damaged content; `size` is the file's, if nothing better is
            known of the place.
        OSError: As it came, if it is about reading.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise BrokenFile(_told(error), size) from error
    except pa.ArrowMemoryError as error:  # the machine's fault, as a rule: another try may do
        raise OSError(errno.ENOMEM, _told(error)) from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise BrokenFile(_told(error), size) from error


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
