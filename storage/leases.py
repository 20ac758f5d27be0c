"""Who uses a store: any number of runs at once, or one that removes what nobody needs, never both.

Where there is `flock`, runs share a lock on `<store>/.lock`, which the kernel frees however they end. Everywhere they
also keep a note, `<store>/_runs/<host>-<pid>-<id>.json`, renewed every minute: it tells who they are and, on object
stores, on file systems without locks and between machines whose locks do not meet, that they live. Notes are judged
by the clock of the store. Each side first writes its note, then looks for the other's, so one of the two sees it.
"""

from __future__ import annotations

import contextvars
import errno
import fcntl
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from json import JSONDecodeError
from typing import Any

from configs.errors import RunFailed, StoreInUse
from storage import files
from storage.listing import listed

LOCK, NOTES = ".lock", "_runs"
RENEW_SECONDS, LIVE_SECONDS = 60.0, 600.0
"""How often a note is renewed, and how old that of a living run may be."""
POLL_SECONDS = 1.0
RUN, CLEANING = "run", "gc"


@dataclass(frozen=True)
class Holder:
    """One that uses the store, as its note says."""

    file: str
    host: str
    pid: int
    since: str
    mix: str
    doing: str
    locked: bool
    """Whether it also holds the lock."""
    age: float
    """Seconds since the note was renewed."""

    @property
    def seems_alive(self) -> bool:
        """Whether it is worth naming; what decides is `Lease`."""
        if self.host == socket.gethostname():
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return False
            except PermissionError:  # another user's
                pass
        return self.age < LIVE_SECONDS

    @property
    def told(self) -> str:
        """In words."""
        return f"{self.doing} of {self.mix!r} on {self.host}, process {self.pid}, since {self.since}"


