"""Exports as they are asked for: from the command line, as a flow, into object stores; interrupted and gone on with."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import buckets
import pytest
import yaml
from exported import check, contents, export, exports, write_mix
from served import ask
from typer.testing import CliRunner

from configs.errors import ConfigError, MixError, PlaceError, RunFailed
from flows import exporting
from flows.cli import app
from storage import objects
from tasks.export import METHODS
from tasks.export import litdata as chunks
from tasks.export import webdataset as tars

EXPORTERS = {"webdataset": tars.WebdatasetExporter, "litdata": chunks.LitdataExporter}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A mix, and an export of it in each format."""
    folder = tmp_path_factory.mktemp("made")
    return folder, exports(folder)[0]


@pytest.mark.parametrize("kind", METHODS)
def test_what_an_attempt_finished_is_not_written_again(made, kind, tmp_path, monkeypatch):
    folder, url = made
    write, wrote = EXPORTERS[kind].write, []

    def break_off(self, target, samples):
        if target.endswith(self.name(2)):
            next(samples)
            raise OSError("the disk is full")
        return write(self, target, samples)

    monkeypatch.setattr(EXPORTERS[kind], "write", break_off)
    with pytest.raises(
        RunFailed, match="^1 of 4 shards failed; rerun to retry only those. First: 2: OSError: the disk"
    ):
        export(url, tmp_path / "out", kind=kind, shards=4)
    left = contents(tmp_path / "out")
    names = {EXPORTERS[kind](None).name(number) for number in (0, 1, 3)}
    assert {name for name in left if not name.startswith("_export/")} == names
    assert "export.json" not in left

    monkeypatch.setattr(
        EXPORTERS[kind], "write", lambda self, to, samples: wrote.append(to) or write(self, to, samples)
    )
    log: list[str] = []
    export(url, tmp_path / "out", log, kind=kind, shards=4)
    assert [Path(one).name for one in wrote] == [EXPORTERS[kind](None).name(2)]
    assert log[0] == f"export {kind}: 90 rows in 4 shards, 1 to write"
    assert contents(tmp_path / "out") == contents(folder / kind)
    (tmp_path / "out" / "_export").mkdir()  # killed at the very end
    assert export(url, tmp_path / "out", kind=kind, shards=4).message.startswith("nothing to do: 90 rows are in")
    assert contents(tmp_path / "out") == contents(folder / kind) and not (tmp_path / "out" / "_export").exists()
    assert len(wrote) == 1


@pytest.mark.parametrize("kind", METHODS)
def test_what_is_read_back_wrong_is_not_published(made, kind, tmp_path, monkeypatch):
    write = EXPORTERS[kind].write
    lose = lambda self, to, samples: write(self, to, (s for i, s in enumerate(samples) if i != 5))  # noqa: E731
    monkeypatch.setattr(EXPORTERS[kind], "write", lose)
    with pytest.raises(RunFailed, match="3 of 3 shards failed; .* First: 0: MixError: .* differs from row 5"):
        export(made[1], tmp_path / "out", kind=kind, shards=3)
    assert not (tmp_path / "out" / "export.json").exists()


def test_a_folder_that_holds_something_else_is_left_alone(made, tmp_path):
    folder, url = made
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(PlaceError, match=r"holds something else \(mine.txt, 1 in all\)"):
        export(url, tmp_path)
    assert contents(tmp_path) == {"mine.txt": b"mine"}
    with pytest.raises(PlaceError, match=r"holds another export \(webdataset of version 0123456789ab, 4 shards\)"):
        export(url, folder / "webdataset", shards=5)
    with pytest.raises(PlaceError, match="holds something else"):
        export(url, url)  # the mix itself
    (folder / "short").mkdir()
    for name, data in contents(folder / "webdataset").items():
        (folder / "short" / name).write_bytes(data[:-1] if name == "00001.tar" else data)
    with pytest.raises(PlaceError, match="short/00001.tar is not as export.json says"):
        export(url, folder / "short", shards=4)


def test_the_beginning_of_another_export_is_left_alone(made, tmp_path, monkeypatch):
    monkeypatch.setattr(tars.WebdatasetExporter, "write", lambda *_: 1 / 0)
    with pytest.raises(RunFailed):
        export(made[1], tmp_path / "out", shards=4)
    with pytest.raises(PlaceError, match="holds the beginning of an export of another mix or with other settings"):
        export(made[1], tmp_path / "out", shards=5)


def test_what_cannot_be_exported_is_one_sentence(made, tmp_path, monkeypatch):
    with pytest.raises(MixError, match="is not a mix"):
        export(str(tmp_path), tmp_path / "out")
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(PlaceError, match=r"litdata, which is not installed: pip install 'mixwright\[litdata\]'"):
        export(made[1], tmp_path / "out", kind="litdata")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("kind", METHODS)
