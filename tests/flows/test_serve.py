"""`mixwright serve`: what it refuses, what it deploys, and the process as people run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import psutil
import pytest
import yaml
from corpora import config
from served import HURRY, ask, free_port, seconds_to_work, soon
from typer.testing import CliRunner

from configs import loading
from configs.errors import ConfigError
from flows import place as places
from flows import serve
from flows.cli import app
from flows.curate import resolve
from flows.place import Place, answers, server
from flows.serve import Service, press, register
from storage import manifests


def form(parameters: dict):
    """The configuration that the form's values mean."""
    fields = {"input": "", "budget": 0, "batch_size": 0, "workers": 0} | parameters
    return resolve(**fields)


def test_the_form_means_the_configuration_and_some_fields_of_it_can_be_changed(tmp_path):
    given = config(tmp_path, {"seed": 3, "runner": {"workers": 5}, "mix": {"budget": 99}})
    parameters = Service(given).parameters
    assert form(parameters) == given
    changed = form(parameters | {"name": "other", "seed": 4})
    assert (changed.name, changed.seed) == ("other", 4)
    assert changed == given.model_copy(update={"name": "other", "seed": 4})


def test_local_paths_are_absolute_and_urls_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    several = [{"name": "a", "path": "in"}, {"name": "b", "path": "memory://bucket/b"}]
    values = {"input": several, "store": "store", "emit": {"out": "memory://bucket/out"}}
    made = yaml.safe_load(Service(loading.validate(values)).parameters["overrides"])
    assert [one["path"] for one in made["input"]] == [f"{tmp_path}/in", "memory://bucket/b"]
    assert (made["store"], made["emit"]["out"]) == (f"{tmp_path}/store", "memory://bucket/out")


def test_a_name_on_the_hub_is_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "saved").mkdir(parents=True)
    several = [
        {"kind": "huggingface", "name": "a", "path": "org/data", "image": "img"},
        {"kind": "huggingface", "name": "b", "path": "org/saved", "image": "img"},
    ]
    made = yaml.safe_load(Service(loading.validate({"input": several})).parameters["overrides"])
    assert [one["path"] for one in made["input"]] == ["org/data", f"{tmp_path}/org/saved"]


def test_a_configuration_longer_than_an_argument_may_be_reaches_the_process(tmp_path, monkeypatch):
    asked = []

    @contextmanager
    def connected(port, home, env, api):
        yield Place("http://127.0.0.1:9/api", tmp_path / "home", env)

    def command(self, *arguments, **_):
        asked.extend(arguments)
        return {"args": [sys.executable, "-c", READS, *arguments], "cwd": tmp_path, "env": os.environ}

    monkeypatch.setattr(serve, "connected", connected)
    monkeypatch.setattr(serve, "register", lambda place, service: UUID(int=0))
    monkeypatch.setattr(Place, "command", command)
    service = Service(config(tmp_path, {"input": {"exclude": [f"column {i}" for i in range(20_000)]}}))
    assert len(json.dumps(service.parameters)) > 140_000  # Linux takes 131,072 bytes
    with serve.serving(service, 4200, tmp_path) as (place, _):
        assert place.parts["serve"].wait(60) == 0, place.last_words("serve")
        assert place.log("serve").read_text() == "0o600 mix-served"
        assert json.loads(Path(asked[0]).read_text())["parameters"] == service.parameters
    assert not Path(asked[0]).exists()


READS = """
import json, os, sys
with open(sys.argv[1]) as file:
    print(oct(os.stat(file.fileno()).st_mode & 0o777), json.load(file)["name"], end="")
"""


def test_the_process_serves_what_the_file_tells(tmp_path, monkeypatch):
    import prefect.runner

    served = []

    class Runner:
        def __init__(self, **_):
            pass

        def add_deployment(self, deployment):
            served.append((deployment.name, deployment.parameters))

        async def start(self):
            served.append("started")

    monkeypatch.setattr(prefect.runner, "Runner", Runner)
    service = Service(config(tmp_path))
    (tmp_path / "told.json").write_text(json.dumps({"name": service.name, "parameters": service.parameters}))
    serve.main(tmp_path / "told.json")
    assert served == [("mix-served", service.parameters), "started"]


