"""A select that breaks off at any of its steps: the rerun goes on from there and makes the same bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from corpora import config, digests, run, write_corpus

from configs.errors import RunFailed
from storage import files, manifests
from tasks.select import decisions, linking, targets
from tasks.select import task as select_task

SELECT = [
    {"kind": "minhash", "threshold": 0.5, "target_fraction": 0.9},
    {"kind": "near_duplicates", "bucket_rows": 64, "target_rows": 120},
]
QUICK = {("join", 0), ("cut", 1), ("settle", 3)}
STEPS = [
    (linking, "spill_keys", 2),
    (linking, "link_bucket", 0),
    (linking, "join", 0),
    (linking.Links, "divide", 1),
    (decisions.targets, "write_ranks", 1),
    (decisions.targets, "write_ranks", 5),
    (targets, "cut", 0),
    (targets, "cut", 1),
    (targets, "settle", 3),
    (select_task, "publish_decisions", 2),
]


def settings(folder):
    return config(folder, {"select": SELECT, "sample": {"kind": "iid", "batch_size": 8}})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write_corpus(folder / "in", shards=4, count=50)
    mix = run(settings(folder))
    assert mix.manifest["counts"]["kept"] == 120
    return folder / "in", digests(Path(mix.url), "data", "ledger", "quarantine")


@pytest.mark.parametrize(
    ("owner", "name", "after"),
    [
        pytest.param(*step, id=f"{step[1]}-{step[2]}", marks=[] if step[1:] in QUICK else pytest.mark.nightly)
        for step in STEPS
    ],
)
def test_a_select_goes_on_where_it_broke_off(whole, tmp_path, monkeypatch, owner, name, after):
    shutil.copytree(whole[0], tmp_path / "in", copy_function=shutil.copy2)
    real, calls = getattr(owner, name), []

    def breaking(*args, **kwargs):
        calls.append(name)
        if len(calls) > after:
            raise ValueError("as the test wants")
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, breaking)
        with pytest.raises((RunFailed, ValueError), match="as the test wants"):
            run(settings(tmp_path))
    assert len(calls) > after
    mix = run(settings(tmp_path))
    assert digests(Path(mix.url), "data", "ledger", "quarantine") == whole[1]
    assert list(manifests.discrepancies(mix.url)) == []
    left = [f for f in (tmp_path / "store" / "select").rglob("spill/*")]
    assert not left, left
    assert files.names(str(tmp_path / "store" / "select" / "minhash"))
