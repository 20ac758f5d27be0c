"""The examples do what they say: training that goes on where it was, alone, on two ranks, on rows that the model chooses;
training on publication."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from ast import literal_eval
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from corpora import config, run, write_corpus
from exported import export
from packaging.version import Version
from safetensors.torch import load_file
from served import HURRY, ask, free_port, soon
from tiny_lm import real_texts, tiny_lm

from flows.place import CHECKOUT, Place, server
from flows.serving import POOL
from storage import manifests

SCRIPT = CHECKOUT / "examples" / "train_clip.py"
AUTOMATION = CHECKOUT / "examples" / "train_when_published.yaml"
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DO_NOT_TRACK": "1"}


def settings(folder: Path):
    """A configuration of batches of 16."""
    return config(folder, {"sample": {"kind": "iid", "batch_size": 16, "filter_ratio": 0}})


@pytest.fixture(scope="module")
def mix(tmp_path_factory):
    """A small real mix."""
    folder = tmp_path_factory.mktemp("examples")
    write_corpus(folder / "in", shards=3)
    return run(settings(folder))


def python(*arguments: object, **options: object) -> subprocess.CompletedProcess:
    """What a Python process of its own said."""
    told = [str(argument) for argument in arguments]
    return subprocess.run([sys.executable, *told], cwd=CHECKOUT, env=ENV, capture_output=True, text=True, **options)


def steps(told: str) -> list[int]:
    """The steps that a training tells of."""
    return [int(step) for step in re.findall(r"^step (\d+): loss \d", told, flags=re.M)]


@pytest.mark.nightly
def test_a_training_that_goes_on_ends_with_the_same_weights(mix, tmp_path):
    script = f"""
import logging
from examples.train_clip import train
logging.basicConfig(level=logging.INFO, format="%(message)s")
for out, count in (("whole", 5), ("parted", 3), ("parted", 5)):
    train({mix.url!r}, {str(tmp_path)!r} + "/" + out, steps=count, every=2)
"""
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
    assert steps(done.stderr) == [1, 2, 3, 4, 5, 1, 2, 3, 3, 4, 5]  # the checkpoint was that of step 2
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parted")]
    assert weights[0] == weights[1]
    pocket = (CHECKOUT / "configs/models/pocket/open_clip_model.safetensors").read_bytes()
    assert weights[0] != pocket


@pytest.mark.nightly
def test_a_language_model_is_trained_on_the_rows_it_chooses(mix, tmp_path):
    tiny_lm(tmp_path / "lm", real_texts(60))
    script = f"""
import logging
from examples.train_uds import train
logging.basicConfig(level=logging.INFO, format="%(message)s")
for out, options in (("loop", {{}}), ("word", dict(kind="max_loss")), ("trainer", dict(trainer=True))):
    train({mix.url!r}, {str(tmp_path / "lm")!r}, {str(tmp_path)!r} + "/" + out, max_length=64, steps=2, **options)
