"""A real server, worker and deployment: what `make ui` starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tomllib
from importlib.metadata import version
from pathlib import Path
from urllib.error import HTTPError

import psutil
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from served import HURRY, ask, free_port, manifest, seconds_to_work, small_parameters, soon

from flows.place import CHECKOUT, Place, ServingFailed, answers, server
from flows.serving import MANIFEST, deploy, serving
from storage import manifests

PINS = {"prefect": ">=3.8.8,<4", "fastapi": "<0.151", "sqlalchemy": "<2.1"}
"""Without them flow runs die in `Body()`, or crons are silently never scheduled."""


@pytest.mark.parametrize("name", PINS)
def test_the_pins_are_there_and_obeyed(name):
    declared = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {Requirement(one).name: Requirement(one).specifier for one in declared}[name] == SpecifierSet(PINS[name])
    assert version(name) in SpecifierSet(PINS[name])


def test_an_address_at_which_nobody_answers_is_refused(tmp_path):
    nobody = f"http://127.0.0.1:{free_port()}/api"
    assert not answers(nobody)
    with (
        pytest.raises(ServingFailed, match=f"PREFECT_API_URL = {nobody}; start it"),
        serving(free_port(), tmp_path, {}, nobody),
    ):
        pass


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A server with what prefect.yaml deploys; no worker, so nothing runs."""
    port = free_port()
    place = Place(f"http://127.0.0.1:{port}/api", tmp_path_factory.mktemp("home"), HURRY)
    with server(place, port):
        deploy(place)
        yield place


def deployment(place: Place, name: str = "curate") -> dict:
    return ask(place.api, f"/deployments/name/{name}/{name}")


def schedules(place: Place, name: str = "curate") -> dict:
    return {one["slug"]: (one["schedule"]["cron"], one["active"]) for one in deployment(place, name)["schedules"]}


def press(place: Place, name: str, parameters: dict) -> dict:
    """The run that the form would start."""
    path = f"/deployments/{deployment(place, name)['id']}/create_flow_run"
    return ask(place.api, path, {"parameters": parameters})


DEPLOYED = {
    "curate": ("flows.curate.curate", {"preset": "demo"}, {"nightly": ("0 2 * * *", False)}),
    "embed": ("flows.embed.embed", {"preset": "demo"}, {"hourly": ("30 * * * *", False)}),
    "report": ("flows.mixes.report", {"mix": "demo/mixes/openmoji"}, {"weekly": ("0 6 * * 1", False)}),
    "verify": ("flows.mixes.verify", {"mix": "demo/mixes/openmoji"}, {"weekly": ("0 5 * * 1", False)}),
    "gc": ("flows.gc.gc", {"preset": "demo", "keep": 5}, {"weekly": ("0 7 * * 1", False)}),
    "train-pocket": ("flows.train_pocket.train_pocket", {}, {"monthly": ("0 4 1 * *", False)}),
}


@pytest.mark.flow
@pytest.mark.parametrize("name", DEPLOYED)
def test_what_is_deployed(place, name):
    found = deployment(place, name)
    assert (found["entrypoint"], found["parameters"], schedules(place, name)) == DEPLOYED[name]
    assert found["pull_steps"] == [{"prefect.deployments.steps.set_working_directory": {"directory": str(CHECKOUT)}}]
    assert found["work_pool_name"] == "mixwright" and not found["paused"]


@pytest.mark.flow
def test_every_deployment_runs_once_at_a_time_is_off_and_explains_its_fields(place):
    found = ask(place.api, "/deployments/filter", {})
    assert {one["name"] for one in found} >= set(DEPLOYED)
    for one in found:
        limit = one["global_concurrency_limit"]["limit"], one["concurrency_options"]
        assert limit[0] == 1 and (limit[1] or {}).get("collision_strategy", "ENQUEUE") == "ENQUEUE", one["name"]
        assert [schedule["active"] for schedule in one["schedules"]] == [False], one["name"]
        assert one["enforce_parameter_schema"] and one["description"], one["name"]
        fields = one["parameter_openapi_schema"]["properties"].values()
        assert all(field["description"] and field["type"] in FLAT for field in fields), one["name"]


FLAT = {"string", "integer", "number", "boolean"}

REFUSED = {
    "curate": ({"preset": "demmo"}, "'demmo' is not one of"),
    "embed": ({"workers": -1}, "-1 is less than the minimum of 0"),
    "report": ({"mix": ""}, "should be non-empty"),
    "verify": ({"mix": "s3://me:hunter2@bucket/mix"}, "does not match"),
    "gc": ({"keep": -1}, "-1 is less than the minimum of 0"),
    "train-pocket": ({"overrides": 3}, "3 is not of type 'string'"),
}


