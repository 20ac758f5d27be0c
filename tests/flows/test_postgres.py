"""A Prefect server that keeps its runs in PostgreSQL: it comes up, migrates as a plain role, and curate completes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from postgres import postgres, programs
from served import ask, free_port, small_parameters

from flows.place import CHECKOUT, PRIVATE, Place, server

PROGRAM = """
import json, sys
from flows.curate import curate
state = curate(**json.loads(sys.argv[1]), return_state=True)
print(json.dumps([state.type.value, state.message]))
"""


@pytest.mark.nightly
@pytest.mark.flow
@pytest.mark.timeout(600)
@pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed")
def test_curate_completes_on_a_server_with_postgres(tmp_path):
    parameters = small_parameters(tmp_path)
    with postgres() as env:
        port = free_port()
        place = Place(f"http://127.0.0.1:{port}/api", tmp_path / "home", env)
        with server(place, port, patience=300):
            here = {"PREFECT_API_URL": place.api, "PREFECT_HOME": str(tmp_path / "client")}
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, json.dumps(parameters)],
                env={**os.environ, **PRIVATE, **here},
                cwd=CHECKOUT,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr[-2000:]
            kind, message = json.loads(done.stdout.splitlines()[-1])
            assert kind == "COMPLETED" and "of 420 rows in" in message
            (run,) = ask(place.api, "/flow_runs/filter", {})
            assert run["state_type"] == "COMPLETED" and run["state"]["message"] == message
            only = {"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
            assert 20 < ask(place.api, "/task_runs/count", only) < 300
        assert not [*Path(place.home).glob("*.db")]  # nothing went to SQLite
