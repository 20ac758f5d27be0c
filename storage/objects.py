"""Remote file systems behind fsspec: a run's options for them, and their errors told in one short sentence.

Options hold credentials. They live in a context variable, so runs side by side in one process keep their own, and are
set where work begins: in the flow, in each task, in each thread of `threads`. They are never stored or sent.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache, partial
from typing import Any, cast
from urllib.parse import quote

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from configs.credentials import masked
from configs.errors import PlaceError
from configs.storage import PACKAGES

Options = Mapping[str, Mapping[str, Any]]
"""Protocol (`s3`, `gs`) -> arguments of its fsspec file system."""

_OPTIONS: ContextVar[Options] = ContextVar("options of file systems", default={})  # noqa: B039 (never changed in place)
_ALIASES = {"s3a": "s3", "gcs": "gs"}
_FIXED: dict[str, dict[str, Any]] = {
    # What another process has written meanwhile is not in this one's memory of listings; and there are services that
    # take only parts of one size.
    "s3": {"use_listings_cache": False, "fixed_upload_size": True},
    "gs": {"use_listings_cache": False},
}
_SECRET_OPTIONS = ("key", "secret", "token")
_SECRET_FIELDS = ("private_key", "private_key_id", "client_secret", "refresh_token")
"""Of a service account's JSON."""
_SECRET_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_VERBS = {"ls": "list", "find": "list", "glob": "list", "pipe_file": "write", "rm": "remove", "rm_file": "remove"}
_VERBS |= dict.fromkeys(("cat_file", "exists", "info", "isdir", "isfile", "open", "size"), "read")


class ObjectError(OSError):
    """Raised when a remote file cannot be read or written: store, network or credentials, never the file's content.

    Always with an errno: by that, readers tell it from what Arrow says of damaged files.
    """

    def __str__(self) -> str:
        return str(self.strerror)


class NoObject(ObjectError, FileNotFoundError):
    """Raised when there is no such object or bucket."""


class NoAccess(ObjectError, PermissionError):
    """Raised when the credentials do not suffice."""


@contextmanager
def using(options: Options) -> Iterator[None]:
    """Within the block, `filesystem` reaches object stores with `options`."""
    before = _OPTIONS.set(options)
    try:
        yield
    finally:
        _OPTIONS.reset(before)


