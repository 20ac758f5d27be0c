"""The flow under a real Prefect server: states, messages, names of runs, artifacts, the form."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml
from corpora import config, digests, run
from pydantic import ValidationError

from flows.curate import curate

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server")]


def press(folder: Path, **fields):
    """Run the flow as the form would."""
    settings = config(folder).model_dump(mode="json")
    return curate(**{"preset": "plain", "overrides": yaml.safe_dump(settings)} | fields, return_state=True)


def task_runs(state) -> list:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    async def read():
        async with get_client() as client:
            only = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
            found = await client.read_task_runs(flow_run_filter=only)
            return found, (await client.read_flow_run(state.state_details.flow_run_id)).name

    return asyncio.run(read())


def test_a_run_ends_completed_with_one_sentence_and_the_same_bytes_as_a_plain_one(corpus, tmp_path_factory):
    import shutil

    state = press(corpus)
    assert state.is_completed() and "rows in" in state.message and "of 420 rows in" in state.message
    other = tmp_path_factory.mktemp("plain")
    shutil.copytree(corpus / "in", other / "in")
    plain = run(config(other))
    assert digests(Path(state.result()), "data", "ledger") == digests(Path(plain.url), "data", "ledger")
    found, name = task_runs(state)
    assert name == "curate-mix" and len(found) < 300
    assert "embed columns shard 3 of 7" in {one.name for one in found}


def test_a_failed_shard_fails_the_run_in_one_sentence(corpus):
    (corpus / "in" / "00003.parquet").unlink()
    (corpus / "in" / "00003.parquet").symlink_to("gone.parquet")
    state = press(corpus)
    assert state.is_failed() and state.message.startswith(
        "1 of 7 shards failed; rerun to retry only those. First: 00003"
    )


def test_a_damaged_shard_is_told_by_the_state_of_a_run_that_ends_well(corpus):
    (corpus / "in" / "00003.parquet").write_bytes(b"PAR1 this is no Parquet file PAR1")
    state = press(corpus)
    assert state.is_completed() and "1 damaged files are quarantined as a whole, first 00003.parquet: " in state.message


def test_an_empty_mix_is_a_failed_run_that_says_why(corpus):
    state = press(
        corpus, overrides=yaml.safe_dump(config(corpus, {"sample": {"batch_size": 4096}}).model_dump(mode="json"))
    )
    assert state.is_failed() and "No whole superbatch of 8,192 draws" in state.message


def test_refusals_name_the_field_the_value_and_what_is_allowed(tmp_path):
    state = curate(
        preset="plain", input=str(tmp_path), overrides="sample: {kind: iid, batch_size: none}", return_state=True
    )
    assert state.is_failed() and "`sample.batch_size` is 'none': input should be a valid integer" in state.message
    state = curate(preset="plain", input=str(tmp_path), return_state=True)
    assert state.is_failed() and "no *.parquet file is there" in state.message


def test_the_form_is_flat_and_bounded():
    schema = curate.parameters.model_dump()["properties"]
    assert list(schema)[:4] == ["preset", "input", "name", "budget"]
    assert schema["preset"]["enum"] == ["demo", "image-text", "text-only", "plain"]
    assert all(field.get("description") for field in schema.values())
    assert all("anyOf" not in field and "default" in field for field in schema.values())  # plain fields, no type tabs
    with pytest.raises(Exception, match="preset"):
        curate(preset="unknown")
    assert ValidationError


def test_form_fields_lie_between_preset_and_overrides(corpus):
    state = press(corpus, name="other", batch_size=8)
    assert state.is_completed()  # `overrides` carries the whole configuration and wins
    assert Path(state.result()).parent.name == "mix"
    settings = config(corpus).model_dump(mode="json")
    del settings["name"], settings["sample"]
    state = press(corpus, name="other", batch_size=8, overrides=yaml.safe_dump(settings))
    assert state.is_completed() and Path(state.result()).parent.name == "other" and "batches of 8;" in state.message
