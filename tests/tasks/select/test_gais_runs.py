"""GAIS-style (reconstructed) selection in whole runs: labels and features of the input's own, any split of the work."""

from __future__ import annotations

import corpora
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from configs.errors import ColumnError

QUICK = {"layers": 1, "hidden": 4, "heads": 2, "output_heads": 1, "epochs": 3}
LABELS = {"word": ["ash", "birch", "cedar"], "number": [7, 8, 9], "flag": [True, False, True]}
ROWS = 400  # a shard: three are two buckets of the least size
IID = {"kind": "iid", "batch_size": 1}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Three shards with labels of every type, one of them null here and there, and numbers for features."""
    folder = tmp_path_factory.mktemp("gais")
    (folder / "in").mkdir()
    for number in range(3):
        rng = np.random.default_rng(number)
        y = rng.integers(0, 3, ROWS)
        columns = {name: pa.array([values[i] for i in y]) for name, values in LABELS.items()}
        columns["word"] = pa.array([None if row == 5 else LABELS["word"][i] for row, i in enumerate(y)])
        columns |= {"size": pa.array(y + rng.random(ROWS)), "count": pa.array(rng.integers(0, 9, ROWS))}
        columns["many"] = pa.array([[1]] * ROWS)
        texts = [f"{number} {row}" for row in range(ROWS)]
        pq.write_table(pa.table({"text": texts, **columns}), folder / "in" / f"{number}.parquet")
    return folder


def settings(corpus, place, over=None, **select):
    one = {"kind": "gais", "features": ["size", "count"], "network": QUICK, "train_rows": 100, **select}
    whole = {"select": [one], "score": [], "embed": None, "annotate": None, "sample": IID, **(over or {})}
    places = {"store": f"{place}/store", "emit": {"out": f"{place}/out", "part_bytes": 20_000}}
    whole |= {"input": {"path": f"{corpus}/in", "image": None, "key": None, "source": None}}
    return corpora.config(corpus, whole | places)


@pytest.mark.parametrize(
    ("label", "classes"),
    [
        ("word", 3),
        pytest.param("number", 3, marks=pytest.mark.nightly),
        pytest.param("flag", 2, marks=pytest.mark.nightly),
    ],
)
def test_any_column_holds_the_classes(corpus, tmp_path, label, classes):
    mix = corpora.run(settings(corpus, tmp_path, labels=label, keep_ratio=0.1))
    every = pa.concat_tables([pq.read_table(corpus / "in" / f"{i}.parquet") for i in range(3)])
    counts = [c["counts"] for c in pc.value_counts(every[label]).to_pylist() if c["values"] is not None]
    assert len(counts) == classes and mix.manifest["counts"]["kept"] == sum(-(-c // 10) for c in counts)
    reasons = pq.read_table(f"{mix.url}/ledger")["reason"].to_pylist()
    assert reasons.count("no_label") == (3 if label == "word" else 0)
    assert reasons.count("less_important") == sum(c - -(-c // 10) for c in counts)


@pytest.mark.parametrize(
    ("select", "told"),
    [
        ({"labels": "species"}, "no column 'species', which `select/gais` names"),
        ({"features": ["size", "width"], "labels": "word"}, "no column 'width'"),
        ({"labels": "many"}, "`labels` names 'many', which is list"),
        ({"features": ["word"], "labels": "number"}, "`features` names 'word', which is string"),
    ],
)
def test_columns_that_are_missing_or_of_a_wrong_type_are_refused_before_work(corpus, tmp_path, select, told):
    with pytest.raises(ColumnError, match=told):
        corpora.run(settings(corpus, tmp_path, **select))
    assert not corpora.sidecars(tmp_path / "store") and not list((tmp_path / "out").rglob("*.parquet"))


@pytest.mark.parametrize(
    "graph",
    [
        {},
        pytest.param({"kind": "multi_level"}, marks=pytest.mark.nightly),
        pytest.param({"mode": "sample", "batch_rows": 50, "batches": 3}, marks=pytest.mark.nightly),
    ],
)
def test_same_bytes_for_any_workers_and_any_shards_per_task(corpus, tmp_path, graph):
    found = []
    for number, runner in enumerate(({"workers": 1}, {"workers": 3, "shards_per_task": 2})):
        place = tmp_path / str(number)
        one = {"labels": "number", "graph": graph, "keep_ratio": 0.2, "bucket_rows": 1000}
        corpora.run(settings(corpus, place, {"runner": runner}, **one))
        out = {n: d for n, d in corpora.digests(place, "out").items() if "/data/" in n or "/ledger/" in n}
        found.append((out, corpora.sidecars(place / "store")))
    assert found[0] == found[1] and all(found[0])
