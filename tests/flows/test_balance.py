"""Balancing in the pipeline: what it expects is told first, what it keeps is near, and its coins stay where they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import config, digests, png, run, sidecars

from configs.errors import RunFailed
from storage import manifests
from tasks.mix.balance import entry_counts, entry_probabilities, keep_probabilities
from tasks.select.balance import Balance

OVER = {
    "embed": None,
    "annotate": {"kind": "column", "column": "classes"},
    "score": [],
    "select": [{"kind": "exact_duplicates"}, {"kind": "balance", "threshold": 20}],
    "sample": {"kind": "iid", "batch_size": 8},
    "report": {"gallery_rows": 0},
}
SHARDS, ROWS, TWIN = 4, 80, 40


def classes(number, words=40, prefix="concept"):
    """Zipf concepts with repeats; some rows have none, some are null."""
    rng = np.random.default_rng(number)
    ids = [np.minimum(rng.zipf(1.3, rng.integers(0, 4)) - 1, words - 1) for _ in range(ROWS)]
    return [None if i % 17 == 5 else [f"{prefix} {w}" for w in row] for i, row in enumerate(ids)]


def write_shard(folder: Path, number: int, concepts, row_group_size=25) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    seeds = [number * 1000 + i for i in range(ROWS)]
    seeds[TWIN] = seeds[TWIN - 1]
    text = [f"picture {seed}" for seed in seeds]
    columns = {"image": [png(seed, 4) for seed in seeds], "text": text, "key": [f"{number}-{i}" for i in range(ROWS)]}
    columns |= {"source": ["web"] * ROWS, "classes": pa.array(concepts, pa.list_(pa.string()))}
    pq.write_table(pa.table(columns), folder / f"{number:05d}.parquet", row_group_size=row_group_size)


@pytest.fixture
def corpus(tmp_path):
    for number in range(SHARDS):
        write_shard(tmp_path / "in", number, classes(number))
    return tmp_path


def ledger(mix) -> list[dict]:
    return pa.concat_tables(pq.read_table(f) for f in sorted(Path(mix.url, "ledger").glob("*.parquet"))).to_pylist()


def balanced(mix) -> dict[tuple[str, int], bool]:
    """By file and row, whether the balance kept each row that it saw."""
    rows = [row for row in ledger(mix) if row["reason"] != "exact_duplicate"]
    return {(row["file"], row["row"]): row["stage"] != "select/balance" for row in rows}


def facts(folder: Path) -> dict:
    (done,) = (folder / "store" / "select" / "balance").glob("*/_done.json")
    return json.loads(done.read_text())


def adds_up(mix, rows_in: int) -> None:
    counts = mix.manifest["counts"]
    assert counts["rows_in"] == rows_in == counts["kept"] + counts["dropped"] + counts["quarantined"]
    assert list(manifests.discrepancies(mix.url)) == []


def test_what_is_expected_is_told_first_and_what_is_kept_is_near(corpus):
    log: list[str] = []
    mix = run(config(corpus, OVER), log)
    adds_up(mix, SHARDS * ROWS)
    alive = [row for n in range(SHARDS) for i, row in enumerate(classes(n)) if i != TWIN]
    names = sorted({c for row in alive for c in row or []})
    ids = [[names.index(c) for c in row or []] for row in alive]
    counts = entry_counts(ids, len(names))
    wanted = keep_probabilities(ids, entry_probabilities(counts, 20))
    told = facts(corpus)
    assert told["rows"] == told["forecast"]["rows"] == len(alive) == SHARDS * (ROWS - 1)
    assert told["forecast"]["expected"] == pytest.approx(wanted.sum())
    assert told["forecast"]["variance"] == pytest.approx((wanted * (1 - wanted)).sum())
    assert 0 < told["kept"] < (wanted > 0).sum()
    assert abs(told["kept"] - wanted.sum()) <= 5 * told["forecast"]["variance"] ** 0.5
    without = sum(not row for row in ids)
    assert told["reasons"] == {"no_concept": without, "balanced_out": len(alive) - without - told["kept"]}
    line = f"{(counts > 20).sum()} of {len(names)} concepts are thinned, {without} rows have no concept"
    assert told["told"].startswith("t = 20 (tail share 0.") and told["told"].endswith(line)
    kept = f"select/balance: kept {told['kept']} of {told['rows']} rows"
    assert log.index(f"select/balance: {told['told']}") < log.index(kept)
    scores = {(r["file"], r["row"]): r["score"] for r in ledger(mix) if r["stage"] == "select/balance"}
    places = [(f"{n:05d}.parquet", i) for n in range(SHARDS) for i in range(ROWS) if i != TWIN]
    assert all(scores[place] == pytest.approx(p) for place, p in zip(places, wanted) if place in scores)


@pytest.mark.parametrize("runner", [{"workers": 1, "shards_per_task": 1}, {"workers": 4, "shards_per_task": 3}])
def test_same_bytes_for_any_workers_and_any_shards_per_task(corpus, tmp_path_factory, runner):
    first, other = run(config(corpus, OVER)), tmp_path_factory.mktemp("other")
    shutil.copytree(corpus / "in", other / "in")
    second = run(config(other, OVER | {"runner": runner}))
    assert digests(Path(first.url), "data", "ledger") == digests(Path(second.url), "data", "ledger")
    assert sidecars(corpus / "store") == sidecars(other / "store")
    mine, theirs = facts(corpus), facts(other)
    assert mine == theirs


def test_other_row_groups_keep_the_same_rows(corpus, tmp_path_factory):
    """The files have other bytes then, and their shards other names."""
    other = tmp_path_factory.mktemp("other")
    for number in range(SHARDS):
        write_shard(other / "in", number, classes(number), row_group_size=7)
    first, second = run(config(corpus, OVER)), run(config(other, OVER))
    assert first.manifest["version"] != second.manifest["version"] and balanced(first) == balanced(second)


def test_a_new_shard_flips_no_coin_of_an_old_row(corpus):
    """Its concepts are new ones, so the old rows' probabilities stay; it comes first, so all places move."""
    before = balanced(run(config(corpus, OVER)))
    write_shard(corpus / "in", 99, classes(99, prefix="new"))
    shutil.move(corpus / "in" / "00099.parquet", corpus / "in" / "00000-0.parquet")
    mix = run(config(corpus, OVER))
    adds_up(mix, (SHARDS + 1) * ROWS)
    after = balanced(mix)
    assert len(after) > len(before) and {place: after[place] for place in before} == before