def test_when_it_runs_next(tmp_path):
    given = config(tmp_path)
    assert Service(given).next_run() is None
    comes = Service(given, "30 2 * * *", "Asia/Kolkata").next_run()
    assert (comes.hour, comes.minute) == (2, 30) and comes.utcoffset().total_seconds() == 5.5 * 3600
    assert 0 < (comes - datetime.now(UTC)).total_seconds() <= 24 * 3600 + 1
    for cron in ("0 25 * * *", "0 2 30 2 *", "nightly", "* * * *", "H 2 * * *"):
        with pytest.raises(ConfigError, match=r"^`--cron '.*'` never comes; write for example '0 2 "):
            Service(given, cron).next_run()
    with pytest.raises(ConfigError, match="`--timezone Mars` is no time zone"):
        Service(given, "0 2 * * *", "Mars").next_run()


@pytest.fixture
def written(corpus) -> Path:
    """A configuration file over a small corpus."""
    (corpus / "my.yaml").write_text(yaml.safe_dump(config(corpus).model_dump(mode="json")))
    return corpus / "my.yaml"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--cron", "0 25 * * *"], "`--cron '0 25 * * *'` never comes"),
        (["--cron", "0 2 * * *", "--timezone", "Mars"], "`--timezone Mars` is no time zone"),
        (["--set", "sample.batch_size=0"], "`sample.batch_size` is 0"),
        (["--set", "input.path=nowhere"], "nowhere"),
        (["--set", "input.key=kee"], "kee"),
        (["--set", "storage.s3.secret=hunter2"], "it must be env:NAME"),
    ],
)
def test_what_is_wrong_is_said_before_a_server_starts(written, monkeypatch, arguments, told):
    monkeypatch.setattr(places, "psutil", None)  # no process can be started
    result = CliRunner().invoke(app, ["serve", str(written), "--port", str(free_port()), *arguments])
    assert result.exit_code == 2 and told in result.output and "Traceback" not in result.output
    assert "hunter2" not in result.output


def test_the_way_from_the_command_to_a_process_is_not_blocked_by_what_the_tests_above_block(written, monkeypatch):
    monkeypatch.setattr(places, "psutil", None)
    result = CliRunner().invoke(app, ["serve", str(written), "--port", str(free_port())])
    assert isinstance(result.exception, AttributeError)  # it came as far as starting a server


def test_the_help_teaches():
    told = " ".join(CliRunner().invoke(app, ["serve", "--help"], terminal_width=200).output.split())
    assert 'mixwright serve my.yaml --cron "0 2 * * *"' in told and "Ctrl-C stops it all" in told


@pytest.mark.flow
def test_a_deployment_is_brought_up_to_date_and_keeps_the_schedules_of_others(prefect_server, tmp_path):
    from prefect.settings import PREFECT_API_URL

    place = Place(PREFECT_API_URL.value(), tmp_path, {})
    deployment = register(place, Service(config(tmp_path), "0 2 * * *", "Europe/Berlin"))

    def found() -> dict:
        return ask(place.api, f"/deployments/{deployment}")

    def schedules() -> dict:
        return {one["slug"]: (one["schedule"]["cron"], one["active"]) for one in found()["schedules"]}

    assert found()["name"] == "mix-served" and found()["entrypoint"] == "flows.curate.curate"
    assert found()["global_concurrency_limit"]["limit"] == 1 and found()["enforce_parameter_schema"]
    assert schedules() == {"serve": ("0 2 * * *", True)}
    assert found()["schedules"][0]["schedule"]["timezone"] == "Europe/Berlin"

    mine = [{"schedule": {"cron": "5 5 * * *"}, "active": True}]
    ask(place.api, f"/deployments/{deployment}/schedules", mine)
    ask(place.api, f"/deployments/{deployment}/pause_deployment", {})
    assert found()["paused"]
    again = register(place, Service(config(tmp_path, {"seed": 7}), "0 3 * * *"))
    assert again == deployment and not found()["paused"] and found()["parameters"]["seed"] == 7
    assert schedules() == {"serve": ("0 3 * * *", True), None: ("5 5 * * *", True)}
    register(place, Service(config(tmp_path)))
    assert schedules() == {None: ("5 5 * * *", True)}

    press(place, deployment)
    asked = {"deployments": {"id": {"any_": [str(deployment)]}}}
    runs = [one for one in ask(place.api, "/flow_runs/filter", asked) if not one["auto_scheduled"]]
    assert [one["parameters"]["name"] for one in runs] == ["mix"]


