"""For tests against real Prefect processes: prefect.yaml over a small corpus, and questions to the API."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
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


def manifest(folder: Path, parameters: dict[str, Any] | None = None, cron: str | None = None) -> Path:
    """A copy of prefect.yaml in `folder` with other parameters, or with its schedule active at `cron`."""
    values = yaml.safe_load(MANIFEST.read_text())
    (deployment,) = values["deployments"]
    if parameters:
        deployment["parameters"] = parameters
    if cron:
        (schedule,) = deployment["schedules"]
        schedule |= {"cron": cron, "active": True}
    (folder / "prefect.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return folder / "prefect.yaml"


def ask(api: str, path: str, body: Any = None, method: str | None = None) -> Any:
    """What the API answers to a GET of `path`, or to a POST (or `method`) of `body`."""
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(api + path, data, {"Content-Type": "application/json"}, method=method), timeout=30) as reply:
        return json.loads(reply.read() or b"null")


def soon(question: Callable[[], Any], seconds: float) -> Any:
    """The first true answer to `question`, or the last one when `seconds` are over."""
    end = time.monotonic() + seconds
    while not (answer := question()) and time.monotonic() < end:
        time.sleep(0.3)
    return answer
