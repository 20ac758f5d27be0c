"""Selections by representation in whole runs: targets are met exactly, and reasons and keepers are told."""

import pyarrow.parquet as pq
import pytest
from corpora import config, run, write_corpus


@pytest.mark.parametrize(
    ("settings", "wanted", "reason"),
    [
        ({"kind": "facility_location", "target_rows": 60, "bucket_rows": 40}, 60, "well_represented"),
        ({"kind": "k_center", "target_fraction": 0.25, "bucket_rows": 40}, 44, "near_a_centre"),
        ({"kind": "cluster_balanced", "target_rows": 61, "clusters": [20, 5]}, 61, "cluster_full"),
    ],
    ids=["facility_location", "k_center", "cluster_balanced"],
)
def test_a_run_meets_its_target(tmp_path, settings, wanted, reason):
    write_corpus(tmp_path / "in", shards=3)  # of 180 rows 6 are bad
    every = {"kind": "cabs_dm", "batch_size": 1, "filter_ratio": 0.0}
    mix = run(config(tmp_path, {"select": [settings], "sample": every}))
    assert mix.manifest["counts"]["emitted"] == wanted
    tables = [pq.read_table(file) for file in sorted((tmp_path / "out").rglob("ledger/*.parquet"))]
    rows = [row for table in tables for row in table.to_pylist()]
    dropped = [row for row in rows if row["reason"] == reason]
    assert len(dropped) == 180 - 6 - wanted
    if settings["kind"] != "cluster_balanced":
        assert all(row["keeper_file"] for row in dropped if row["keeper_row"] is not None)
        assert any(row["keeper_row"] is not None for row in dropped)