"""
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
    assert steps(done.stderr) == [1, 2, 1, 2] and done.stderr.count("'candidates': 64.0, 'trained': 16.0") == 2
    told = [literal_eval(line) for line in done.stdout.splitlines() if line.startswith("{'loss'")]
    assert [float(line["selector_candidates"]) for line in told] == [32, 64]
    weights = {(tmp_path / n / "model.safetensors").read_bytes() for n in ("lm", "loop", "word", "trainer")}
    assert len(weights) == 4
    assert list((tmp_path / "trainer" / "checkpoints").glob("checkpoint-*/selector-0.safetensors"))


@pytest.mark.nightly
def test_two_processes_choose_each_for_itself(mix, tmp_path):
    tiny_lm(tmp_path / "lm", real_texts(60))
    command = ["-m", "torch.distributed.run", "--nproc-per-node", 2, "--master-port", free_port()]
    command += [SCRIPT.with_name("train_uds.py"), mix.url, tmp_path / "lm", "--out", tmp_path / "out", "--trainer"]
    done = python(*command, "--steps", 2, "--max-length", 64)
    assert done.returncode == 0, done.stderr
    checkpoint = tmp_path / "out" / "checkpoints" / "checkpoint-2"
    states = [load_file(checkpoint / f"selector-{rank}.safetensors") for rank in (0, 1)]
    assert [state["memory.vectors"].shape for state in states] == [(16, 1024)] * 2
    assert not states[0]["memory.vectors"].equal(states[1]["memory.vectors"])


def test_the_training_examples_are_short():
    assert len(SCRIPT.read_text().splitlines()) <= 60
    assert len(SCRIPT.with_name("train_uds.py").read_text().splitlines()) <= 100


@pytest.mark.nightly
def test_a_killed_training_goes_on_and_two_ranks_take_over(mix, tmp_path):
    total = mix.manifest["batches"]["steps"]
    command = [SCRIPT, mix.url, "--out", tmp_path / "out", "--every", 1]
    killed = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=CHECKOUT, env=ENV, stderr=subprocess.PIPE, text=True
    )
    seen = []
    while len(seen) < 3:
        line = killed.stderr.readline()
        assert line, "the training ended before it was killed"
        seen += steps(line)
    os.kill(killed.pid, signal.SIGKILL)
    killed.stderr.close(), killed.wait()
    assert seen == [1, 2, 3] and not (tmp_path / "out" / "model.safetensors").exists()
    alone = python(*command, "--steps", 4)
    # The checkpoint of the third step may have been in the making.
    assert alone.returncode == 0 and steps(alone.stderr) in ([4], [3, 4]), alone.stderr
    two = python("-m", "torch.distributed.run", "--nproc-per-node", 2, "--master-port", free_port(), *command)
    assert two.returncode == 0, two.stderr
    # What four steps of one rank left is shared by two; the first of them tells its steps.
    assert steps(two.stderr) == list(range(5, 5 + (total - 4) // 2))
    assert (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.nightly
@pytest.mark.skipif(
    Version(version("webdataset")) > Version("0.2.86"),
    reason="open_clip's own training reads with webdataset<=0.2.86: pip install 'open_clip_torch[training]'",
)
def test_open_clips_own_training_runs_on_an_export(mix, tmp_path):
    made = export(mix.url, tmp_path / "tars", shards=2)
    command = ["-m", "open_clip_train.main", "--dataset-type", "webdataset", "--train-data"]
    command += [f"{made.url}/{{00000..00001}}.tar", "--model", "local-dir:configs/models/pocket", "--device", "cpu"]
    command += ["--precision", "fp32", "--batch-size", 16, "--epochs", 1, "--workers", 1, "--warmup", 2]
    command += ["--logs", tmp_path / "logs", "--name", "run", "--log-every-n-steps", 1]
    done = python(*command)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "logs" / "run" / "out.log").read_text()
    rows = made.manifest["rows"]
    assert f"/{-(-rows // 16) * 16} (" in log and re.search(r"Contrastive_loss: \d", log)
    assert (tmp_path / "logs" / "run" / "checkpoints" / "epoch_1.pt").stat().st_size > 10_000_000


@pytest.fixture
def trainer(tmp_path):
    """A server with the deployment that trains on what is published, two steps each, and a worker."""
    port = free_port()
    place = Place(f"http://127.0.0.1:{port}/api", tmp_path / "home", {**HURRY, "OMP_NUM_THREADS": "1"})
    values = yaml.safe_load(AUTOMATION.read_text())
    values["deployments"][0]["parameters"] |= {"out": str(tmp_path / "trained"), "steps": 2}
    (tmp_path / "automation.yaml").write_text(yaml.safe_dump(values))
    with server(place, port):
        for arguments in (
            ["work-pool", "create", POOL, "--type", "process"],
            *2 * [["deploy", "--all", "--prefect-file", str(tmp_path / "automation.yaml")]],  # a second time as well
        ):
            told = subprocess.run(**place.command(*arguments), capture_output=True, text=True)
            assert told.returncode == 0, told.stdout + told.stderr
        with place.running("worker", "worker", "start", "--pool", POOL, "--type", "process"):
            yield place, tmp_path / "trained"


def trainings(place: Place) -> list[dict]:
    """The flow runs of `train`, the first first."""
    body = {"flows": {"name": {"any_": ["train"]}}, "sort": "START_TIME_ASC"}
    return ask(place.api, "/flow_runs/filter", body)


@pytest.mark.nightly
@pytest.mark.flow
@pytest.mark.timeout(900)
def test_what_is_published_is_trained_on(trainer, mix, tmp_path):
    place, out = trainer
    (automation,) = ask(place.api, "/automations/filter", {})
    assert automation["enabled"] and automation["trigger"]["expect"] == ["mixwright.mix.published"]

    def ended(count: int) -> list[dict]:
        found = trainings(place)
        return (
            found
            if [one["state_type"] in ("COMPLETED", "FAILED", "CRASHED") for one in found] == [True] * count
            else []
        )

    emit = f"""
from prefect.events import emit_event
resource = {{"prefect.resource.id": "mixwright.mix.mix"}}
emit_event("mixwright.warning.repeats", resource, payload={{"url": "not this"}})
emit_event("mixwright.mix.published", resource, payload={{"url": {mix.url!r}, "name": "mix"}})
"""
    told = subprocess.run(**{**place.command(), "args": [sys.executable, "-c", emit]}, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    (first,) = soon(lambda: ended(1), 240) or [None]
    assert first and first["state_type"] == "COMPLETED" and first["parameters"]["mix"] == mix.url
    assert first["name"] == f"train-{mix.url}" and (out / mix.manifest["version"] / "model.safetensors").exists()

    write_corpus(tmp_path / "in", shards=3)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings(tmp_path).model_dump(mode="json")))
    command = place.command("curate", str(tmp_path / "c.yaml"), module="flows.cli")
    told = subprocess.run(**command, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    published = manifests.resolve(str(tmp_path / "out" / "mix"))
    found = soon(lambda: ended(2), 240)
    assert found, trainings(place)
    assert found[1]["state_type"] == "COMPLETED" and found[1]["parameters"]["mix"] == published
    assert (out / manifests.read(published)["version"] / "model.safetensors").exists()
