"""GAIS-style (reconstructed) selection as a select: any shards, a checkpoint, quotas by class, rows it cannot judge."""

from __future__ import annotations

import corpora
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from configs.errors import ColumnError, ConfigError
from configs.methods.diversity import Gais, GaisGraph, GaisNetwork
from storage import states
from storage.exchange import ROW
from storage.states import Checkpoint
from tasks import load
from tasks.embed.vectors import pack
from tasks.select import METHODS, gais_buckets, gais_graphs, gais_sample, gais_select, gais_tuning
from tasks.select.gais_clusters import centroids, nearest
from tasks.select.gais_columns import features_of, labels_of
from tasks.select.gais_scores import shared_out

QUICK = {"layers": 1, "hidden": 4, "heads": 2, "output_heads": 1, "epochs": 3}


def method(seed=0, **settings):
    return load(METHODS, Gais(**{"network": QUICK, "train_rows": 100, **settings}), seed=seed)


def table(n=300, seed=0, d=6, labels=None):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = np.random.default_rng(9).standard_normal((3, d))[y] + 0.5 * rng.standard_normal((n, d))
    uids = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), n, [None, pa.py_buffer(rng.bytes(16 * n))])
    names = np.array(["a", "b", "c"])[y].tolist() if labels is None else labels
    return pa.table({ROW: np.arange(n), "image_embedding": pack(x, np.ones(n, bool)), "source": names, "uid": uids})


def parts(rows, cuts):
    return [rows.slice(a, b - a) for a, b in zip([0, *cuts], [*cuts, rows.num_rows])]


def fitted(one, shards, checkpoint=None):
    summaries = [one.summarise(shard.rename_columns(["row", *shard.column_names[1:]])) for shard in shards]
    return one.fit(summaries, checkpoint)


