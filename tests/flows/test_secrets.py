"""No credential reaches what a run leaves or says: planted values are searched for everywhere."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import traceback

import buckets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from corpora import config, run, write_corpus
from prefect.exceptions import PrefectHTTPStatusError
from typer.testing import CliRunner

from configs import loading
from configs.errors import RunFailed
from flows.cli import app
from flows.curate import curate
from storage import objects

NUMBER = iter(range(1000))
pytestmark = pytest.mark.usefixtures("planted")


@pytest.fixture
def settings(s3, tmp_path):
    """A configuration whose input, store and mixes are in a fresh bucket."""
    write_corpus(tmp_path / "in", shards=2, count=60)
    place = s3.place(f"secret-{next(NUMBER)}")
    buckets.upload(s3, tmp_path / "in", f"{place}/in")
    return config(tmp_path, {"storage": s3.section}, where=place)


@pytest.fixture
def lines():
    """Every line that anything logs, with its traceback, at the level that tells most."""
    found: list[str] = []
    formatter = logging.Formatter()

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(formatter.format(record))

    root, prefect = logging.getLogger(), logging.getLogger("prefect")  # whose lines do not reach the root
    before = root.level
    handler = Keeping()
    root.addHandler(handler), prefect.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield found
    finally:
        root.setLevel(before)
        root.removeHandler(handler), prefect.removeHandler(handler)


def opened(name: str, data: bytes) -> str:
    """A file as text: what is packed is unpacked, so that a value in it can be found."""
    if name.endswith(".parquet"):
        table = pq.read_table(pa.BufferReader(data))
        return f"{table.schema.metadata} {pq.read_metadata(pa.BufferReader(data)).metadata} {table.to_pydict()}"
    if name.endswith(".npz"):
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return " ".join(f"{key} {array.tobytes().decode('latin-1')}" for key, array in arrays.items())
    return data.decode("latin-1")


def leaks(texts: dict[str, str]) -> list[str]:
    """Names of the texts that hold a planted value, or the half of one."""
    parts = [half for value in buckets.CREDENTIALS.values() for half in (value[: len(value) // 2], value[-12:])]
    pattern = re.compile("|".join(re.escape(part) for part in parts))
    return [name for name, text in texts.items() if pattern.search(text)]


def left(s3, place: str) -> dict[str, str]:
    """All that a run has left in its bucket."""
    found = buckets.contents(s3, place)
    assert len(found) > 30
    return {name: opened(name, data) for name, data in found.items()}


def place_of(settings) -> str:
    return settings.store.removesuffix("/store")


def test_the_search_finds_what_is_written():
    secret = buckets.CREDENTIALS["TEST_SECRET"]
    sink, packed = pa.BufferOutputStream(), io.BytesIO()
    pq.write_table(pa.table({"a": [f"x {secret} y"] * 1000}), sink, compression="zstd")
    np.savez_compressed(packed, a=np.frombuffer(secret.encode(), np.uint8))
    for name, data in (
        ("x.parquet", sink.getvalue().to_pybytes()),
        ("x.npz", packed.getvalue()),
        ("x.html", b"<p>" + secret[: len(secret) // 2].encode()),
    ):
        assert leaks({name: opened(name, data)}) == [name]


def test_a_run_leaves_and_logs_no_credential(s3, settings, lines):
    log: list[str] = []
    mix = run(settings, log)
    found = left(s3, place_of(settings))
    assert leaks(found) == []
    manifest = json.dumps(mix.manifest)
    assert leaks({"manifest": manifest, "card": mix.card, "log": "\n".join([*log, *lines]), "said": mix.message}) == []
    assert "env:TEST_SECRET" in manifest  # its name tells how the run was made
    assert leaks({"lines": " ".join(s3.seen[-1].values())}) == ["lines"]  # they were used


def test_a_run_that_fails_names_no_credential(s3, settings, lines):
    said: list[str] = []
    for code in ("SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "InternalError"):
        for method in ("GET", "PUT"):
            s3.fault = lambda request, code=code, method=method: (
                (400, code + " " + " ".join(buckets.CREDENTIALS.values()))
                if request["REQUEST_METHOD"] == method
                else None
            )
            with pytest.raises((RunFailed, OSError, ValueError)) as failed:
                run(settings)
            said.append(str(failed.value))
            said.append("".join(traceback.format_exception(failed.value)))
    s3.fault = None
    assert leaks({"said": "\n".join(said), "lines": "\n".join(lines)}) == []
    assert all(len(one) < 600 for one in said[::2])


LITERAL = "hunter2hunter2hunter2"
REFUSED = {
    "literal secret": {"storage": {"s3": {"key": "env:K", "secret": LITERAL}}},
    "literal key": {"storage": {"s3": {"key": LITERAL, "secret": "env:S"}}},
    "literal token": {"storage": {"gs": {"token": LITERAL}}},
    "secret for a section": {"storage": {"s3": LITERAL}},
    "secret for the sections": {"storage": LITERAL},
    "secret in a list": {"storage": {"s3": [LITERAL]}},
    "secret in another field": {"storage": {"s3": {"anon": LITERAL}}},
    "login in the endpoint": {"storage": {"s3": {"endpoint_url": f"https://me:{LITERAL}@minio.example"}}},
    "login in the input": {"input": {"path": f"s3://AKIA:{LITERAL}@bucket/in"}},
    "login with a slash": {"input": {"path": f"s3://AKIA:ab/{LITERAL}@bucket/in"}},
    "login in one of two inputs": {
        "input": [{"name": "a", "path": "x"}, {"name": "b", "path": f"ftp://u:{LITERAL}@h/"}]
    },
    "login in an input of no kind": {"input": {"kind": "none", "path": f"s3://AKIA:{LITERAL}@bucket/in"}},
    "login for a section": {"input": f"s3://AKIA:{LITERAL}@bucket/in"},
    "login in the store": {"store": f"https://{LITERAL}@host/store"},
    "login in a chain": {"store": f"simplecache::s3://AKIA:{LITERAL}@bucket/in"},
    "signed input": {"input": {"path": f"https://b.s3.amazonaws.com/x?X-Amz-Credential=a&X-Amz-Signature={LITERAL}"}},
    "shared access signature": {"emit": {"out": f"https://a.blob.core.windows.net/c?sv=2024&sig={LITERAL}"}},
    "signed vocabulary": {"annotate": {"kind": "captions", "vocabulary": f"https://h/v.txt?access_token={LITERAL}"}},
    "login for a number": {"sample": {"kind": "iid", "batch_size": f"s3://AKIA:{LITERAL}@b"}},
    "login in the name": {"name": f"s3://AKIA:{LITERAL}@b"},
}


@pytest.mark.parametrize("values", REFUSED.values(), ids=REFUSED)
def test_credentials_in_a_configuration_are_refused_without_repeating_them(values):
    with pytest.raises(loading.ConfigError) as refused:
        loading.validate({"input": {"path": "x"}} | values)
    shown = "".join(traceback.format_exception(refused.value))
    assert LITERAL not in shown and LITERAL not in str(refused.value)
    from configs.curate import Curate

    with pytest.raises(ValueError) as raw:  # as Prefect would show it
        Curate.model_validate({"input": {"path": "x"}} | values)
    assert LITERAL not in str(raw.value) and LITERAL not in repr(raw.value)


def test_text_that_is_no_yaml_is_not_quoted():
    for text in (f"storage: {{s3: {{secret: {LITERAL}", f"storage:\n  s3:\n   secret: {LITERAL}\n  - x: ["):
        with pytest.raises(loading.ConfigError, match=r"`overrides` is not YAML: line \d+, column \d+: ") as refused:
            loading.parse(text, "`overrides`")
        assert LITERAL not in "".join(traceback.format_exception(refused.value))
    for setting in (f"storage.s3.secret=[{LITERAL}", f"name.x.y={LITERAL}", f"select.9.x={LITERAL}"):
        with pytest.raises(loading.ConfigError) as refused:
            loading.assign({"name": "x", "select": []}, [setting])
        assert LITERAL not in "".join(traceback.format_exception(refused.value))


def test_a_command_line_with_a_secret_ends_before_prefect_hears_of_it(tmp_path, settings):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    told = CliRunner().invoke(app, ["curate", str(tmp_path / "c.yaml"), "--set", f"storage.s3.secret={LITERAL}"])
    assert told.exit_code == 2 and "`storage.s3.secret`: it must be env:NAME" in told.output
    assert LITERAL not in told.output


def asked(state) -> dict[str, str]:
    """All that Prefect keeps of a flow run: parameters, states, task runs, logs, artifacts."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterId,
        LogFilter,
        LogFilterFlowRunId,
        TaskRunFilter,
        TaskRunFilterFlowRunId,
    )

    run_id = state.state_details.flow_run_id

    async def read():
        async with get_client() as client:
            only = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
            flow_run = await client.read_flow_run(run_id)
            tasks = await client.read_task_runs(
                flow_run_filter=only,
                task_run_filter=TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[run_id])),
            )
            logs = await client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id])))
            artifacts = await client.read_artifacts(flow_run_filter=only)
            states = await client.read_flow_run_states(run_id)
            return {"run": [flow_run], "tasks": tasks, "logs": logs, "artifacts": artifacts, "states": states}

    found = asyncio.run(read())
    return {kind: "\n".join(one.model_dump_json() for one in listed) for kind, listed in found.items()}