def test_a_tail_share_and_another_seed(corpus):
    first = balanced(run(config(corpus, OVER)))
    share = {"select": [{"kind": "exact_duplicates"}, {"kind": "balance", "tail_share": 0.4}]}
    log: list[str] = []
    run(config(corpus, OVER | share), log)
    assert any("select/balance: t = " in line and "(tail share 0." in line for line in log)
    other = balanced(run(config(corpus, OVER | {"seed": 5})))
    assert first.keys() == other.keys() and first != other


def test_a_crash_after_the_forecast_costs_neither_fit_nor_forecast(corpus, monkeypatch):
    wanted = Path(run(config(corpus, OVER)).url)
    parts = digests(wanted, "data", "ledger")
    shutil.rmtree(corpus / "store")
    shutil.rmtree(corpus / "out")
    with monkeypatch.context() as patch:
        patch.setattr(Balance, "decide", lambda *_: 1 / 0)
        with pytest.raises(RunFailed, match="select/balance failed"):
            run(config(corpus, OVER))
    log: list[str] = []
    with monkeypatch.context() as patch:
        for name in ("summarise", "fit", "forecast", "told"):
            patch.setattr(Balance, name, lambda *_: 1 / 0)
        mix = run(config(corpus, OVER), log)
    assert digests(Path(mix.url), "data", "ledger") == parts
    assert any(line.startswith("select/balance: t = 20 ") for line in log)


def test_a_crash_amid_the_forecasts_does_only_the_others(corpus, monkeypatch):
    forecast, seen = Balance.forecast, []

    def failing(self, rows, state):
        seen.append(rows.num_rows)
        return 1 / 0 if len(seen) == 3 else forecast(self, rows, state)

    one = {"runner": {"workers": 1, "shards_per_task": 1}}
    with monkeypatch.context() as patch:
        patch.setattr(Balance, "forecast", failing)
        with pytest.raises(RunFailed, match="select/balance failed: 1 failed, first 00002.parquet: ZeroDivisionError"):
            run(config(corpus, OVER | one))
        run(config(corpus, OVER | one))
    assert len(seen) == SHARDS + 1
    assert facts(corpus)["forecast"]["rows"] == SHARDS * (ROWS - 1)


@pytest.mark.parametrize(
    ("threshold", "kept"), [(1e9, "t is so high that every row"), (1e-9, "next to nothing is kept")]
)
def test_everything_or_nothing_kept_is_told_and_no_error(corpus, threshold, kept):
    log: list[str] = []
    mix = run(config(corpus, OVER | {"select": [{"kind": "balance", "threshold": threshold}]}), log)
    adds_up(mix, SHARDS * ROWS)
    assert any(line.startswith("select/balance: t = ") and kept in line for line in log)
    told = facts(corpus)
    assert told["kept"] == (told["forecast"]["with_concept"] if "high" in kept else 0)