def same(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", ["mini_batch", "chunks", "single_level", "multi_level", "multi_view"])
def test_what_is_learned_and_where_rows_go_does_not_depend_on_shards(kind):
    rows, one = table(1500), method(graph={"kind": kind}, bucket_rows=1000)
    state = fitted(one, [rows])
    other = fitted(one, parts(rows, [10, 400, 1490]))
    assert states.dump(state) == states.dump(other)
    bucket = one.partition(rows, state)
    assert np.array_equal(bucket, np.concatenate([one.partition(p, state) for p in parts(rows, [10, 400, 1490])]))
    assert 0 <= bucket.min() and bucket.max() < int(state["buckets"]) and len(np.unique(bucket)) >= 2
    if "keys" in state:  # a hash bucket that is not too large stays whole
        x = gais_buckets.coarse_keys(unit(rows, state), state["center"], one._config.graph, 0)
        whole = [key for key, count in zip(state["keys"], state["parts"]) if count == 1]
        assert whole and all(len(np.unique(bucket[x == key])) == 1 for key in whole)


def unit(rows, state):
    from tasks.select.gais import scaled

    return scaled(features_of(rows, ("image_embedding",))[0], state["low"], state["high"])


def test_rows_are_ranked_within_their_class():
    rows, one = table(), method()
    state = fitted(one, [rows])
    told = one.decide(rows, state)
    assert told.keep.all() and set(told.reason) == {"less_important"} and np.all(told.keeper == -1)
    assert np.array_equal(told.rank, -told.score) and told.rank.dtype == np.float32 and told.group.dtype == np.int64
    names = np.array(one.group_names(np.arange(3), state))
    assert names[told.group].tolist() == rows["source"].to_pylist()
    again = method().decide(rows, fitted(method(), [rows]))
    assert np.array_equal(again.score, told.score) and np.all(np.isfinite(told.score))


def test_rows_without_label_or_features_have_reasons_of_their_own():
    rows = table(60)
    labels = rows["source"].to_pylist()
    labels[4] = labels[5] = None
    x = features_of(rows, ("image_embedding",))[0]
    x[6] = np.nan
    valid = np.arange(60) != 5
    rows = rows.set_column(1, "image_embedding", pack(x, valid)).set_column(2, "source", pa.array(labels))
    one = method()
    state = fitted(one, [rows])
    assert int(state["rows"]) == 57
    told = one.decide(rows, state)
    assert np.flatnonzero(~told.keep).tolist() == [4, 5, 6]
    assert told.reason[[4, 5, 6]].tolist() == ["no_label", "no_features", "no_features"]
    assert np.isnan(told.score[[4, 5, 6]]).all() and not np.isnan(told.rank).any()
    kept = method(unlabelled="keep").decide(rows, state)
    assert np.flatnonzero(~kept.keep).tolist() == [6] and set(kept.group[[4, 5]]) == {-1}
    assert kept.reason[4] == "" and kept.rank[4] == -np.inf
    assert method().quotas(np.array([-1, 0, 1]), np.array([2, 30, 25]), None).tolist() == [2, 2, 1]
    assert method().quotas(np.array([-1, 0, 1]), np.array([2, 30, 25]), 13).tolist() == [2, 6, 5]
    assert one.group_names(np.array([-1, 0]), state) == ["no label", "a"]


@pytest.mark.parametrize("kind", [pa.null(), pa.string()])
@pytest.mark.parametrize("size", [{}, {"percentile": 0.5}])
def test_rows_of_which_none_has_a_label_may_all_stay(kind, size):
    rows, one = table(20, labels=pa.nulls(20, kind)), method(unlabelled="keep", **size)
    state = fitted(one, [rows])
    told = one.decide(rows, state)
    assert told.keep.all() and set(told.group) == {-1} and not one.partition(rows, state).any()
    groups = np.unique(told.group)
    assert one.quotas(groups, np.array([20]), None).tolist() == [20]
    assert one.quotas(groups, np.array([20]), 7).tolist() == [7]
    assert one.group_names(groups, state) == ["no label"]


def test_an_empty_run_goes_through():
    rows, one = table(20).slice(0, 0), method()
    state = fitted(one, [rows, rows])
    told = one.decide(table(5, labels=[None] * 5), state)
    assert int(state["rows"]) == 0 and not told.keep.any() and set(told.reason) == {"no_label"}
    assert one.partition(rows, state).shape == (0,)


def test_labels_that_are_no_classes_are_refused():
    with pytest.raises(ConfigError, match="`labels: source` has 1 classes, 'web' in every row"):
        fitted(method(), [table(30, labels=["web"] * 30)])
    with pytest.raises(ConfigError, match="1,200 classes"):
        fitted(method(), [table(1200, labels=[str(i) for i in range(1200)])])
    with pytest.raises(ColumnError, match="`labels` names 'source', which is list"):
        fitted(method(), [table(30, labels=[["a"]] * 30)])
    with pytest.raises(ColumnError, match="`features` names 'source', which is string"):
        fitted(method(features=["source"]), [table(30)])


def test_any_plain_column_is_a_label():
    columns = {"i": pa.array([1, None, 2]), "f": pa.array([0.5, np.nan, None]), "b": pa.array([True, False, None])}
    columns["d"] = pa.array(["x", None, "x"]).dictionary_encode()
    rows = pa.table(columns)
    assert labels_of(rows, "i").to_pylist() == ["1", None, "2"]
    assert labels_of(rows, "f").to_pylist() == ["0.5", None, None]
    assert labels_of(rows, "b").to_pylist() == ["true", "false", None]
    assert labels_of(rows, "d").to_pylist() == ["x", None, "x"]


def test_features_may_be_numeric_columns():
    rows = (
        table(80)
        .append_column("size", pa.array([None, *range(79)]))
        .append_column("w", pa.array(np.linspace(0, 1, 80)))
    )
    one = method(features=["size", "w"])
    assert one.needs == ("size", "w", "source", "uid") and one.input_columns == ("size", "w")
    told = one.decide(rows, fitted(one, [rows]))
    assert told.reason[0] == "no_features" and told.keep[1:].all()


def test_clusters_stand_in_for_labels():
    rows, one = table(400), method(labels="cluster", clusters=3)
    state = fitted(one, [rows])
    told = one.decide(rows, state)
    codes = np.unique(np.array(rows["source"].to_pylist()), return_inverse=True)[1]
    assert len(state["centroids"]) == 3 and one.needs == ("image_embedding", "uid")
    assert max(np.mean(told.group[codes == 0] == g) for g in range(3)) > 0.8
    assert one.group_names(np.array([2]), state) == ["cluster 2"]
    equal = rows.set_column(1, "image_embedding", pack(np.ones((400, 6)), np.ones(400, bool)))
    assert one.decide(equal, fitted(one, [equal])).keep.all()  # one cluster: nothing is learned, nothing breaks
    assert nearest(np.eye(3, dtype=np.float32), centroids(np.eye(3, dtype=np.float32), 5, 0)).max() == 2


def test_training_goes_on_where_it_broke_off(tmp_path, monkeypatch):
    monkeypatch.setattr(gais_select, "SAVE_SECONDS", 0)
    rows = table()
    checkpoint = Checkpoint(str(tmp_path / "checkpoint.npz"))

    class Broken(Exception):
        pass

    class Breaking(Checkpoint):
        def save(self, state):
            super().save(state)
            if state.get("epoch", 0) == 2:
                raise Broken

    wanted = fitted(method(), [rows])
    with pytest.raises(Broken):
        fitted(method(), [rows], Breaking(checkpoint.url))
    assert int(checkpoint.load()["epoch"]) == 2
    assert same(wanted, fitted(method(), [rows], checkpoint)) and int(checkpoint.load()["epoch"]) == 3


def test_rows_that_no_batch_has_drawn_go_and_count_in_no_quota():
    rows, one = table(), method(graph={"mode": "sample", "batch_rows": 20, "batches": 2})
    told = one.decide(rows, fitted(one, [rows]))
    unseen = np.isnan(told.score)
    assert 260 <= unseen.sum() <= 280 and np.array_equal(told.keep, ~unseen)
    assert set(told.reason[unseen]) == {"in_no_batch"} <= Gais.reasons.keys()
    assert set(told.reason[~unseen]) == {"less_important"} and np.all(told.rank[unseen] == np.inf)


def test_sampled_batches_cost_the_same_however_many_rows_there_are(monkeypatch):
    asked, whole = [], gais_graphs.similarity

    def counted(x, metric):
        asked.append(len(x) ** 2)
        return whole(x, metric)

    monkeypatch.setattr(gais_graphs, "similarity", counted)
    scored = []
    for n in (2500, 9000):  # three buckets, and nine: more than there are batches
        rows = table(n)
        one = method(graph={"mode": "sample", "batch_rows": 50, "batches": 5}, bucket_rows=1000)
        state = fitted(one, [rows])
        bucket = one.partition(rows, state)
        asked.clear()
        told = [one.decide(rows.filter(pa.array(bucket == b)), state) for b in range(int(state["buckets"]))]
        assert asked == [50**2] * 5
        scored.append(sum(int(np.isfinite(part.score).sum()) for part in told))
        assert all(np.all(part.rank[np.isnan(part.score)] == np.inf) for part in told)
    assert 240 <= scored[0] <= 250 >= scored[1] >= 240


def test_a_hash_bucket_that_is_too_large_is_divided(monkeypatch):
    x = np.zeros((5000, 4), np.float32)
    graph = GaisGraph(kind="multi_level")
    state = gais_buckets.plan(x[:100], x[0], graph, 0, (5000, 1000))
    coins = np.random.default_rng(0).random(5000)
    bucket = gais_buckets.bucket_of(state, coins, gais_buckets.coarse_keys(x, x[0], graph, 0))
    assert int(state["buckets"]) == 5 and np.bincount(bucket).max() < 1150
    unseen = gais_buckets.bucket_of(state, coins, np.full(5000, 77, np.uint64))
    assert len(set(unseen.tolist())) == 1 and unseen[0] < 5


def test_the_sample_is_bounded_and_knows_every_class(monkeypatch):
    monkeypatch.setattr(gais_sample, "SHARD_ROWS", 50)
    rng = np.random.default_rng(0)
    labels = pa.chunked_array([pa.array(["rare"] * 3 + ["often"] * 1997, pa.large_string())])
    x, coins = rng.standard_normal((2000, 2)).astype(np.float32), rng.random(2000)
    known = gais_sample.gathered([gais_sample.summary(x, labels, coins, 80)] * 2, 80)
    assert known.labels.to_pylist().count("rare") == 6 and len(known.x) <= 80 + 16 + 6
    assert known.rows == 4000 and known.counts.tolist() == [3994, 6]
    assert np.allclose(known.mean, x.mean(axis=0), atol=1e-6) and np.allclose(known.low, x.min(axis=0))
    order = gais_sample.lowest(coins, np.zeros(2000, int), 30)
    assert np.array_equal(order, np.argsort(coins)[:30])


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12).map(np.array), st.integers(0, 400))
def test_a_target_is_shared_out_exactly_and_more_rows_never_cost_a_class(counts, wanted):
    sizes = shared_out(counts, wanted)
    assert sizes.sum() == min(wanted, counts.sum()) and np.all(sizes <= counts)
    assert np.all(shared_out(counts, wanted + 1) >= sizes)
    if wanted >= len(counts):
        assert np.all(sizes >= 1)
    assert np.all(np.abs(sizes - wanted * counts / counts.sum()) <= len(counts)) or wanted > counts.sum()


