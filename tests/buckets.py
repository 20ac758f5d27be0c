"""Object stores on this machine: S3 by moto, Google's by its emulator. Requests are noted and can be made to fail."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from configs.storage import Storage
from storage import files, objects

Answer = tuple[int, str]
"""HTTP status and the store's own word for the error."""


@dataclass
class Store:
    """A running store with the empty bucket `bucket`."""

    protocol: str
    url: str
    seen: list[dict[str, Any]] = field(default_factory=list)
    """WSGI environments of all requests (S3 alone)."""
    fault: Callable[[dict[str, Any]], Answer | None] | None = None
    """Says which requests fail, and how (S3 alone)."""

    @property
    def section(self) -> dict[str, Any]:
        """The `storage` section that reaches it, with the credentials of `credentials`."""
        if self.protocol == "gs":
            return {"gs": {"endpoint_url": self.url, "project": "test", "token": "anon"}}
        keys = {"key": "env:TEST_KEY", "secret": "env:TEST_SECRET", "token": "env:TEST_TOKEN"}
        return {"s3": {"endpoint_url": self.url, "region": "eu-central-1", **keys}}

    @property
    def options(self) -> dict[str, dict[str, Any]]:
        """What `storage.objects.using` takes."""
        return Storage.model_validate(self.section).options()

    def place(self, name: str) -> str:
        """The URL of a fresh bucket."""
        with objects.using(self.options):
            files.filesystem(f"{self.protocol}://x")[0].mkdir(name)
        return f"{self.protocol}://{name}"

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        self.seen.append({k: v for k, v in environ.items() if isinstance(v, str)})
        answer = self.fault(environ) if self.fault else None
        if answer is None:
            return self._app(environ, start)
        status, code = answer
        start(f"{status} {code}", [("Content-Type", "application/xml")])
        if environ["REQUEST_METHOD"] == "HEAD":  # a body behind it would be taken for the next answer
            return []
        return [f"<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>".encode()]

    _app: Any = None


def upload(store: Store, folder: Path, place: str) -> None:
    """Put the files of `folder` under `place`."""
    with objects.using(store.options):
        for file in sorted(folder.iterdir()):
            files.write_bytes(f"{place}/{file.name}", file.read_bytes())


def contents(store: Store, place: str) -> dict[str, bytes]:
    """All objects under `place`, by their names there."""
    with objects.using(store.options):
        fs, path = files.filesystem(place)
        return {name.removeprefix(f"{path}/"): fs.cat_file(name) for name in fs.find(path)}


CREDENTIALS = {
    "TEST_KEY": "AKIAPLANTEDPLANTED01",
    "TEST_SECRET": "planted/secret+0123456789abcdefghijklmnop",
    "TEST_TOKEN": "plantedtoken//////////0123456789abcdefghijklmnop==",
}


@contextmanager
def s3() -> Iterator[Store]:
    """moto behind a front that notes requests and fails those that it is told to."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = Store("s3", "")
    store._app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, store, threaded=True)
    store.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def gs() -> Iterator[Store]:
    """Google's store by gcp-storage-emulator, in memory."""
    from http import HTTPStatus

    from gcp_storage_emulator.server import HANDLERS, create_server

    uploads = next(handlers for pattern, handlers in HANDLERS if pattern.startswith("^/upload/"))
    # An upload that is called off; the emulator does not know that.
    uploads["DELETE"] = lambda request, response, storage: setattr(response, "status", HTTPStatus.NO_CONTENT)
    server = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    server._api._httpd.handle_error = lambda *_: None  # clients that hang up early are no news
    try:
        yield Store("gs", f"http://127.0.0.1:{server._api._httpd.server_address[1]}")
    finally:
        server.stop()


def credentials(patch: pytest.MonkeyPatch) -> None:
    """Plant the credentials that sections name, and take away all others."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "FSSPEC_"))]:
        patch.delenv(name)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("AWS_MAX_ATTEMPTS", "3")  # five by default: tests wait less
    patch.setenv("AWS_CONFIG_FILE", os.devnull)
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    for name, value in CREDENTIALS.items():
        patch.setenv(name, value)
