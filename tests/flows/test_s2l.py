"""S2L in whole runs: a proxy learns from all shards, every row is measured, a budget is shared among clusters."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import corpora
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import ColumnError, StageError
from tasks.score import proxy_training

IID = {"kind": "iid", "batch_size": 1}
PROXY = {"kind": "language", "max_length": 16, "vocabulary": 320, "width": 16, "layers": 1, "heads": 2}
TRAINED = {"proxy": PROXY, "checkpoints": 4, "epochs": 4, "batch_size": 16, "learning_rate": 0.01, "device": "cpu"}
ROWS, SHARDS = 40, 3


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Three shards of instructions of two sources; one row without an answer, one with a prompt that fills the model."""
    folder = tmp_path_factory.mktemp("s2l")
    (folder / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in range(SHARDS):
        words = [" ".join(np.array(["oak", "elm", "ash", "fir"])[rng.integers(0, 4, 6)]) for _ in range(ROWS // 2)]
        noise = ["".join(chr(97 + i) for i in rng.integers(0, 26, 24)) for _ in range(ROWS // 2)]
        columns = {"text": [f"{number} {row}" for row in range(ROWS)], "ask": ["name trees"] * ROWS}
        columns |= {"answer": [*words, *noise], "source": ["trees"] * (ROWS // 2) + ["noise"] * (ROWS // 2)}
        if number == 0:
            columns["answer"][3], columns["ask"][5] = None, "name " * 50
        # Trajectories that were made elsewhere: two shapes, one of them in one row of eight.
        losses = np.linspace(3, 1, 5) + 0.01 * rng.standard_normal((ROWS, 5))
        losses[::8] = np.linspace(3, 2.9, 5)
        lists = [None if (number, row) == (1, 9) else one.tolist() for row, one in enumerate(losses)]
        columns |= {"losses": pa.array(lists, pa.list_(pa.float32(), 5)), "number": [1.0] * ROWS}
        pq.write_table(pa.table(columns), folder / "in" / f"{number}.parquet")
    return folder


def settings(corpus, place, over=None, **select):
    one = {"kind": "trajectories", "target_rows": 30, "clusters": 4, **select}
    whole = {"select": [one], "score": [], "embed": None, "annotate": None, "sample": IID, **(over or {})}
    places = {"store": f"{place}/store", "emit": {"out": f"{place}/out", "part_bytes": 20_000}}
    whole |= {"input": {"path": f"{corpus}/in", "image": None, "key": None, "source": "source"}}
    return corpora.config(corpus, whole | places)


def language(**over):
    return {"kind": "trajectory", **TRAINED, "proxy": PROXY | {"prompt": "ask", "response": "answer"}, **over}


def ledger(mix):
    return pq.read_table(f"{mix.url}/ledger")


def left(place: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Digests of a run's mix and sidecars."""
    out = {n: d for n, d in corpora.digests(place, "out").items() if "/data/" in n or "/ledger/" in n}
    return out, corpora.sidecars(place / "store")


# ------------------------------------------------------------------------------------------------------- whole runs
def test_a_language_proxy_makes_trajectories_and_every_row_is_accounted_for(texts, tmp_path):
    mix = corpora.run(settings(texts, tmp_path, proxy=language()))
    told = ledger(mix)
    assert mix.manifest["counts"]["kept"] == 30 and told.num_rows == ROWS * SHARDS
    reasons = Counter(told["reason"].to_pylist())
    assert reasons["no_trajectory"] == 2 and reasons["trajectory_cluster"] == ROWS * SHARDS - 32
    # The same again is nothing to do; another budget trains nothing.
    log: list[str] = []
    assert corpora.run(settings(texts, tmp_path, proxy=language())).task_runs == 0
    again = corpora.run(settings(texts, tmp_path, proxy=language(), target_rows=None, target_fraction=0.5), log)
    assert again.manifest["counts"]["kept"] == ROWS * SHARDS // 2
    assert not any("learning from" in line for line in log)
    # Half of the trees are missing at most: by source both have their share.
    by_source = ledger(corpora.run(settings(texts, tmp_path, proxy=language(), by_source=True)))
    kept = [
        file
        for file, outcome in zip(by_source["row"].to_pylist(), by_source["outcome"].to_pylist())
        if outcome == "kept"
    ]
    assert sum(row < ROWS // 2 for row in kept) == 15


def test_pairs_have_trajectories_too(corpus, tmp_path):
    proxy = {"kind": "trajectory", "checkpoints": 3, "epochs": 3, "device": "cpu"}
    select = {"kind": "trajectories", "target_rows": 100, "clusters": 10, "by_source": True, "proxy": proxy}
    over = {"select": [select], "annotate": None, "score": [], "sample": IID}
    mix = corpora.run(corpora.config(corpus, over))
    assert mix.manifest["counts"]["kept"] == 100 and ledger(mix).num_rows == 420
    cut = next(Path(corpus, "store/select/trajectories").glob("*/_cut.json")).read_text()
    assert '"web/' in cut and '"no source/' not in cut


def test_trajectories_made_elsewhere_are_a_column(texts, tmp_path):
    mix = corpora.run(settings(texts, tmp_path, column="losses", clusters=2))
    told = ledger(mix)
    reasons = dict(zip(zip(told["file"].to_pylist(), told["row"].to_pylist()), told["reason"].to_pylist()))
    assert reasons["1.parquet", 9] == "no_trajectory" and mix.manifest["counts"]["kept"] == 30
    rare = [
        row % 8 == 0 for row, outcome in zip(told["row"].to_pylist(), told["outcome"].to_pylist()) if outcome == "kept"
    ]
    assert sum(rare) == 15  # all rows of the rare shape, which is less than half of the budget; 15 others


# ------------------------------------------------------------------------------------------------------- the same bytes
def test_same_bytes_for_any_workers_and_any_shards_per_task(texts, tmp_path):
    found = []
    for number, runner in enumerate(({"workers": 1}, {"workers": 3, "shards_per_task": 2})):
        corpora.run(settings(texts, tmp_path / str(number), {"runner": runner}, proxy=language()))
        found.append(left(tmp_path / str(number)))
    assert found[0] == found[1] and all(found[0])


def test_the_rows_that_stay_do_not_depend_on_the_cut_into_shards(texts, tmp_path):
    whole = pa.concat_tables([pq.read_table(texts / "in" / f"{number}.parquet") for number in range(SHARDS)])
    (tmp_path / "in").mkdir()
    for at in range(0, len(whole), 17):
        pq.write_table(whole.slice(at, 17), tmp_path / "in" / f"{at:05d}.parquet")
    kept = []
    for corpus in (texts, tmp_path):
        mix = corpora.run(settings(corpus, tmp_path / corpus.name / "x", column="losses", clusters=2))
        kept.append(sorted(pq.read_table(f"{mix.url}/data")["text"].to_pylist()))
    assert kept[0] == kept[1] and len(kept[0]) == 30


def test_training_that_was_interrupted_goes_on_to_the_same_bytes(texts, tmp_path, monkeypatch):
    corpora.run(settings(texts, tmp_path / "whole", proxy=language()))
    monkeypatch.setattr(proxy_training, "SAVE_SECONDS", 0)
    monkeypatch.setattr(proxy_training, "SAVE_SHARE", float("inf"))
    advance, steps = proxy_training.Training.advance, []

    def broken(self):
        if len(steps) == 7:
            raise KeyboardInterrupt
        steps.append(self.step)
        advance(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(proxy_training.Training, "advance", broken)
        corpora.run(settings(texts, tmp_path / "broken", proxy=language()))
    assert steps == [*range(7)] and list((tmp_path / "broken").rglob("checkpoint.npz"))
    monkeypatch.setattr(proxy_training.Training, "advance", lambda self: steps.append(self.step) or advance(self))
    corpora.run(settings(texts, tmp_path / "broken", proxy=language()))
    assert steps[7:] == [*range(7, 30)]  # 118 rows, 16 a step, four times
    assert left(tmp_path / "broken") == left(tmp_path / "whole")
    assert not list((tmp_path / "broken").rglob("checkpoint.npz"))


PROGRAM = """
import sys
import test_s2l
from tasks.score import proxy_training
proxy_training.SAVE_SECONDS = 0
texts, place = map(test_s2l.Path, sys.argv[1:])
print("go", flush=True)
test_s2l.corpora.run(test_s2l.settings(texts, place, proxy=test_s2l.language(epochs=60.0)))
"""


@pytest.mark.nightly
def test_training_that_was_killed_goes_on_to_the_same_bytes(texts, tmp_path):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    }

    def start(place: Path) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", PROGRAM, str(texts), str(place)], env=environment)

    assert start(tmp_path / "whole").wait() == 0
    for _ in range(3):
        process = start(tmp_path / "killed")
        seen = set()
        while len(seen) < 3:  # several checkpoints of this process
            assert process.poll() is None
            seen |= {path.stat().st_mtime_ns for path in (tmp_path / "killed").rglob("checkpoint.npz")}
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not list((tmp_path / "killed" / "store" / "score").rglob("state.npz"))
    assert start(tmp_path / "killed").wait() == 0
    assert left(tmp_path / "killed") == left(tmp_path / "whole")


# ------------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("select", "error", "told"),
    [
        ({"column": "curve"}, ColumnError, "no column 'curve', which `select/trajectories` names"),
        ({"column": "number"}, ColumnError, "`column` names 'number', which is double"),
        ({}, StageError, "needs the column 'trajectory', which nothing before it makes"),
        ({"proxy": TRAINED | {"proxy": PROXY | {"prompt": "query"}}}, ColumnError, "no column 'query'"),
        ({"proxy": TRAINED | {"proxy": PROXY | {"response": "number"}}}, ColumnError, "'number' is double"),
        ({"proxy": TRAINED | {"proxy": {"kind": "pairs"}}}, StageError, "needs the column 'image_embedding'"),
    ],
)
def test_what_is_missing_or_of_a_wrong_type_is_refused_before_work(texts, tmp_path, select, error, told):
    with pytest.raises(error, match=told):
        corpora.run(settings(texts, tmp_path, **select))
    assert not corpora.sidecars(tmp_path / "store") and not list((tmp_path / "out").rglob("*.parquet"))


def test_a_shard_with_trajectories_of_another_length_is_named(texts, tmp_path):
    shutil.copytree(texts / "in", tmp_path / "in")
    table = pq.read_table(tmp_path / "in/2.parquet").drop_columns("losses")
    for number in range(SHARDS):
        own = pq.read_table(tmp_path / "in" / f"{number}.parquet").drop_columns("losses")
        lists = [[1.0] * (5 if number < 2 or row < 7 else 6) for row in range(ROWS)]
        pq.write_table(own.append_column("losses", pa.array(lists)), tmp_path / "in" / f"{number}.parquet")
    assert table.num_rows == ROWS
    with pytest.raises(Exception, match=r"2\.parquet: ColumnError: `losses` has 6 numbers in row 7"):
        corpora.run(settings(tmp_path, tmp_path, column="losses"))