@pytest.mark.nightly
def test_tuning_finds_settings_and_is_repeatable():
    pytest.importorskip("optuna")
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = (np.eye(3)[y] + 0.1 * rng.random((60, 3))).astype(np.float32)
    for kind in ("mini_batch", "multi_level"):
        config = Gais(tune_trials=2, graph=GaisGraph(kind=kind), network=GaisNetwork(**QUICK), keep_ratio=0.2)
        first, again = (gais_tuning.tuned(x, y, config, seed=1) for _ in range(2))
        assert first == again and first[0].kind == kind and first[1].epochs == 3


def test_whatever_makes_the_numbers_is_told():
    facts = method().depends_on()
    assert facts["keep_ratio"] == 0.04 and "faiss" not in facts and "optuna" not in facts
    assert method(graph={"kind": "multi_level"}).depends_on()["bits"] == (16, 12, 8)
    assert len(method(labels="cluster").depends_on()["faiss"]) == 1
    assert "optuna" in method(tune_trials=1).depends_on()


def test_without_optuna_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(gais_tuning.importlib.util, "find_spec", lambda name: None)
    method().check()
    with pytest.raises(ConfigError, match=r"pip install 'mixwright\[tune\]'"):
        method(tune_trials=1).check()
    with pytest.raises(ConfigError, match=r"pip install 'mixwright\[tune\]'"):
        gais_tuning.tuned(np.zeros((4, 1)), np.zeros(4, int), Gais(tune_trials=1), seed=0)


