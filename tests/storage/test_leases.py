"""Runs share a store, cleaning has it alone; who is killed holds nothing."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from configs.errors import StoreInUse
from storage import files, leases, objects
from storage.leases import CLEANING, Lease

PROGRAM = """
import sys, time
from storage.leases import Lease
with Lease(sys.argv[1], "pairs", print, doing=sys.argv[2]) as lease:
    lease.take() if sys.argv[2] == "run" else lease.take_alone()
    print("taken", flush=True)
    time.sleep(60)
"""


def holding(store, doing="run") -> subprocess.Popen:
    """A process of its own that holds the store."""
    command = [sys.executable, "-c", PROGRAM, str(store), doing]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "taken\n"
    return process


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def cleaning(store, log=None) -> Lease:
    return Lease(str(store), "pairs", (log if log is not None else []).append, doing=CLEANING)


def running(store, log=None, **over) -> Lease:
    return Lease(str(store), "pairs", (log if log is not None else []).append, **over)


def soon(question, seconds=30.0):
    end = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def memory():
    """A store without locks."""
    yield "memory://leases/store"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def age(url: str, seconds: float) -> None:
    """Make a file look older."""
    if files.is_local(url):
        os.utime(url, (time.time() - seconds,) * 2)
    else:
        file = MemoryFileSystem.store[files.filesystem(url)[1]]
        file.created = file.created.fromtimestamp(file.created.timestamp() - seconds, file.created.tzinfo)


def test_two_processes_share_and_a_third_that_cleans_is_told_who_they_are(tmp_path):
    one, two = holding(tmp_path / "store"), holding(tmp_path / "store")
    try:
        with pytest.raises(StoreInUse) as told, cleaning(tmp_path / "store") as lease:
            lease.take_alone()
        for process in (one, two):
            assert f"run of 'pairs' on {socket.gethostname()}, process {process.pid}, since 20" in str(told.value)
    finally:
        kill(one)
        with pytest.raises(StoreInUse, match=f"process {two.pid}") as told, cleaning(tmp_path / "store") as lease:
            lease.take_alone()
        assert f"process {one.pid}" not in str(told.value)
        kill(two)
    with cleaning(tmp_path / "store") as lease:
        lease.take_alone()  # at once: the kernel has freed the locks of both
        assert [one.doing for one in leases.holders(str(tmp_path / "store"))] == [CLEANING]
    assert leases.holders(str(tmp_path / "store")) == []


def test_a_run_waits_while_another_process_cleans_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "POLL_SECONDS", 0.01)
    process, log = holding(tmp_path / "store", CLEANING), []
    with running(tmp_path / "store", log) as lease:
        thread = threading.Thread(target=lease.take)
        thread.start()
        soon(lambda: log)
        assert f"is being cleaned (gc of 'pairs' on {socket.gethostname()}, process {process.pid}" in log[0]
        assert log[0].endswith("this run waits until that has ended") and thread.is_alive()
        kill(process)
        thread.join(30)
        assert log[1:] == ["the store is clean; going on"]


def test_who_does_not_wait_is_refused(tmp_path, memory):
    for store in (str(tmp_path / "store"), memory):
        with cleaning(store) as first, running(store, wait=False) as second:
            first.take_alone()
            with pytest.raises(StoreInUse, match="start again when that has ended"):
                second.take()


@pytest.mark.parametrize("locks", [True, False])
def test_one_cleaning_at_a_time_and_none_beside_a_run(tmp_path, monkeypatch, locks):
    if not locks:
        monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks")))
    log: list[str] = []
    with running(tmp_path / "store", log) as one, running(tmp_path / "store") as two:
        one.take()
        one.take()
        two.take()
        assert [line for line in log if "cannot be locked" in line] == log and len(log) == (0 if locks else 1)
        with pytest.raises(StoreInUse, match="in use: run of"), cleaning(tmp_path / "store") as third:
            third.take_alone()
    with cleaning(tmp_path / "store") as one, cleaning(tmp_path / "store") as two:
        one.take_alone()
        with pytest.raises(StoreInUse, match="in use: gc of"):
            two.take_alone()


def test_without_locks_the_age_of_a_note_tells_the_living_from_the_dead(memory):
    dead = running(memory)
    dead.take()
    dead._ended.set()  # it renews no more, and leaves its note
    note = leases.holders(memory)[0].file
    age(files.join(memory, "_runs", note), 500)
    with pytest.raises(StoreInUse, match="in use: run of"), cleaning(memory) as lease:
        lease.take_alone()
    age(files.join(memory, "_runs", note), 200)
    with cleaning(memory) as lease:
        lease.take_alone()
        assert [one.doing for one in leases.holders(memory)] == [CLEANING]


def test_the_note_of_another_machine_counts_though_its_lock_does_not_meet_ours(tmp_path):
    note = {"host": "elsewhere", "pid": 7, "since": "then", "mix": "other", "doing": "run", "locked": True}
    files.write_json(f"{tmp_path}/store/_runs/elsewhere-7-abc.json", note)
    with pytest.raises(StoreInUse, match="run of 'other' on elsewhere, process 7"):
        with cleaning(tmp_path / "store") as lease:
            lease.take_alone()
    age(f"{tmp_path}/store/_runs/elsewhere-7-abc.json", 700)
    with cleaning(tmp_path / "store") as lease:
        lease.take_alone()


@pytest.mark.parametrize("local", [True, False])
def test_notes_are_renewed_while_the_lease_lasts(tmp_path, memory, monkeypatch, local):
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.02)
    store = str(tmp_path / "store") if local else memory
    with running(store) as lease:
        lease.take()
        age(files.join(store, "_runs", leases.holders(store)[0].file), 5000)
        soon(lambda: leases.holders(store)[0].age < 100)
    assert leases.holders(store) == []
    time.sleep(0.1)
    assert leases.holders(store) == []  # and no longer


def test_a_deleted_store_is_not_made_again_by_the_renewal(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.02)
    with running(tmp_path / "store") as lease:
        lease.take()
        files.remove(str(tmp_path / "store"))
        time.sleep(0.1)
        assert not (tmp_path / "store").exists()


def test_a_deleted_note_is_written_again_while_the_store_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.02)
    store = str(tmp_path / "store")
    with running(store) as lease:
        lease.take()
        (before,) = leases.holders(store)
        files.remove(files.join(store, "_runs"))
        soon(lambda: leases.holders(store))
        (again,) = leases.holders(store)
        assert (again.file, again.pid, again.since) == (before.file, os.getpid(), before.since)
    assert leases.holders(store) == []


def test_a_note_on_its_way_at_the_end_does_not_stand_after_it(memory, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.02)
    write, on_its_way = files.write_json, threading.Event()

    def slow(url, value):
        if threading.current_thread().name == "lease":
            on_its_way.set()
            time.sleep(0.01)
        write(url, value)

    monkeypatch.setattr(files, "write_json", slow)
    with running(memory) as lease:
        lease.take()
        renewal = lease._renewal
        monkeypatch.setattr(leases, "RENEW_SECONDS", 30.0)  # what its end waits for it
        on_its_way.wait(30)
    renewal.join(30)
    assert leases.holders(memory) == []


def test_cleaning_that_slept_stops_before_it_removes_more(tmp_path, monkeypatch):
    with cleaning(tmp_path / "store") as lease:
        lease.take_alone()
        lease.check()
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 400)
        with pytest.raises(StoreInUse, match="could not be renewed for 7 minutes"):
            lease.check()


def test_a_run_that_is_refused_makes_no_store_and_a_torn_note_hurts_nobody(tmp_path):
    with running(tmp_path / "store") as lease:
        lease.take_if_there()
        assert not (tmp_path / "store").exists()
    (tmp_path / "store" / "_runs").mkdir(parents=True)
    (tmp_path / "store" / "_runs" / "half.json").write_text("{")
    with running(tmp_path / "store") as lease:
        lease.take_if_there()
        note = json.loads((tmp_path / "store" / "_runs" / lease._file).read_text())
        assert note["pid"] == os.getpid() and note["locked"]


def test_a_real_object_store(s3, planted, monkeypatch):
    store = f"{s3.place('leases')}/store"
    with objects.using(s3.options):
        with running(store) as one, running(store) as two:
            one.take()
            two.take()
            with pytest.raises(StoreInUse, match="in use: run of .*; run of "), cleaning(store) as lease:
                lease.take_alone()
        with cleaning(store) as lease, running(store, wait=False) as late:
            lease.take_alone()
            with pytest.raises(StoreInUse, match="being cleaned"):
                late.take()
        dead = running(store)
        dead.take()
        dead._ended.set()
        monkeypatch.setattr(leases, "LIVE_SECONDS", 1.5)
        time.sleep(2.5)  # the store tells whole seconds
        with cleaning(store) as lease:
            lease.take_alone()
