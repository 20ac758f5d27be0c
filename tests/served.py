"""Deployments for tests of a real server: prefect.yaml's own, over a small corpus and with another schedule."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import yaml
from corpora import config, write_corpus

from flows.serving import MANIFEST

# The scheduler's slow loop is left at a minute: its fast one (5 s) sees a deployment that was just made.
QUIET = {"PREFECT_LOGGING_LEVEL": "WARNING"}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def small_parameters(folder: Path) -> dict[str, Any]:
    """Parameters that curate a small corpus, which is written to `folder/in`; `name` and `sample` are left to fields."""
    write_corpus(folder / "in")
    settings = config(folder, {"sample": {"kind": "iid"}}).model_dump(mode="json")
    del settings["name"], settings["sample"], settings["seed"]
    return {"preset": "plain", "overrides": yaml.safe_dump(settings, sort_keys=False)}


def manifest(folder: Path, parameters: dict[str, Any] | None = None, cron: str | None = None) -> Path:
    """A copy of prefect.yaml in `folder` with other parameters, and with an active `cron` if one is given."""
    values = yaml.safe_load(MANIFEST.read_text())
    (deployment,) = values["deployments"]
    if parameters:
        deployment["parameters"] = parameters
    if cron:
        deployment["schedules"] = [{"cron": cron, "timezone": "UTC", "active": True}]
    (folder / "prefect.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return folder / "prefect.yaml"


def ask(api: str, path: str, body: Any = None) -> Any:
    """What the API at `api` answers to a GET of `path`, or to a POST of `body`."""
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(api + path, data, {"Content-Type": "application/json"}), timeout=30) as reply:
        return json.load(reply)