class Lease:
    """The right to use a store, from `take` until the end of the `with` block."""

    def __init__(
        self, store: str, mix: str, log: Callable[[str], None], *, doing: str = RUN, wait: bool = True
    ) -> None:
        """The lease of one who makes `mix` or cleans after it; `wait` says what a run does while others clean."""
        self._store, self._mix, self._log, self._doing, self._wait = store, mix, log, doing, wait
        self._lock: int | None = None
        self._file = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.json"
        self._url = files.join(store, NOTES, self._file)
        self._note: dict[str, Any] = {}
        self._renewed = 0.0
        self._renewal: threading.Thread | None = None
        self._ended = threading.Event()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._renewal:  # a note that is on its way would stand after its removal
            self._renewal.join(RENEW_SECONDS)
        if self._note:
            with suppress(OSError):  # it is dead once it is old
                files.remove(self._url)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # ------------------------------------------------------------------------------------------------------- for runs
    def take_if_there(self) -> None:
        """Use the store if it stands already and can be written: a run that is refused makes none."""
        if files.exists(self._store):
            with suppress(OSError):
                self.take()

    def take(self) -> None:
        """Use the store; taken before, it stays so. While it is being cleaned, say so and wait.

        Raises:
            StoreInUse: It is being cleaned, and this run does not wait.
            OSError: Nothing can be written to an object store.
        """
        if self._note:
            return
        told = False
        while not self._flock(fcntl.LOCK_SH):
            told = self._say_waiting(told)
        self._write_note()
        while any(one.doing == CLEANING for one in self._live()):
            told = self._say_waiting(told)
        if told:
            self._log("the store is clean; going on")

    def _say_waiting(self, told: bool) -> bool:
        who = next((one.told for one in holders(self._store) if one.doing == CLEANING), "`mixwright gc`")
        message = f"{self._store} is being cleaned ({who})"
        if not self._wait:
            raise StoreInUse(f"{message}; start again when that has ended")
        if not told:
            self._log(f"{message}; this run waits until that has ended")
        time.sleep(POLL_SECONDS)
        return True

    # --------------------------------------------------------------------------------------------------- for cleaning
    def take_alone(self) -> None:
        """Have the store alone.

        Raises:
            StoreInUse: A run uses it, or another cleaning; says who.
        """
        if not self._flock(fcntl.LOCK_EX):
            raise StoreInUse(self._refusal([one for one in holders(self._store) if one.seems_alive]))
        self._write_note()
        if there := self._live():
            raise StoreInUse(self._refusal(there))

    def _refusal(self, there: list[Holder]) -> str:
        who = "; ".join(one.told for one in there[:3]) or "a process that left no note"
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        note = files.join(self._store, NOTES)
        return (
            f"{self._store} is in use: {who}{more}. Nothing was removed; run `mixwright gc` again when that has ended "
            f"(one that was killed on another machine counts as living for {LIVE_SECONDS / 60:.0f} minutes after its "
            f"note in {note} was last renewed)"
        )

    def check(self) -> None:
        """Raise StoreInUse if others may have taken this lease for dead: its process slept, or lost the store."""
        if time.time() - self._renewed > LIVE_SECONDS / 2:
            raise StoreInUse(
                f"the note {self._url} could not be renewed for {(time.time() - self._renewed) / 60:.0f} minutes, so a "
                "run may have started; cleaning stops here, what is removed so far was not needed"
            )

    # ------------------------------------------------------------------------------------------------------ lock, note
    def _flock(self, how: int) -> bool:
        """Lock the store's lock file; False if another has it. Without locks, or not on a file system: True."""
        if not files.is_local(self._store):
            return True
        try:
            if self._lock is None:
                self._lock = _opened(files.join(files.filesystem(self._store)[1], LOCK))
            fcntl.flock(self._lock, how | fcntl.LOCK_NB)
        except OSError as error:
            if self._lock is not None and error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
            self._log(f"{self._store} cannot be locked ({error}); notes in {NOTES} alone say who uses it")
        return True

    def _write_note(self) -> None:
        note = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "mix": self._mix,
            "doing": self._doing,
            "locked": self._lock is not None,
        }
        try:
            files.write_json(self._url, note)
        except OSError as error:
            if self._lock is None:
                raise
            self._log(f"the note {self._url} cannot be written ({error}); the lock alone says that the store is used")
        self._note, self._renewed = note, time.time()
        renewing = contextvars.copy_context()  # object stores are reached as here
        self._renewal = threading.Thread(target=renewing.run, args=(self._renew,), daemon=True, name="lease")
        self._renewal.start()

    def _renew(self) -> None:
        """Renew the note until the lease ends; where the store has been deleted there is nothing to renew."""
        while not self._ended.wait(RENEW_SECONDS):
            with suppress(OSError, RunFailed):  # tried again in a minute; cleaning asks `check`
                if not files.is_local(self._url):
                    files.write_json(self._url, self._note)
                else:
                    self._touch()
                self._renewed = time.time()

    def _touch(self) -> None:
        """Renew a local note; one that was deleted is written again, unless the store is deleted too."""
        path = files.filesystem(self._url)[1]
        try:
            os.utime(path)
        except FileNotFoundError:
            if not os.path.isdir(os.path.dirname(os.path.dirname(path))):
                raise
            files.write_json(self._url, self._note)

    def _live(self) -> list[Holder]:
        """The others that live. Those on this machine which lock would hold the lock that this one has."""
        others = [one for one in holders(self._store, self._file) if one.file != self._file]
        here = socket.gethostname() if self._lock is not None else None
        living = [one for one in others if one.age < LIVE_SECONDS and not (one.locked and one.host == here)]
        if self._doing == CLEANING:
            for dead in (one for one in others if one not in living):
                files.remove(files.join(self._store, NOTES, dead.file))
        return living


def _opened(path: str) -> int:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError:  # another user's, in a store that both write to
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def holders(store: str, own: str | None = None) -> list[Holder]:
    """Who has a note in the store, the dead too; ages by the store's clock if `own` names a note just written."""
    folder = files.join(store, NOTES)
    notes = {one.name: one.modified for one in listed(folder) if one.name.endswith(".json") and one.name[0] != "."}
    now = notes.get(own or "", time.time())
    return [Holder(name, **said, age=now - notes[name]) for name, said in _read(folder, sorted(notes))]


def _read(folder: str, names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in names:
        with suppress(FileNotFoundError, JSONDecodeError):  # removed meanwhile; torn by a crash of its machine
            yield name, files.read_json(files.join(folder, name))
