"""For tests against real Prefect processes: prefect.yaml over a small corpus, and questions to the API."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import yaml
from corpora import config, write_corpus

from flows.serving import MANIFEST

HURRY = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
    "PREFECT_WORKER_QUERY_SECONDS": "2",
}
"""Settings under which a server schedules, and a worker looks for work, sooner than by default."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def small_parameters(folder: Path) -> dict[str, Any]:
    """Parameters of a run over a small corpus, which is written to `folder/in`; fields of the form are left free."""
    write_corpus(folder / "in")
    settings = config(folder, {"sample": {"kind": "iid"}}).model_dump(mode="json")
    for field in ("name", "seed", "sample", "runner"):
        del settings[field]
    return {"preset": "plain", "overrides": yaml.safe_dump(settings, sort_keys=False)}


def manifest(
    folder: Path, parameters: dict[str, Any] | None = None, cron: str | None = None, home: Path | None = None
) -> Path:
    """A copy of prefect.yaml in `folder` whose `curate` has other parameters, or its schedule active at `cron`.

    Runs are in the folder `home`, from which relative paths count, instead of the checkout.
    """
    values = yaml.safe_load(MANIFEST.read_text())
    (deployment,) = (one for one in values["deployments"] if one["name"] == "curate")
    if parameters:
        deployment["parameters"] = parameters
    if cron:
        (schedule,) = deployment["schedules"]
        schedule |= {"cron": cron, "active": True}
    if home:
        values["pull"] = [{"prefect.deployments.steps.set_working_directory": {"directory": str(home)}}]
    (folder / "prefect.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return folder / "prefect.yaml"


def ask(api: str, path: str, body: Any = None, method: str | None = None) -> Any:
    """What the API answers to a GET of `path`, or to a POST (or `method`) of `body`.

    A server whose database is busy says 503, to be asked again: Prefect's own client does the same.
    """
    data = None if body is None else json.dumps(body).encode()
    for patience in (1, 2, 4, 8, 0):
        try:
            request = Request(api + path, data, {"Content-Type": "application/json"}, method=method)
            with urlopen(request, timeout=30) as reply:
                return json.loads(reply.read() or b"null")
        except HTTPError as error:
            if error.code != 503 or not patience:
                raise
            time.sleep(patience)
    return None


def soon(question: Callable[[], Any], seconds: float) -> Any:
    """The first true answer to `question`, or the last one when `seconds` are over."""
    end = time.monotonic() + seconds
    while not (answer := question()) and time.monotonic() < end:
        time.sleep(0.3)
    return answer


def seconds_to_work(api: str, run: str, pressed: float) -> tuple[float, float]:
    """Seconds from `pressed` (a time.time()) until the flow run began, and until its first task did."""
    only = {"flow_runs": {"id": {"any_": [run]}}, "task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    tasks = soon(lambda: ask(api, "/task_runs/filter", only), 120)
    began = [ask(api, f"/flow_runs/{run}")["start_time"], min(one["start_time"] for one in tasks)]
    flow, task = (datetime.fromisoformat(one).timestamp() - pressed for one in began)
    return flow, task
