"""A PostgreSQL server of a test's own, on a free port, with a database for Prefect that a plain role owns."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from served import free_port

ROLE = "mixwright"


def programs() -> Path | None:
    """Where `initdb` and `postgres` are: Debian keeps them off the path. None where they are not."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda place: int(place.parent.name))
    found = shutil.which("initdb")
    places += [Path(found).resolve().parent] if found else []
    whole = [place for place in places if (place / "initdb").exists() and (place / "postgres").exists()]
    return whole[-1] if whole else None


@contextmanager
def postgres() -> Iterator[dict[str, str]]:
    """A running server; yields the environment of a Prefect server that keeps its runs there."""
    where = programs()
    assert where is not None
    root = os.geteuid() == 0  # which PostgreSQL refuses to be
    prefix = ["runuser", "-u", "postgres", "--"] if root else []
    folder, port = Path(tempfile.mkdtemp(prefix="pg-")), free_port()  # a test's own folder is for its own user alone
    try:
        (folder / "pgpass").write_text(f"127.0.0.1:{port}:*:{ROLE}:not-a-secret\n")
        (folder / "pgpass").chmod(0o600)
        folder.chmod(0o755)
        data = folder / "data"
        data.mkdir(mode=0o700)
        if root:
            shutil.chown(data, "postgres", "postgres")
        log = (folder / "log").open("wb")
        calls = {"stdout": log, "stderr": log, "cwd": "/", "check": True}
        subprocess.run([*prefix, where / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8"], **calls)
        with (data / "pg_hba.conf").open("w") as rules:  # the role by its password, as in earnest; its maker by trust
            rules.write("local all postgres trust\nhost all postgres 127.0.0.1/32 trust\n")
            rules.write(f"host all {ROLE} 127.0.0.1/32 scram-sha-256\n")
        settings = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={data}"]
        server = subprocess.Popen(
            [*prefix, where / "postgres", "-D", data, *settings],
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
        try:
            psql = ["psql", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-d", "postgres", "-qc"]
            end = time.monotonic() + 60
            while subprocess.run([*psql, "select 1"], capture_output=True, cwd="/").returncode:
                assert server.poll() is None and time.monotonic() < end, (folder / "log").read_text()
                time.sleep(0.2)
            subprocess.run([*psql, f"create role {ROLE} login password 'not-a-secret'"], **calls)
            subprocess.run([*psql, f"create database prefect owner {ROLE}"], **calls)
            yield {
                "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{ROLE}@127.0.0.1:{port}/prefect",
                "PGPASSFILE": str(folder / "pgpass"),
            }
        finally:
            stop(server, data)
            log.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def stop(server: subprocess.Popen[bytes], data: Path) -> None:
    """End the server and its children: `postmaster.pid` names it, `runuser` stands between."""
    import signal

    try:
        pid = int((data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGINT)  # fast: connections are closed
    except (OSError, ValueError, IndexError):
        server.terminate()
    try:
        server.wait(30)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
