"""Bytes in the store: those of this run's shards, on any file system."""

from __future__ import annotations

import pytest

from storage import files
from storage.steps import Step
from tasks.report import costs


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_counts_this_runs_files_and_those_of_all(tmp_path, scheme):
    step = Step(f"{scheme}{tmp_path}", "embed", "columns", "f" * 32)
    mine, other = "a" * 32, "b" * 32
    for name, size in {
        f"{mine}.parquet": 100,
        f"{mine}.json": 10,
        f"{mine}.failures.parquet": 5,
        f"{other}.parquet": 7,
    }.items():
        files.write_bytes(step.file(name), bytes(size))
    files.write_bytes(step.file("_done.json"), bytes(3))
    files.write_bytes(step.file("part-00000.parquet"), bytes(1000))
    files.write_bytes(step.file("spill/x.parquet"), bytes(5000))
    files.write_bytes(step.file("coverage/steps-00000.parquet"), bytes(20_000))
    assert costs.stored(step, [mine]) == 21_118
    assert costs.stored(step, [mine, other]) == 21_125


def test_no_folder(tmp_path):
    assert costs.sizes(str(tmp_path / "none")) == {}


def test_the_machine_is_told_without_its_name():
    import platform

    told = costs.machine()
    assert "cores" in told and "Python" in told and platform.node() not in told