@pytest.mark.flow
def test_prefect_is_told_no_credential(s3, settings, lines, prefect_server):
    overrides = yaml.safe_dump(settings.model_dump(mode="json"))
    state = curate(preset="plain", overrides=overrides, return_state=True)
    assert state.is_completed(), state.message
    kept = asked(state)
    assert "env:TEST_SECRET" in kept["run"] and "rows" in kept["artifacts"] and "flow_run_id" in kept["tasks"]
    assert leaks(kept | left(s3, place_of(settings)) | {"lines": "\n".join(lines)}) == []

    s3.fault = lambda request: (400, "ExpiredToken") if "/in/" in request["PATH_INFO"] else None
    (other,) = [config_in(settings, "other")]
    state = curate(preset="plain", overrides=yaml.safe_dump(other), return_state=True)
    assert state.is_failed() and "cannot read s3://" in state.message and "400" in state.message
    assert leaks(asked(state) | {"lines": "\n".join(lines)}) == []


def config_in(settings, name: str) -> dict:
    """The configuration with a store and mixes of its own."""
    place = place_of(settings)
    return settings.model_dump(mode="json") | {"store": f"{place}/{name}", "emit": {"out": f"{place}/{name}-out"}}


@pytest.mark.flow
def test_a_secret_in_the_form_is_refused_without_repeating_it(lines, prefect_server):
    state = curate(preset="plain", input="x", overrides=f"storage: {{s3: {{secret: {LITERAL}}}}}", return_state=True)
    assert state.is_failed() and "it must be env:NAME" in state.message and LITERAL not in state.message
    for url in (f"s3://AKIA:{LITERAL}@bucket/in", f"simplecache::s3://{LITERAL}@bucket/in"):
        state = curate(preset="plain", input=url, return_state=True)
        assert state.is_failed() and "`input.path`: it is a URL with a user name" in state.message
        assert LITERAL not in state.message
    assert LITERAL not in "\n".join(lines)


@pytest.mark.flow
def test_a_url_with_a_login_makes_no_run_of_a_deployment(prefect_server):
    from prefect.client.orchestration import get_client
    from prefect.utilities.callables import parameter_schema

    async def press(url: str) -> tuple[str, int]:
        async with get_client() as client:
            schema = parameter_schema(curate).model_dump()
            flow = await client.create_flow(curate)
            form = await client.create_deployment(
                flow, f"form-{next(NUMBER)}", parameter_openapi_schema=schema, enforce_parameter_schema=True
            )
            before = len(await client.read_flow_runs())
            try:
                await client.create_flow_run_from_deployment(form, parameters={"preset": "plain", "input": url})
                said = ""
            except PrefectHTTPStatusError as error:
                said = str(error)
            return said, len(await client.read_flow_runs()) - before

    said, runs = asyncio.run(press(f"s3://AKIA:{LITERAL}@bucket/in"))
    assert "does not match" in said and runs == 0
    for url in ("", "s3://bucket/a@b", "data", "/data/a@b:c", "gs://b/*.parquet", "simplecache::s3://b/in"):
        assert asyncio.run(press(url)) == ("", 1)


def test_the_options_of_a_run_end_with_it(settings):
    run(settings)
    assert not objects._OPTIONS.get()