class Served:
    """A running `mixwright serve`, and what it said."""

    def __init__(self, folder: Path, port: int, *arguments: str) -> None:
        env = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        env |= {**HURRY, "PREFECT_HOME": str(folder / "home"), "PREFECT_DEPLOYMENT_CONCURRENCY_SLOT_WAIT_SECONDS": "2"}
        command = [sys.executable, "-m", "flows.cli", "serve", "my.yaml", "--port", str(port), *arguments]
        self.began = time.monotonic()
        self.process = psutil.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
        self.lines = [self.process.stdout.readline() for _ in range(4)]
        self.ready = time.monotonic() - self.began

    def stop(self, how: signal.Signals) -> str:
        """Its last words; nothing that it started is left."""
        children = self.process.children(recursive=True)
        self.process.send_signal(how)
        said = self.process.communicate(timeout=90)[0]
        assert self.process.returncode == 0 and not any(one.is_running() for one in children)
        return said


@pytest.mark.nightly
@pytest.mark.flow
def test_it_is_pressed_runs_one_at_a_time_stops_and_is_active_again(written):
    folder = written.parent
    (folder / "words.txt").write_text("w000\nw001\nw002\n")
    given = yaml.safe_load(written.read_text()) | {"annotate": {"kind": "captions", "vocabulary": "words.txt"}}
    given |= {"store": "store", "emit": {"out": "out"}, "input": given["input"] | {"path": "in"}}
    written.write_text(yaml.safe_dump(given))
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"

    served = Served(folder, port, "--cron", "0 2 * * *")
    try:
        assert served.lines[0].startswith(f"The UI is at http://127.0.0.1:{port}; press Run at http"), served.lines
        assert "prefect deployment run 'curate/mix-served'" in served.lines[1] and "02:00 (UTC)" in served.lines[2]
        found = ask(api, "/deployments/name/curate/mix-served")
        time.sleep(10)  # the seconds of somebody who reads the lines and opens the UI
        pressed = time.time()
        runs = [ask(api, f"/deployments/{found['id']}/create_flow_run", {})["id"] for _ in range(2)]

        def states() -> list[str]:
            return [ask(api, f"/flow_runs/{run}")["state"]["name"] for run in runs]

        assert soon(lambda: "AwaitingConcurrencySlot" in states(), 60), states()
        assert soon(lambda: states() == ["Completed", "Completed"], 180), states()
        first = min(runs, key=lambda run: ask(api, f"/flow_runs/{run}")["start_time"])
        flow, task = seconds_to_work(api, first, pressed)
        print(f"serve: ready after {served.ready:.1f} s; pressed to flow {flow:.1f} s, to first task {task:.1f} s")
        assert list(manifests.discrepancies(str(folder / "out" / "mix"))) == []
        running = ask(api, f"/deployments/{found['id']}/create_flow_run", {"parameters": {"seed": 5}})["id"]
        assert soon(lambda: ask(api, f"/flow_runs/{running}")["state"]["type"] == "RUNNING", 60)
    finally:
        said = served.stop(signal.SIGTERM)
    assert said.startswith("Stopped; the deployment is paused") and not answers(api)

    place = Place(api, folder / "home", HURRY)
    with server(place, port):
        assert ask(api, f"/deployments/{found['id']}")["paused"]
        assert ask(api, f"/flow_runs/{running}")["state"]["type"] in {"CRASHED", "COMPLETED"}
        again = Served(folder, port, "--cron", "0 2 * * *", "--run-now")
        try:
            assert not ask(api, f"/deployments/{found['id']}")["paused"]
            ended = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED"]}}, "id": {"not_any_": [*runs]}}}
            other = soon(lambda: ask(api, "/flow_runs/filter", ended), 120)
            assert [one["state"]["type"] for one in other][:1] == ["COMPLETED"], other
            coming = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
            assert soon(lambda: ask(api, "/flow_runs/count", coming) >= 3, 60)  # the nights to come
        finally:
            again.stop(signal.SIGINT)
        assert answers(api) and ask(api, f"/deployments/{found['id']}")["paused"]