@pytest.mark.flow
@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_parameter_is_refused_before_there_is_a_run(place, name):
    given, told = REFUSED[name]
    runs = ask(place.api, "/flow_runs/count", {})
    with pytest.raises(HTTPError) as refusal:
        press(place, name, given)
    assert refusal.value.code == 409 and told in refusal.value.read().decode()
    assert ask(place.api, "/flow_runs/count", {}) == runs


@pytest.mark.flow
def test_a_second_run_waits_for_the_first(place):
    states = []
    for _ in range(2):  # what a worker asks before it starts a run
        run = press(place, "verify", {"mix": "x"})["id"]
        asked = {"state": {"type": "PENDING", "name": "Pending"}}
        states.append(ask(place.api, f"/flow_runs/{run}/set_state", asked)["state"]["name"])
    assert states == ["Pending", "AwaitingConcurrencySlot"]


@pytest.mark.flow
def test_deploying_again_keeps_what_people_set_in_the_ui(place):
    for name in ("curate", "report"):
        found = deployment(place, name)
        path = f"/deployments/{found['id']}/schedules"
        ask(place.api, f"{path}/{found['schedules'][0]['id']}", {"active": True}, "PATCH")
        ask(place.api, path, [{"schedule": {"cron": "5 5 * * *"}, "active": True, "parameters": {"overrides": ""}}])
    deploy(place)
    assert schedules(place) == {"nightly": ("0 2 * * *", True), None: ("5 5 * * *", True)}
    assert schedules(place, "report") == {"weekly": ("0 6 * * 1", True), None: ("5 5 * * *", True)}
    assert schedules(place, "verify") == {"weekly": ("0 5 * * 1", False)}
    assert {"overrides": ""} in [one["parameters"] for one in deployment(place)["schedules"]]


@pytest.mark.flow
def test_a_cron_is_scheduled(place, tmp_path):
    deploy(place, manifest(tmp_path, cron="* * * * *"))
    within = {"expected_start_time": {"before_": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))}}
    only = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}, **within}}
    assert soon(lambda: ask(place.api, "/flow_runs/count", only) >= 5, 60)


@pytest.mark.nightly
@pytest.mark.flow
def test_a_cron_runs_to_completion_without_being_pressed(tmp_path):
    made = manifest(tmp_path, small_parameters(tmp_path), cron="* * * * *")
    began = time.monotonic()
    with serving(free_port(), tmp_path / "home", HURRY, manifest=made) as (place, _):
        ready = time.monotonic()
        ended = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}}, "sort": "ID_DESC"}
        runs = soon(lambda: ask(place.api, "/flow_runs/filter", ended), 240)
        print(f"ready after {ready - began:.1f} s; a cron run had ended {time.monotonic() - ready:.1f} s later")
        assert runs and runs[-1]["auto_scheduled"]
        assert runs[-1]["state"]["type"] == "COMPLETED", runs[-1]["state"]["message"]
        assert list(manifests.discrepancies(str(tmp_path / "out" / "mix"))) == []


@pytest.mark.nightly
@pytest.mark.flow
def test_how_long_it_takes_from_the_press_to_the_work(tmp_path):
    with serving(free_port(), tmp_path / "home", {}) as (place, _):  # as `make ui` has it
        time.sleep(10)  # the worker is up
        pressed = time.time()
        run = press(place, "curate", small_parameters(tmp_path))["id"]
        flow, task = seconds_to_work(place.api, run, pressed)
        print(f"worker: pressed to flow {flow:.1f} s, to first task {task:.1f} s")
        assert 0 < flow < task


@pytest.mark.nightly
@pytest.mark.flow
def test_ctrl_c_ends_the_worker_and_its_run_and_leaves_a_server_that_was_there(tmp_path):
    port = free_port()
    place = Place(f"http://127.0.0.1:{port}/api", tmp_path / "home", HURRY)
    with server(place, port):
        environment = {**os.environ, **HURRY, "PREFECT_API_URL": place.api, "PREFECT_HOME": str(place.home)}
        command = [sys.executable, "-m", "flows.serving", "--port", str(free_port())]
        served = subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True)
        line = served.stdout.readline()
        assert line.startswith(f"The UI is at {place.api.removesuffix('/api')}; start a run at ") and "Ctrl-C" in line
        pressed = {"parameters": small_parameters(tmp_path)}
        run = ask(place.api, f"/deployments/{deployment(place)['id']}/create_flow_run", pressed)["id"]
        state = lambda: ask(place.api, f"/flow_runs/{run}")["state"]["type"]  # noqa: E731
        assert soon(lambda: state() == "RUNNING", 90)
        children = psutil.Process(served.pid).children(recursive=True)
        served.send_signal(signal.SIGINT)
        assert served.communicate(timeout=60)[0] == "Stopped.\n" and served.returncode == 0
        assert len(children) == 2 and not any(one.is_running() for one in children)
        assert state() == "CRASHED" and answers(place.api)
        assert MANIFEST.exists() and Path(place.log("worker")).exists()
