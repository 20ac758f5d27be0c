"""The pipeline with input, store and mixes in object stores: S3 by moto, Google's by its emulator."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import buckets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from corpora import config, digests, rows, run, write_corpus
from typer.testing import CliRunner

from configs.errors import CredentialsError, RunFailed
from flows.cli import app
from storage import manifests, objects

NUMBER = iter(range(1000))
pytestmark = pytest.mark.usefixtures("planted")


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A folder with a corpus and the mix made of it."""
    folder = tmp_path_factory.mktemp("local")
    write_corpus(folder / "in", shards=2, count=60)
    return folder, run(config(folder))


def there(store, folder: Path):
    """A fresh bucket with the corpus of `folder`, and the configuration that curates it there."""
    place = store.place(f"curated-{next(NUMBER)}")
    buckets.upload(store, folder / "in", f"{place}/in")
    return place, config(folder, {"storage": store.section}, where=place)


def another(store, monkeypatch):
    """Another section that reaches the same store."""
    monkeypatch.setenv("OTHER", "another-credential-of-the-same-store")
    if store.protocol == "gs":
        return {"gs": {"endpoint_url": store.url, "project": "other", "token": "env:OTHER"}}
    return {"s3": {"endpoint_url": store.url, "key": "env:OTHER", "secret": "env:OTHER"}}


def sound(store, mix) -> bool:
    with objects.using(store.options):
        return list(manifests.discrepancies(mix.url)) == []


@pytest.mark.parametrize("kind", ["s3", pytest.param("gs", marks=pytest.mark.nightly)])
def test_the_same_bytes_as_on_a_local_disk_and_nothing_done_twice(local, request, kind, monkeypatch):
    store = request.getfixturevalue(kind)
    folder, made = local
    place, settings = there(store, folder)
    mix = run(settings)
    assert mix.url.startswith(place) and sound(store, mix)
    assert mix.manifest["files"] == made.manifest["files"]
    found = buckets.contents(store, f"{mix.url}")
    for name in digests(Path(made.url), "data", "ledger", "quarantine"):
        assert found[name] == (Path(made.url) / name).read_bytes()
    stored = buckets.contents(store, f"{place}/store")
    local_sidecars = {n for n in digests(folder / "store", "") if n.endswith((".parquet", ".npz"))}
    assert {n for n in stored if n.endswith((".parquet", ".npz"))} == local_sidecars
    assert all(stored[n] == (folder / "store" / n).read_bytes() for n in local_sidecars)
    assert not any("/spill/" in name or name.endswith(".tmp") for name in stored)
    for section in (store.section, another(store, monkeypatch)):  # how the store is reached changes no fingerprint
        again = run(config(folder, {"storage": section}, where=place))
        assert again.task_runs == 0 and again.url == mix.url
    assert buckets.contents(store, f"{place}/store") == stored


@pytest.mark.nightly
def test_a_shard_that_another_writer_adds_costs_only_its_own_sidecars(local, s3, tmp_path):
    place, settings = there(s3, local[0])
    first = run(settings)
    (tmp_path / "more").mkdir()
    pq.write_table(pa.table(rows(40, seed=99)), tmp_path / "more" / "00099.parquet")
    buckets.upload(s3, tmp_path / "more", f"{place}/in")
    log: list[str] = []
    second = run(settings, log)
    assert "ingest: 3 files, 1 to read" in log and "embed: 1 of 3 shards to do" in log
    assert second.manifest["counts"]["rows_in"] == first.manifest["counts"]["rows_in"] + 40 and sound(s3, second)


@pytest.mark.nightly
@pytest.mark.parametrize("writes", [2, 20, 60, 100, 110])
def test_a_run_whose_writes_are_refused_half_way_fails_in_one_sentence_and_a_rerun_goes_on(local, s3, writes):
    _, settings = there(s3, local[0])
    left = [None] * writes

    def refuse(request):
        if request["REQUEST_METHOD"] != "PUT":
            return None
        return left.pop() if left else (403, "AccessDenied")

    s3.fault = refuse
    with pytest.raises((RunFailed, OSError)) as failed:
        run(settings)
    assert "cannot write s3://" in str(failed.value) and "AccessDenied" in str(failed.value)
    assert "\n" not in str(failed.value) and len(str(failed.value)) < 500
    s3.fault = None
    mix = run(settings)
    assert mix.manifest["files"] == local[1].manifest["files"] and sound(s3, mix)