def test_the_same_bytes_in_an_object_store(made, s3, kind, tmp_path):
    folder, url = made
    place = s3.place(f"exports-{kind}")
    export(url, f"{place}/out", kind=kind, shards=4, storage=s3.section)
    assert buckets.contents(s3, f"{place}/out") == contents(folder / kind)
    with objects.using(s3.options):
        assert check(f"{place}/out", url) == 90
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"name": "x", "input": {"path": "in"}, "storage": s3.section}))
    arguments = ["export", url, f"{place}/out", "--to", kind, "--shards", "4", "--config", str(config)]
    told = CliRunner(env={"NO_COLOR": "1"}).invoke(app, arguments)
    assert told.exit_code == 0 and "nothing to do: 90 rows are in" in told.output, told.output


def test_the_command_tells_progress_and_what_was_verified(made, tmp_path):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    folder, url = made
    cli = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})
    with temporary_settings(restore_defaults={PREFECT_API_URL}):  # other tests may have a server
        told = cli.invoke(app, ["export", url, str(tmp_path / "out"), "--shards", "4"])
        assert told.exit_code == 0, told.output
        assert "export webdataset: 90 rows in 4 shards, 4 to write" in told.output
        assert "check export: 4 of 4 shards" in told.output and "verified: 90 rows in order, 4 shards" in told.output
        assert contents(tmp_path / "out") == contents(folder / "webdataset")
        told = cli.invoke(app, ["export", url, str(tmp_path / "mds"), "--to", "mds"])
        assert told.exit_code == 2 and "`kind` is 'mds': input should be 'webdataset' or 'litdata'" in told.output
        told = cli.invoke(app, ["export", url, str(tmp_path / "out"), "--shards", "5"])
        assert told.exit_code == 2 and "holds another export" in told.output and "Traceback" not in told.output


def test_an_unknown_setting_is_refused():
    from configs import loading
    from configs.export import Export

    with pytest.raises(ConfigError, match="`shard_byte` is no setting"):
        loading.checked(Export, {"shard_byte": 3})


@pytest.mark.flow
def test_the_flow_exports_and_says_so(made, tmp_path, prefect_server):
    folder, url = made
    state = exporting.export(url, str(tmp_path / "out"), "litdata", "shards: 4", return_state=True)
    assert state.is_completed() and state.message.startswith("verified: 90 rows in order, 4 shards")
    assert state.result() == str(tmp_path / "out")
    assert contents(tmp_path / "out") == contents(folder / "litdata")
    state = exporting.export(url, str(tmp_path / "out"), "webdataset", return_state=True)
    assert state.is_failed() and "holds another export (litdata of version" in state.message


@pytest.mark.flow
def test_a_login_in_a_url_reaches_no_run(prefect_server, tmp_path):
    from prefect.settings import PREFECT_API_URL

    login = "s3://AKIAEXAMPLEKEY0:planted-4711@bucket/mix"
    server = PREFECT_API_URL.value()
    cli = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})
    before = ask(server, "/flow_runs/count", {})
    for arguments, name in (([login, str(tmp_path)], "the mix"), (["some/mix", login], "the folder of the export")):
        told = cli.invoke(app, ["export", *arguments])
        assert told.exit_code == 2 and f"{name} is refused: it is a URL with a user name" in told.output, told.output
        assert "planted-4711" not in told.output
    assert ask(server, "/flow_runs/count", {}) == before  # no run keeps it
    properties = exporting.export.parameters.properties
    for name in ("mix", "out"):  # what a form's schema refuses makes no run either
        assert not re.search(properties[name]["pattern"], login) and re.search(properties[name]["pattern"], "s3://b/m")
        assert properties[name]["minLength"] == 1
    state = exporting.export(login, str(tmp_path), return_state=True)
    assert state.is_failed() and "the mix is refused" in state.message and "planted" not in state.message
    found = ask(server, "/flow_runs/filter", {"flow_runs": {"id": {"any_": [str(state.state_details.flow_run_id)]}}})
    assert found[0]["name"].startswith("export-webdataset-s3://***@") and "planted" not in found[0]["name"]


@pytest.mark.nightly
def test_an_export_that_is_killed_goes_on_where_it_was(tmp_path):
    url, _ = write_mix(tmp_path / "mix", rows=6_000, part_rows=2_000)
    export(url, tmp_path / "whole", shards=40)
    out, started = tmp_path / "out", time.monotonic()
    command = [sys.executable, "-m", "flows.cli", "export", url, str(out), "--shards", "40"]
    killed = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL)
    while len(list(out.glob("*.tar"))) < 5:
        assert killed.poll() is None and time.monotonic() - started < 120
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    whole = contents(tmp_path / "whole")
    kept = {name: data for name, data in contents(out).items() if name.endswith(".tar")}
    assert 5 <= len(kept) < 40 and all(whole[name] == data for name, data in kept.items())
    log: list[str] = []
    export(url, out, log, shards=40)
    assert int(log[0].split()[-3]) <= 36  # "6,000 rows in 40 shards, 35 to write"
    assert {n: d for n, d in contents(out).items() if not n.endswith(".tmp")} == whole
