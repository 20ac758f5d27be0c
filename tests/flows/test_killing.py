"""kill -9 at random moments, then a rerun: the same bytes, nothing half-written under a final name."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from corpora import config, digests, sidecars, write_corpus

from storage import manifests

PROGRAM = """
import sys
from pathlib import Path
from corpora import config, run
print("go", flush=True)
print(run(config(Path(sys.argv[1]))).url, flush=True)
"""


def start(folder: Path) -> subprocess.Popen:
    """The pipeline in a process of its own; returns once its imports are done."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "go\n"
    return process


def finish(folder: Path) -> Path:
    process = start(folder)
    url = process.stdout.readline().strip()
    assert process.wait() == 0
    return Path(url)


@pytest.mark.nightly
def test_ten_kills_each_with_a_rerun(tmp_path):
    write_corpus(tmp_path / "whole" / "in", shards=7, count=300)
    began = time.monotonic()
    process = start(tmp_path / "whole")
    began = time.monotonic()
    whole = Path(process.stdout.readline().strip())
    process.wait()
    took = time.monotonic() - began
    wanted, stored = digests(whole, "data", "ledger", "quarantine"), sidecars(tmp_path / "whole" / "store")
    rng, report = np.random.default_rng(20), []
    for number, share in enumerate(rng.uniform(0, 1, 10)):
        folder = tmp_path / f"killed{number}"
        shutil.copytree(tmp_path / "whole" / "in", folder / "in", copy_function=shutil.copy2)
        process = start(folder)
        time.sleep(share * took)
        process.send_signal(signal.SIGKILL)
        process.wait()
        left = [f for f in folder.rglob("*.parquet") if f.name[0] != "."]
        for file in left:
            pq.read_metadata(file)  # whole, or not under this name
        url = finish(folder)
        assert digests(url, "data", "ledger", "quarantine") == wanted
        assert sidecars(folder / "store") == stored
        assert list(manifests.discrepancies(str(url))) == []
        report.append(f"killed after {share:.0%} of {took:.1f} s with {len(left)} files whole: same bytes")
    print("\n".join(report))


@pytest.mark.nightly
@pytest.mark.flow
def test_a_killed_run_of_the_command_line_goes_on(tmp_path):
    """The same through `mixwright curate`, with Prefect's own temporary server killed along with it."""
    write_corpus(tmp_path / "a" / "in", shards=7, count=300)
    shutil.copytree(tmp_path / "a" / "in", tmp_path / "b" / "in", copy_function=shutil.copy2)
    environment = os.environ | {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_API_URL": ""}
    for name in ("a", "b"):
        settings = config(tmp_path / name).model_dump(mode="json")
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    mixwright = str(Path(sys.executable).with_name("mixwright"))
    subprocess.run([mixwright, "curate", str(tmp_path / "a.yaml")], env=environment, check=True, capture_output=True)
    # Nobody reads its output: a pipe could fill up and hold the run.
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [mixwright, "curate", str(tmp_path / "b.yaml")]
    process = subprocess.Popen(command, env=environment, start_new_session=True, **quiet)
    while not list((tmp_path / "b" / "store").glob("select/*/*/state.npz")):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list((tmp_path / "b" / "out").rglob("mix.json"))
    subprocess.run([mixwright, "curate", str(tmp_path / "b.yaml")], env=environment, check=True, capture_output=True)
    one, two = (manifests.resolve(str(tmp_path / name / "out" / "mix")) for name in ("a", "b"))
    assert digests(Path(one), "data", "ledger") == digests(Path(two), "data", "ledger")