def threads(count: int) -> ThreadPoolExecutor:
    """A pool whose threads know the options of the caller; those of another pool would not."""
    return ThreadPoolExecutor(count, initializer=_OPTIONS.set, initargs=(_OPTIONS.get(),))


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of `url` and the path inside it.

    Raises:
        PlaceError: The package for it is not installed.
        ObjectError: It cannot be set up; all methods of a remote file system raise this too, see `Told`.
    """
    named: dict[str, Any] = {}
    for protocol in (part.partition("://")[0] for part in url.split("::")):
        if protocol in PACKAGES:
            _prepare()
            store = _ALIASES.get(protocol, protocol)
            named[protocol] = {**_FIXED[store], **_OPTIONS.get().get(store, {})}
    try:
        with told("reach", url):
            fs, path = fsspec.core.url_to_fs(url, **named)
    except ImportError:
        extra = next((PACKAGES[name][1] for name in named), None)
        advice = f"pip install 'mixwright[{extra}]'" if extra else "see fsspec's documentation"
        raise PlaceError(f"{masked(url)} needs a package that is not installed: {advice}") from None
    if isinstance(fs, LocalFileSystem | MemoryFileSystem):
        return fs, path
    return cast(fsspec.AbstractFileSystem, Told(fs, partial(_url, fs))), path


def has_folders(url: str) -> bool:
    """Whether folders are made where `url` is: object stores have none."""
    return not any(part.partition("://")[0] in PACKAGES for part in url.split("::"))


@cache
def _prepare() -> None:
    """Settle what the libraries read from the process: once, before the first of them is imported."""
    # gcsfs asks Google how long a token lives, with the token in the URL; and it speaks gRPC to buckets that show
    # unfinished objects. Neither is wanted; who sets the variables decides otherwise.
    os.environ.setdefault("FETCH_RAW_TOKEN_EXPIRY", "false")
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    # Their debug lines print request headers and what stores answer; gcsfs logs, with a traceback, all that it raises.
    for name in ("botocore", "aiobotocore", "s3fs", "fsspec", "urllib3", "google", "requests_oauthlib"):
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)


class Told:
    """A remote file system, or an open file of it, whose methods raise `ObjectError` and nothing else."""

    def __init__(self, target: Any, url_of: Callable[..., str], verb: str | None = None) -> None:
        self._target, self._url_of, self._verb = target, url_of, verb

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        return partial(self._call, name, found) if callable(found) else found

    def _call(self, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        url = self._url_of(*args)
        with told(self._verb or _VERBS.get(name, "reach"), url):
            result = method(*args, **kwargs)
        if name != "open":
            return result
        mode = args[1] if len(args) > 1 else kwargs.get("mode", "rb")
        return Told(result, lambda *_: url, "read" if "r" in mode else "write")

    def __enter__(self) -> Told:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None or self._verb == "read":
            self.close()
        else:
            self.abandon()

    def abandon(self) -> None:
        """Stop writing: no object appears. To close the file instead would complete its upload."""
        with suppress(Exception):  # the error that led here is the one to tell; stores expire unfinished uploads
            self._target.discard()
        self._target.closed = True


def _url(fs: fsspec.AbstractFileSystem, *args: Any) -> str:
    """The URL that a method is called with."""
    path = args[0] if args else ""
    path = path[0] if isinstance(path, list) and path else path
    return str(fs.unstrip_protocol(path)) if isinstance(path, str) else "it"


@contextmanager
def told(verb: str, url: str) -> Iterator[None]:
    """Turn what libraries raise into `cannot read s3://bucket/x: AccessDenied: …`, without chain and credentials."""
    try:
        yield
    except (ObjectError, ImportError):
        raise
    except Exception as error:  # each library has exceptions of its own, and here nothing but I/O is done
        kind, number = _kind(error)
        code = _code(error) or _code(error.__cause__)
        why = f"{code or type(error).__name__}: {' '.join(str(error).split())}"
        if kind is NoObject and code in (None, "404", "NoSuchKey"):
            why = "there is no such object"
        message = redacted(f"cannot {verb} {url}: {why}")
        raise kind(number, message[: len(url) + 300]) from None


def _kind(error: BaseException) -> tuple[type[ObjectError], int]:
    if isinstance(error, FileNotFoundError):
        return NoObject, errno.ENOENT
    if isinstance(error, PermissionError) or str(error).startswith("Forbidden"):  # so gcsfs begins what it tells
        return NoAccess, errno.EACCES
    return ObjectError, errno.EIO


def _code(error: BaseException | None) -> str | None:
    """The store's own word, `AccessDenied` for one."""
    response = getattr(error, "response", None)
    found = response.get("Error", {}).get("Code") if isinstance(response, dict) else getattr(error, "code", None)
    return str(found) if found else None


def redacted(text: str) -> str:
    """`text` without the credentials in use here, and without those in URLs."""
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, "***").replace(quote(secret, safe=""), "***")
    return masked(text)


def _secrets() -> Iterator[str]:
    """Every word of the credentials that is long enough not to be a common word."""
    held: list[Any] = [os.environ.get(name) for name in _SECRET_VARIABLES]
    for options in _OPTIONS.get().values():
        for name in _SECRET_OPTIONS:
            value = options.get(name)
            held += [value.get(field) for field in _SECRET_FIELDS] if isinstance(value, dict) else [value]
    for value in held:
        if isinstance(value, str):
            yield from (word for word in value.split() if len(word) >= 8)
