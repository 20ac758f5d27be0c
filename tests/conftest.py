"""What several tests share: a server, a corpus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import buckets
import pytest
from corpora import write_corpus
from hypothesis import settings

# Examples are the same in every run, and time is not what tests are about.
settings.register_profile("mixwright", deadline=None, derandomize=True)
settings.load_profile("mixwright")


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A temporary Prefect server; no heartbeat thread, which costs 1 s per flow run."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder with a small corpus in `in`."""
    write_corpus(tmp_path / "in")
    return tmp_path


@pytest.fixture(scope="module")
def s3():
    """An S3 store on this machine."""
    with buckets.s3() as store:
        yield store


@pytest.fixture(scope="module")
def gs():
    """Google's, by its emulator."""
    with buckets.gs() as store:
        yield store


@pytest.fixture
def planted(monkeypatch, s3):
    """The credentials that `storage` sections of tests name, and a store without faults."""
    buckets.credentials(monkeypatch)
    s3.fault = None
    s3.seen.clear()
