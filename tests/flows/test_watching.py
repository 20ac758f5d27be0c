"""What is seen of a run while it goes on and behind it: bars, card, lines, events."""

from __future__ import annotations

import base64
import re
import time

import httpx
import pytest
import yaml
from corpora import config
from served import ask, soon

from flows.curate import curate
from flows.watching import slug

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server")]


@pytest.fixture
def api():
    from prefect.settings import PREFECT_API_URL

    return PREFECT_API_URL.value()


def press(folder, over=None):
    settings = config(folder, {"name": "seen"} | (over or {})).model_dump(mode="json")
    return curate(preset="plain", overrides=yaml.safe_dump(settings), return_state=True)


def artifacts(api, state) -> list[dict]:
    only = {"artifacts": {"flow_run_id": {"any_": [str(state.state_details.flow_run_id)]}}}
    return ask(api, "/artifacts/filter", only)


def events(api, prefix: str) -> list[dict]:
    body = {"filter": {"event": {"prefix": [prefix]}, "occurred": {"since": "2020-01-01T00:00:00Z"}}}
    return ask(api, "/events/filter", body)["events"]


def test_every_stage_has_a_bar_that_is_full_at_the_end_and_the_card_shows_plots(corpus, api):
    state = press(corpus)
    found = {one["key"]: one for one in artifacts(api, state)}
    bars = {key: one["data"] for key, one in found.items() if one["type"] == "progress"}
    stages = ["ingest", "embed", "annotate", "score-alignment", "select-exact-duplicates", "select-near-duplicates"]
    stages += ["select-threshold", "mix", "sample", "emit", "report"]
    assert bars == {f"progress-{stage}": 100 for stage in stages}
    pictures = re.findall(r"!\[(\w+)\]\(data:image/png;base64,([^)]+)\)", found["mix-card"]["data"])
    assert {name for name, _ in pictures} == {"funnel", "coverage", "concepts"}
    assert all(base64.b64decode(data).startswith(b"\x89PNG") for _, data in pictures)
    again = press(corpus)  # finds everything done
    assert again.is_completed() and artifacts(api, again) == []


def test_events_say_that_a_mix_is_published_and_what_is_to_be_warned_of(corpus, api):
    state = press(corpus, {"mix": {"budget": 2_000}, "name": "told"})
    assert state.is_completed()
    found = soon(
        lambda: [one for one in events(api, "mixwright.mix.published") if one["payload"]["name"] == "told"], 20
    )
    (event,) = found
    assert event["resource"] == {"prefect.resource.id": "mixwright.mix.told", "prefect.resource.name": "told"}
    assert event["payload"]["url"] == state.result() and event["payload"]["parent"] is None
    assert event["payload"]["emitted"] == event["payload"]["steps"] * event["payload"]["batch_size"] > 0
    related = {one["prefect.resource.role"]: one["prefect.resource.id"] for one in event["related"]}
    assert related["flow-run"].endswith(str(state.state_details.flow_run_id))
    warned = soon(lambda: events(api, "mixwright.warning."), 20)
    kinds = {one["event"].rpartition(".")[2]: one["payload"] for one in warned}
    assert "rows repeat" in kinds["repeats"]["message"] and kinds["repeats"]["stage"] == "sample"
    press(corpus, {"mix": {"budget": 2_000}, "name": "told"})
    time.sleep(1)
    assert len([one for one in events(api, "mixwright.mix.published") if one["payload"]["name"] == "told"]) == 1


def test_one_line_a_group_of_shards(corpus, api):
    state = press(corpus, {"runner": {"shards_per_task": 2}})
    run = str(state.state_details.flow_run_id)
    only = {"logs": {"flow_run_id": {"any_": [run]}, "level": {"ge_": 20}}, "limit": 200}

    def lines():
        told = [one["message"].strip() for one in ask(api, "/logs/filter", only)]
        return [one for one in told if one.startswith("embed: shard")]

    found = soon(lambda: lines() if len(lines()) == 4 else None, 20)
    assert sorted(one.split(",")[0] for one in found) == [
        "embed: shard 7 of 7",
        "embed: shards 1-2 of 7",
        "embed: shards 3-4 of 7",
        "embed: shards 5-6 of 7",
    ]


def test_a_server_that_takes_no_artifact_is_no_reason_to_fail(corpus, monkeypatch):
    def refuse(*args, **kwargs):
        raise httpx.ConnectError("All connection attempts failed")

    monkeypatch.setattr("prefect.artifacts.create_progress_artifact", refuse)
    monkeypatch.setattr("flows.curate.create_markdown_artifact", refuse)
    assert press(corpus, {"name": "dark"}).is_completed()


def test_keys_of_artifacts_are_slugs():
    assert slug("select/near_duplicates#2") == "select-near-duplicates-2"
