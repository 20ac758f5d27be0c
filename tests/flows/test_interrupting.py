"""Runs of a real server and worker that are cancelled, killed, or lose their worker or server: what is seen, what stays."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from corpora import config, digests, run
from served import HURRY, ask, free_port, small_parameters, soon

from configs.loading import merged, validate
from flows.place import Place, answers, server
from flows.serving import POOL, deploy
from storage import manifests

pytestmark = [pytest.mark.nightly, pytest.mark.flow, pytest.mark.timeout(600)]

HOLDING = """
import os, pathlib, time
from contextlib import contextmanager
control = pathlib.Path(os.environ["HOLD"])
if control.parent.exists():
    from storage import files
    real = files._local

    @contextmanager
    def held(path):
        with real(path) as file:
            yield file
            while control.exists() and control.read_text() in path:  # written, not yet under its name
                pathlib.Path(f"{control}.held").write_text(path)
                time.sleep(0.1)

    files._local = held
"""
"""A `sitecustomize` that holds flow runs where they write a file whose name has the text in the file $HOLD."""


class Desk:
    """A server and a worker that can be killed and started again, and runs that can be held."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(HOLDING)
        self.control = folder / "hold"
        env = {**HURRY, "PYTHONPATH": str(folder / "site"), "HOLD": str(self.control)}
        self.place = Place(f"http://127.0.0.1:{self.port}/api", folder / "home", env)
        self.stack = ExitStack()

    def start_server(self) -> None:
        self.stack.enter_context(server(self.place, self.port))

    def start_worker(self) -> None:
        self.stack.enter_context(self.place.running("worker", "worker", "start", "--pool", POOL, "--type", "process"))

    def hold(self, text: str) -> None:
        Path(f"{self.control}.held").unlink(missing_ok=True)
        self.control.write_text(text)

    def release(self) -> None:
        self.control.unlink(missing_ok=True)

    def press(self, parameters: dict) -> str:
        deployment = ask(self.place.api, "/deployments/name/curate/curate")["id"]
        return ask(self.place.api, f"/deployments/{deployment}/create_flow_run", {"parameters": parameters})["id"]

    def press_held(self, parameters: dict, text: str) -> str:
        """A run that is writing a file with `text` in its name, until it is released."""
        self.hold(text)
        pressed = self.press(parameters)
        assert soon(lambda: Path(f"{self.control}.held").exists(), 120), self.state(pressed)
        return pressed

    def state(self, pressed: str) -> dict:
        return ask(self.place.api, f"/flow_runs/{pressed}")["state"]

    def ends(self, pressed: str, seconds: float = 150) -> tuple[str, str]:
        """Type and message of the state in which a run ends."""
        ended = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        soon(lambda: self.state(pressed)["type"] in ended, seconds)
        state = self.state(pressed)
        return state["type"], state["message"] or ""

    def set_state(self, pressed: str, name: str) -> None:
        body = {"state": {"type": name.upper(), "name": name}, "force": name == "Crashed"}
        ask(self.place.api, f"/flow_runs/{pressed}/set_state", body)

    def run_process(self) -> psutil.Process:
        """The process of the flow run."""
        (child,) = [p for p in self.place.parts["worker"].children() if "prefect" in " ".join(p.cmdline())]
        return child


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Iterator[Desk]:
    desk = Desk(tmp_path_factory.mktemp("desk"))
    with desk.stack:
        desk.start_server()
        deploy(desk.place)
        desk.start_worker()
        yield desk
        desk.release()


@pytest.fixture
def parameters(tmp_path) -> dict:
    return small_parameters(tmp_path / "served")


def whole(folder: Path) -> int:
    """How many temporaries there are; every file under a final name can be read."""
    for file in folder.rglob("*.parquet"):
        if file.name[0] != ".":
            pq.read_metadata(file)
    for file in folder.rglob("*.json"):
        yaml.safe_load(file.read_text())
    return len(list(folder.rglob("*.tmp")))


def same_bytes(folder: Path, tmp_path: Path) -> bool:
    """Whether the mix is what an undisturbed run makes of the same input."""
    shutil.copytree(folder / "in", tmp_path / "plain" / "in", copy_function=shutil.copy2)
    plain = run(validate(merged(config(tmp_path / "plain").model_dump(mode="json"), {"sample": {"kind": "iid"}})))
    made = manifests.resolve(str(folder / "out" / "mix"))
    assert list(manifests.discrepancies(made)) == []
    return digests(Path(made), "data", "ledger") == digests(Path(plain.url), "data", "ledger")


@pytest.mark.parametrize(("thread", "text"), [("a task's", "/embed/"), ("the main", "_done.json")])
def test_a_cancelled_run_leaves_nothing_half_written(desk, parameters, tmp_path, thread, text):
    """Prefect gives a run 30 s to end, which no setting shortens, and kills it then."""
    folder = tmp_path / "served"
    pressed = desk.press_held(parameters, text)
    process = desk.run_process()
    desk.set_state(pressed, "Cancelling")
    assert desk.ends(pressed)[0] == "CANCELLED" and soon(lambda: not process.is_running(), 60)
    desk.release()
    assert not list((folder / "out").rglob("mix.json"))
    assert whole(folder) == 0 or thread == "a task's"  # what the main thread was writing is taken away at once
    assert desk.ends(desk.press(parameters))[0] == "COMPLETED" and same_bytes(folder, tmp_path)


def test_a_killed_run_is_crashed_and_the_slot_is_free(desk, parameters, tmp_path):
    pressed = desk.press_held(parameters, "/embed/")
    queued = desk.press(parameters)
    assert soon(lambda: desk.state(queued)["name"] == "AwaitingConcurrencySlot", 60)
    desk.run_process().kill()
    desk.release()
    kind, message = desk.ends(pressed)
    assert kind == "CRASHED" and "SIGKILL" in message
    assert desk.ends(queued)[0] == "COMPLETED" and same_bytes(tmp_path / "served", tmp_path)


def test_a_server_that_is_killed_and_started_again(desk, parameters, tmp_path):
    pressed = desk.press_held(parameters, "/embed/")
    process = desk.run_process()
    desk.place.parts["server"].kill()
    desk.place.parts["server"].wait()
    assert not answers(desk.place.api)
    desk.release()
    time.sleep(10)
    assert process.is_running()
    desk.start_server()
    kind, message = desk.ends(pressed)
    assert kind == "COMPLETED", message
    assert same_bytes(tmp_path / "served", tmp_path)
    if desk.place.parts["worker"].poll() is not None:  # a worker may give up where a run does not
        desk.start_worker()
    assert desk.ends(desk.press(parameters), 400)[0] == "COMPLETED"


def test_a_killed_worker_and_its_run_hold_the_slot_until_somebody_says_that_they_are_dead(desk, parameters, tmp_path):
    pressed = desk.press_held(parameters, "/embed/")
    process = desk.run_process()
    desk.place.parts["worker"].kill()
    process.kill()
    desk.release()
    desk.start_worker()
    queued = desk.press(parameters)
    assert soon(lambda: desk.state(queued)["name"] == "AwaitingConcurrencySlot", 60)
    assert desk.state(pressed)["type"] == "RUNNING"
    desk.set_state(pressed, "Crashed")
    assert desk.ends(queued, 300)[0] == "COMPLETED" and same_bytes(tmp_path / "served", tmp_path)
