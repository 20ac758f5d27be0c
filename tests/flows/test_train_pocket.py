"""The flow and the command that train the pocket model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from configs.pocket import FOLDER, Pocket
from flows import openmoji
from flows.cli import app
from flows.train_pocket import command, train_pocket
from tasks.train import pocket
from tasks.train.dictionary import Entry

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 4, "head_width": 32},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with the config of a model of a second."""
    shipped = json.loads((FOLDER / "open_clip_config.json").read_text())
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "open_clip_config.json").write_text(json.dumps({**shipped, "model_cfg": TINY}))
    return tmp_path / "tiny"


@pytest.mark.flow
def test_the_flow(prefect_server, tiny, tmp_path, monkeypatch):
    write = openmoji.write_openmoji
    monkeypatch.setattr(openmoji, "write_openmoji", lambda folder: write(folder, shards=2, size=32, limit=60))
    monkeypatch.setattr(pocket, "entries", lambda: [Entry(["otter"], "a mammal"), Entry(["oak"], "a tree")])
    overrides = f"{{architecture: {tiny}, steps: 2, dictionary_steps: 2, batch_size: 4}}"
    out = str(tmp_path / "out")
    state = train_pocket(out=out, work=str(tmp_path / "work"), overrides=overrides, return_state=True)
    assert state.is_completed() and state.result() == out
    assert "held-out base emoji find their caption" in state.message
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"mixwright train-pocket --out {out}" in card and "--set=steps=2" in card


@pytest.mark.flow
def test_what_is_refused(prefect_server, tmp_path):
    state = train_pocket(out=str(tmp_path), overrides="{steps: 0, stepps: 1}", return_state=True)
    assert state.is_failed() and "`steps` is 0: input should be greater" in state.message
    assert "`stepps` is no setting" in state.message


def test_the_command_says_it_all():
    assert command("configs/models/pocket", Pocket()) == "mixwright train-pocket --out configs/models/pocket"
    assert command("a b", Pocket(seed=3)) == "mixwright train-pocket --out 'a b' --set=seed=3"


def test_a_setting_of_no_form_is_one_line():
    told = CliRunner().invoke(app, ["train-pocket", "--set", "steps"])
    assert told.exit_code == 2 and "it must be section.key=value" in told.output


@pytest.mark.nightly
def test_a_killed_training_goes_on_to_the_same_weights(tiny, tmp_path):
    """SIGKILL between two checkpoints; the same command again."""
    arguments = ["--set", f"architecture={tiny}", "--set", "steps=300", "--set", "dictionary_steps=20"]
    arguments += ["--set", "checkpoint_every=25", "--work"]

    def start(work: str, log: str) -> subprocess.Popen:
        given = [sys.executable, "-m", "flows.cli", "train-pocket", "--out", f"{tmp_path}/{work}-out", *arguments]
        patience = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300"}
        environment = {**os.environ, **patience, "PREFECT_HOME": str(tmp_path / "home")}
        with open(tmp_path / log, "wb") as told:
            return subprocess.Popen(
                [*given, f"{tmp_path}/{work}"], env=environment, stdout=told, stderr=told, start_new_session=True
            )

    assert start("whole", "whole.log").wait(600) == 0, (tmp_path / "whole.log").read_text()
    killed = start("killed", "killed.log")
    until = time.monotonic() + 300
    while not list((tmp_path / "killed").glob("*/checkpoint.safetensors")) and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)  # its temporary server too
    killed.wait(60)
    assert not (tmp_path / "killed-out").exists()
    assert start("killed", "again.log").wait(600) == 0, (tmp_path / "again.log").read_text()
    assert "going on after step" in (tmp_path / "again.log").read_text()
    first, second = (tmp_path / f"{name}-out" / "open_clip_model.safetensors" for name in ("whole", "killed"))
    assert first.read_bytes() == second.read_bytes()
