"""Work item by item: what fails by passing errors of I/O is tried again after the others, nothing else is."""

import errno
import logging
from types import SimpleNamespace

import pytest

from configs.errors import Interrupted, ModelError, PlaceFull
from storage import faults
from storage.objects import NoAccess, NoObject, ObjectError
from tasks import stopping
from tasks.groups import ItemsFailed, _may_pass, each


@pytest.fixture
def slept(monkeypatch):
    """The waits, which are not waited."""
    waited: list[float] = []
    monkeypatch.setattr("tasks.groups.time.sleep", lambda seconds: waited.append(seconds) if seconds else None)
    return waited


def failing(errors: dict[str, list[Exception]], seen: list[str]):
    """Work that raises what `errors` holds of an item, one after the other, and then does well."""

    def work(item: str) -> None:
        seen.append(item)
        if left := errors.get(item):
            raise left.pop(0)

    return work


PASSING = [
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ESTALE, "Stale file handle"),
    TimeoutError("timed out"),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
]
LASTING = [
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    PermissionError(errno.EACCES, "Permission denied"),
    IsADirectoryError(errno.EISDIR, "Is a directory"),
    OSError("Couldn't deserialize thrift: no errno, so Arrow speaks of the content"),
    NoObject(errno.ENOENT, "there is no such object"),
    NoAccess(errno.EACCES, "Forbidden"),
    ValueError("a row is wrong"),
    RuntimeError("a mistake"),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_what_may_pass_is_tried_again_after_the_others(error, slept, caplog):
    seen: list[str] = []
    told = each(["a", "b", "c"], failing({"a": [error, error]}, seen))
    assert seen == ["a", "b", "c", "a", "a"] and slept == [1, 4]
    assert told["items"] == 3 and told["retries"] == 2
    assert [record.message.split(":")[0] for record in caplog.records] == ["a", "a"]
    assert "it is tried again in 1 s (try 2)" in caplog.records[0].message


@pytest.mark.parametrize("error", LASTING, ids=lambda error: type(error).__name__)
def test_what_lasts_is_tried_once(error, slept):
    seen: list[str] = []
    with pytest.raises(ItemsFailed, match="^1 failed, first a: ") as failed:
        each(["a", "b"], failing({"a": [error]}, seen))
    assert seen == ["a", "b"] and slept == [] and "tried" not in str(failed.value)


def test_it_ends_and_says_how_often_it_was_tried(slept):
    seen: list[str] = []
    with pytest.raises(ItemsFailed, match=r"first b: OSError: .*error \(tried 4 times\)"):
        each(["a", "b"], failing({"b": [PASSING[0]] * 9}, seen))
    assert seen == ["a", "b", "b", "b", "b"] and slept == [1, 4, 16]


def test_object_stores_whose_libraries_try_for_themselves_are_tried_once_more(slept):
    seen: list[str] = []
    with pytest.raises(ItemsFailed, match=r"tried 2 times"):
        each(["a"], failing({"a": [ObjectError(errno.EIO, "cannot write s3://b/x: SlowDown")] * 9}, seen))
    assert seen == ["a", "a"] and slept == [*faults.REMOTE_WAITS]


def test_a_full_disk_stops_the_group_at_once(slept):
    seen: list[str] = []
    with pytest.raises(PlaceFull):
        each(["a", "b"], failing({"a": [PlaceFull("no space is left")]}, seen))
    assert seen == ["a"] and slept == []


@pytest.mark.parametrize(("error", "logged"), [(ModelError("a sentence"), 0), (ValueError("a defect"), 1)])
def test_what_a_user_can_mend_is_logged_without_a_traceback(error, logged, monkeypatch, caplog):
    monkeypatch.setattr("tasks.groups.get_run_logger", lambda: logging.getLogger("run"))
    state = SimpleNamespace(result=lambda raise_on_failure: error)
    assert not _may_pass(None, SimpleNamespace(run_count=1), state)
    assert [record.exc_info[1] for record in caplog.records] == [error] * logged


def test_a_run_that_is_to_end_ends_between_two_items():
    seen = []

    def work(item: str) -> None:
        seen.append(item)
        stopping.stop()

    try:
        with pytest.raises(Interrupted, match="what is finished stays"):
            each(["a", "b"], work)
    finally:
        stopping.go_on()
    assert seen == ["a"] and each(["c"], seen.append)["items"] == 1