@pytest.mark.nightly
def test_a_store_that_stumbles_changes_nothing(local, s3):
    _, settings = there(s3, local[0])
    count = iter(range(1_000_000))
    s3.fault = lambda request: (503, "SlowDown") if next(count) % 40 == 39 else None
    mix = run(settings)
    s3.fault = None
    assert next(count) > 100 and mix.manifest["files"] == local[1].manifest["files"]


def test_input_that_cannot_be_read_now_is_not_quarantined(local, s3):
    _, settings = there(s3, local[0])

    def refuse(request):
        broken = request["PATH_INFO"].endswith("in/00001.parquet") and request["REQUEST_METHOD"] == "GET"
        return (403, "AccessDenied") if broken else None

    s3.fault = refuse
    with pytest.raises(RunFailed, match=r"00001.parquet: .*cannot read s3://\S+/in/00001.parquet: AccessDenied"):
        run(settings)
    s3.fault = None
    assert run(settings).manifest["files"] == local[1].manifest["files"]


def test_a_missing_variable_is_one_sentence_before_any_request(local, s3, monkeypatch):
    _, settings = there(s3, local[0])
    s3.seen.clear()
    monkeypatch.delenv("TEST_SECRET")
    with pytest.raises(CredentialsError, match="^`storage.s3.secret` is env:TEST_SECRET, but the environment variable"):
        run(settings)
    assert s3.seen == []


def test_what_cannot_be_written_to_is_found_before_work(local, s3):
    _, settings = there(s3, local[0])
    s3.seen.clear()
    s3.fault = lambda request: (403, "AccessDenied") if request["REQUEST_METHOD"] == "PUT" else None
    with pytest.raises(
        ValueError, match=r"^`store` is 's3://\S+'; nothing can be written there: cannot write .*Denied"
    ):
        run(settings)
    assert sum(request["REQUEST_METHOD"] == "PUT" for request in s3.seen) == 1


@pytest.mark.nightly
def test_runs_side_by_side_reach_their_own_stores(local, s3):
    with buckets.s3() as second:
        settings = [there(store, local[0]) for store in (s3, second)]
        s3.seen.clear(), second.seen.clear()
        with ThreadPoolExecutor(2) as pool:
            mixes = list(pool.map(run, [one for _, one in settings]))
        for mix in mixes:
            assert mix.manifest["files"] == local[1].manifest["files"]
        for store, (place, _) in zip((s3, second), settings):
            bucket = place.removeprefix("s3://")
            assert all(request["PATH_INFO"].startswith(f"/{bucket}") for request in store.seen)


def test_commands_reach_the_store_as_the_configuration_says(local, s3, tmp_path):
    _, settings = there(s3, local[0])
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    cli = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert "2 files, 120 rows" in cli.invoke(app, ["check", str(file), "--sample", "0"]).output
    told = cli.invoke(app, ["curate", str(file), "--dry-run"])
    assert told.exit_code == 0 and "2 files are new" in told.output, told.output
    mix = run(settings)
    assert "all well" in cli.invoke(app, ["verify", mix.url, "--config", str(file)]).output
    assert "exact_duplicate" in cli.invoke(app, ["explain", mix.url, "k-1-4", "--config", str(file)]).output
    told = cli.invoke(app, ["verify", mix.url])
    assert told.exit_code == 2 and told.output.startswith("cannot read s3://") and "NoCredentials" in told.output
    told = cli.invoke(app, ["curate", str(file)])  # with nothing to do
    assert told.exit_code == 0 and mix.url in told.output


@pytest.mark.nightly
@pytest.mark.flow
def test_a_flow_run_reaches_the_store(local, s3, prefect_server):
    from flows.curate import curate

    _, settings = there(s3, local[0])
    state = curate(preset="plain", overrides=yaml.safe_dump(settings.model_dump(mode="json")), return_state=True)
    assert state.is_completed(), state.message
    with objects.using(s3.options):
        assert manifests.read(state.result())["files"] == local[1].manifest["files"]