@pytest.mark.parametrize(
    "bad",
    [
        {"keep_ratio": 0.1, "percentile": 0.5},
        {"target_rows": 5, "keep_ratio": 0.1},
        {"features": []},
        {"features": ["a", "a"]},
    ],
)
def test_settings_at_odds_are_refused(bad):
    with pytest.raises(ValidationError):
        Gais(**bad)


@pytest.mark.parametrize(
    ("graph", "size"),
    [
        ("multi_level", {"target_rows": 50}),
        pytest.param("mini_batch", {"keep_ratio": 0.2}, marks=pytest.mark.nightly),
        pytest.param("mini_batch", {"target_bytes": 4000}, marks=pytest.mark.nightly),
    ],
)
def test_a_run_keeps_its_share_of_every_source(tmp_path, graph, size):
    corpora.write_corpus(tmp_path / "in", shards=3, count=60)
    one = {"kind": "gais", "network": QUICK, "graph": {"kind": graph}, **size}
    settings = corpora.config(tmp_path, {"select": [one], "annotate": None, "sample": {"kind": "iid", "batch_size": 4}})
    mix = corpora.run(settings)
    ledger = pq.read_table(f"{mix.url}/ledger")
    assert ledger.num_rows == 180
    dropped = ledger.filter(pc.equal(ledger["stage"], "select/gais"))
    assert set(dropped["reason"].to_pylist()) == {"less_important"} and dropped["score"].null_count == 0
    alive = np.sum([r not in ("image_null", "text_blank") for r in ledger["reason"].to_pylist()])
    kept = int(alive) - dropped.num_rows
    if "target_rows" in size:
        assert kept == 50
    elif "keep_ratio" in size:
        assert alive * 0.2 <= kept < alive * 0.2 + 3
    else:
        assert 0 < kept < alive
