"""Learned mixes through whole runs: three kinds of real text, a small proxy, rounds in the draw list."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from corpora import digests, run
from mix_samples import kinds

from configs.errors import ColumnError, ConfigError, RunFailed, StageError
from configs.loading import merged, validate
from flows.pipeline import examine
from tasks.mix import course
from tasks.mix import task as mixing
from tasks.mix.aioli import AioliMix

LAWS = ("aioli", "doremi", "doge", "skill_it", "mixing_law")
PROXY = {"kind": "language", "max_length": 32, "vocabulary": 400, "width": 32, "layers": 1, "heads": 2}
LAW = {"proxy": PROXY, "steps": 24, "rounds": 3, "batch_size": 12, "validation_rows": 16, "train_rows": 200}


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """A folder with four shards of texts of three kinds, unevenly many."""
    folder = tmp_path_factory.mktemp("texts")
    rows = [(name, text) for name, some in kinds(160).items() for text in some[: {"code": 160}.get(name, 100)]]
    order = np.random.default_rng(0).permutation(len(rows))
    for number, part in enumerate(np.array_split(order, 4)):
        table = pa.table({"text": [rows[i][1] for i in part], "source": [rows[i][0] for i in part]})
        (folder / "in").mkdir(exist_ok=True)
        pq.write_table(table, folder / "in" / f"{number:05d}.parquet")
    return folder


def settings(folder: Path, law: dict[str, Any], where: str = "", **over: Any):
    places = {"store": f"{folder}/store{where}", "emit": {"out": f"{folder}/out{where}"}}
    source = {"path": f"{folder}/in", "image": None, "text": "text", "source": "source"}
    base = {"name": "mix", "input": source, "sample": {"kind": "iid", "batch_size": 16}}
    return validate(merged(base | places, {"mix": law} | over))


def plan_of(folder: Path, where: str = "") -> dict[str, Any]:
    """What the commit point of the newest mix step says."""
    found = sorted(Path(f"{folder}/store{where}/mix").rglob("_done.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(found[-1].read_text())


@pytest.mark.parametrize(
    "kind", [law if law in ("aioli", "doge") else pytest.param(law, marks=pytest.mark.nightly) for law in LAWS]
)
def test_every_law_makes_a_mix_that_it_explains(texts, kind):
    law = LAW | {"kind": kind, "budget": 480, "max_epochs": 4}
    law |= {"sweeps": 1, "burst_steps": 2} if kind == "aioli" else {}
    law |= {"rounds": 1, "runs": 5} if kind == "mixing_law" else {}
    mix = run(settings(texts, law))
    table = pa.concat_tables(pq.read_table(f) for f in sorted(Path(mix.url, "data").glob("*.parquet")))
    assert mix.emitted == table.num_rows == 480
    told = plan_of(texts)
    counts, facts = np.array(told["counts"]), told["facts"]
    assert facts["kind"] == kind and facts["stopped"] is None and facts["groups"] == told["groups"]
    assert len(counts) == (3 if kind in ("aioli", "skill_it") else 1)
    assert np.allclose(np.array(told["planned"]).sum(axis=1), 1)
    for number, row in enumerate(counts):
        mine = table.filter(pa.compute.equal(table["mix_round"], number))["source"].to_pylist()
        assert [mine.count(name) for name in told["groups"]] == row.tolist()
    assert max(told["epochs"]) <= 4 and all(np.isfinite(facts["final_losses"]))
    page = Path(mix.url, "report", "index.html").read_text()
    assert kind in page


class Struck(Exception):
    """Raised in place of a crash."""


def test_a_run_that_dies_within_a_round_goes_on_to_the_same_bytes(texts, monkeypatch):
    law = LAW | {"kind": "aioli", "sweeps": 1, "burst_steps": 2, "budget": 320}
    whole = run(settings(texts, law, "-whole"))
    monkeypatch.setattr(course, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(course, "SAVE_SHARE", 1e9)
    saved, save = [], course.Checkpoint.save

    def dying(self, state):
        save(self, state)
        saved.append(1)
        if len(saved) in (3, 9):
            raise Struck

    monkeypatch.setattr(course.Checkpoint, "save", dying)
    for _ in range(2):
        with pytest.raises(Struck):
            run(settings(texts, law, "-struck"))
    mix = run(settings(texts, law, "-struck"))
    assert len(saved) > 9 and mix.manifest["version"] == whole.manifest["version"]
    assert digests(Path(mix.url), "data", "ledger") == digests(Path(whole.url), "data", "ledger")


def test_what_the_proxy_cannot_have_is_refused_before_any_work(texts):
    with pytest.raises(ColumnError, match="no column 'nothing'"):
        examine(settings(texts, {"kind": "aioli", "proxy": PROXY | {"text": "nothing"}}))
    with pytest.raises(StageError, match="`mix: doge` needs the column 'image_embedding'"):
        examine(settings(texts, {"kind": "doge", "proxy": {"kind": "pairs"}}))
    with pytest.raises(ConfigError, match="burst"):
        run(settings(texts, LAW | {"kind": "aioli", "sweeps": 100, "burst_steps": 100}))


def test_a_plan_that_is_there_is_not_learned_again(texts, monkeypatch):
    law = LAW | {"kind": "aioli", "sweeps": 1, "burst_steps": 2, "budget": 160}
    monkeypatch.setattr(mixing, "shard_draws", dying := MagicMock(side_effect=RunFailed("struck")))
    with pytest.raises(RunFailed, match="struck"):
        run(settings(texts, law, "-drawn"))
    assert dying.called
    monkeypatch.undo()
    monkeypatch.setattr(AioliMix, "learn", MagicMock(side_effect=AssertionError("it learned again")))
    assert run(settings(texts, law, "-drawn")).emitted == 160


def test_a_proxy_that_diverges_stops_and_says_so(texts):
    told = []
    law = LAW | {"kind": "aioli", "sweeps": 1, "burst_steps": 2, "budget": 160, "learning_rate": 1.0}
    mix = run(settings(texts, law, "-diverged"), told)
    facts = plan_of(texts, "-diverged")["facts"]
    assert mix.emitted == 160 and "the proxy diverged by step" in facts["stopped"]
    warning = next(line for line in told if line.startswith("mix: the proxy diverged"))
    assert "the proportions of" in warning and "take a lower `mix.learning_rate`" in warning
    assert "the proxy diverged by step" in Path(mix.url, "report", "index.html").read_text()


@pytest.mark.nightly
@pytest.mark.flow
@pytest.mark.timeout(300)
def test_ctrl_c_in_a_training_stops_it_and_the_same_command_goes_on(texts, tmp_path):
    law = LAW | {"kind": "aioli", "steps": 1600, "rounds": 8, "sweeps": 1, "burst_steps": 2, "budget": 160}
    file = tmp_path / "halted.yaml"
    file.write_text(yaml.safe_dump(settings(texts, law, "-halted").model_dump(mode="json")))
    command = {"args": [sys.executable, "-m", "flows.cli", "curate", str(file)], "cwd": Path(__file__).parents[2]}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(**command, **pipes, start_new_session=True) as child:
        said = []
        for line in child.stdout:
            said.append(line)
            if "aioli: round 2 of 8" in line:
                os.killpg(child.pid, signal.SIGINT)  # as a terminal does
    told = "".join(said)
    assert child.returncode == 130 and "the run was interrupted; what is finished stays" in told
    assert "Traceback" not in told and "round 8 of 8" not in told
    again = subprocess.run(**command, **pipes, check=True).stdout
    assert "aioli: goes on from round" in again and "aioli: round 2 of 8" not in again
