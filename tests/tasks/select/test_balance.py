"""Balancing as a select: counts over shards, coins that nothing else moves, what is told before anything is decided."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from configs.methods import select as methods
from storage import states
from storage.exchange import ROW
from tasks import load
from tasks.mix.balance import entry_counts, entry_probabilities, keep_probabilities
from tasks.select import METHODS, balance

STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)


def select(seed=3, **settings):
    settings = settings or {"threshold": 2}
    return load(METHODS, methods.Balance(**settings), seed=seed)


def table(concepts, first=0, uids=None):
    """Rows `first`, `first + 1`, ... of a file, each with a uid of its own."""
    n = len(concepts)
    uids = np.random.default_rng(first + 99).bytes(16 * n) if uids is None else b"".join(uids)
    packed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), n, [None, pa.py_buffer(uids)])
    lists = pa.array(concepts, pa.list_(pa.string()))
    return pa.table({ROW: np.arange(first, first + n), "concepts": lists, "uid": packed})


def zipf(count, words=60, seed=0):
    rng = np.random.default_rng(seed)
    names = np.array([f"concept {i}" for i in range(words)])
    return [names[np.minimum(rng.zipf(1.4, rng.integers(0, 5)) - 1, words - 1)].tolist() for _ in range(count)]


def fitted(method, shards):
    return method.fit([method.summarise(shard) for shard in shards], None)


def counts_of(state):
    return dict(zip(balance.unpacked(state).to_pylist(), state["counts"].tolist()))


EXAMPLE = [["dog", "dog on"], ["dog", "cat"], ["zebra"], [], ["dog", "dog"], ["cat", "dog"], None, ["cat"], [], ["cat"]]


def test_the_worked_example_over_two_shards():
    method, shards = select(), [table(EXAMPLE[:4]), table(EXAMPLE[4:])]
    state = fitted(method, shards)
    assert counts_of(state) == {"cat": 4, "dog": 4, "dog on": 1, "zebra": 1} and float(state["threshold"]) == 2
    told = [method.decide(shard, state) for shard in shards]
    score = np.concatenate([one.score for one in told])
    assert score.tolist() == [1, 0.75, 1, 0, 0.5, 0.75, 0, 0.5, 0, 0.5] and score.dtype == np.float32
    keep, reason = (np.concatenate([getattr(one, name) for one in told]) for name in ("keep", "reason"))
    assert keep[score == 1].all() and not keep[score == 0].any()
    assert [r for r, s in zip(reason, score) if s == 0] == ["no_concept"] * 3
    assert {r for r, k, s in zip(reason, keep, score) if s > 0 and not k} <= {"balanced_out"}
    assert set(reason[keep]) == {""} and all(np.all(one.keeper == -1) for one in told)
    assert fitted(select(tail_share=0.2), shards)["threshold"] == 1


@given(st.lists(st.lists(st.none() | st.lists(STRINGS, max_size=4), max_size=6), max_size=5))
def test_counts_are_rows_per_concept_over_any_shards_and_any_strings(shards):
    method, tables = select(), [table(rows) for rows in shards]
    state = states_round_trip(fitted(method, tables))
    wanted = Counter(c for rows in shards for row in rows for c in set(row or []))
    assert counts_of(state) == wanted
    concepts = balance.unpacked(state).to_pylist()
    assert concepts == sorted(concepts)  # by code point: the state does not depend on the order of shards
    for rows in tables:
        assert len(method.decide(rows, state).keep) == rows.num_rows


def states_round_trip(state):
    with np.load(io.BytesIO(states.dump(state)), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def test_concepts_of_any_characters_survive_the_store(tmp_path):
    odd = ["new\nline", "nul\0", "", "É", "é", "👩🏽‍🚀", "tab\t", "a", "a "]
    method, rows = select(), table([odd, odd[:3], [], odd[4:]])
    states.save(str(tmp_path / "state.npz"), fitted(method, [rows]))
    state = states.load(str(tmp_path / "state.npz"))
    assert counts_of(state) == {c: 1 + (c in odd[:3]) + (c in odd[4:]) for c in odd}
    assert method.decide(rows, state).keep.tolist() == [True, True, False, True]


def test_merging_early_changes_nothing(monkeypatch):
    shards = [table(zipf(50, seed=s)) for s in range(9)]
    whole = states.dump(fitted(select(), shards))
    monkeypatch.setattr(balance, "MERGE_ROWS", 1)
    assert states.dump(fitted(select(), shards)) == whole == states.dump(fitted(select(), shards[::-1]))


def test_a_summary_survives_parquet_and_chunks_and_dictionaries(tmp_path):
    rows = table(zipf(200))
    summary = select().summarise(rows)
    pq.write_table(summary, tmp_path / "s.parquet")
    assert pq.read_table(tmp_path / "s.parquet").equals(summary)
    pieces = pa.concat_tables([rows.slice(0, 70), rows.slice(70, 0), rows.slice(70)])
    words = pa.chunked_array([c.flatten().dictionary_encode() for c in rows["concepts"].chunks]).combine_chunks()
    coded = pa.ListArray.from_arrays(rows["concepts"].chunk(0).offsets, words)
    coded = rows.set_column(1, "concepts", coded)
    for other in (pieces, coded):
        assert select().summarise(other).sort_by("concept").equals(summary.sort_by("concept"))
        state = fitted(select(), [rows])
        assert np.array_equal(select().decide(other, state).keep, select().decide(rows, state).keep)


def test_probabilities_are_those_of_the_pure_functions():
    concepts = zipf(500)
    rows, method = table(concepts), select(threshold=12)
    names = sorted({c for row in concepts for c in row})
    ids = [[names.index(c) for c in row] for row in concepts]
    wanted = keep_probabilities(ids, entry_probabilities(entry_counts(ids, len(names)), 12))
    told = method.decide(rows, fitted(method, [rows]))
    assert np.allclose(told.score, wanted, atol=1e-7)
    sums = method.forecast(rows, fitted(method, [rows]))
    assert sums["rows"] == 500 and sums["with_concept"] == sum(map(bool, concepts))
    assert sums["expected"] == pytest.approx(wanted.sum())
    assert sums["variance"] == pytest.approx((wanted * (1 - wanted)).sum())
    assert abs(told.keep.sum() - sums["expected"]) <= 5 * sums["variance"] ** 0.5


# --------------------------------------------------------------------------------------------------------------- coins
def test_a_coin_depends_on_uid_row_and_seed_alone():
    concepts, method = zipf(400), select(threshold=12)
    rows = table(concepts)
    state = fitted(method, [rows])
    whole = method.decide(rows, state).keep
    parts = [method.decide(rows.slice(i, 130), state).keep for i in range(0, 400, 130)]
    assert np.array_equal(np.concatenate(parts), whole)
    order = np.random.default_rng(5).permutation(400)
    assert np.array_equal(method.decide(rows.take(order), state).keep, whole[order])
    chosen = np.flatnonzero(np.random.default_rng(6).random(400) < 0.5)  # a select before dropped the others
    assert np.array_equal(method.decide(rows.take(chosen), state).keep, whole[chosen])
    for other in (select(seed=4, threshold=12), select(threshold=12, draw=1)):
        assert not np.array_equal(other.decide(rows, state).keep, whole)
    moved = rows.set_column(0, ROW, pa.array(np.arange(1, 401)))
    assert not np.array_equal(method.decide(moved, state).keep, whole)
    strangers = rows.set_column(2, "uid", table(concepts, first=1)["uid"])
    assert not np.array_equal(method.decide(strangers, state).keep, whole)


def test_new_rows_flip_no_coin_while_probabilities_stay():
    old, new = table(zipf(400)), table([[f"new {i % 7}"] for i in range(300)], first=400)
    method = select(threshold=12)
    before, after = fitted(method, [old]), fitted(method, [old, new])
    assert np.array_equal(method.decide(old, before).keep, method.decide(old, after).keep)


def test_a_larger_threshold_keeps_all_that_a_smaller_one_keeps():
    rows = table(zipf(400))
    kept = [select(threshold=t).decide(rows, fitted(select(threshold=t), [rows])).keep for t in (1, 3, 10, 50, 1000)]
    for fewer, more in zip(kept, kept[1:]):
        assert np.all(fewer <= more) and fewer.sum() < more.sum()


def test_coins_are_uniform_and_unrelated():
    """Real uids, runs of equal uids (copies in one file), and seeds and draws side by side."""
    n, rng = 200_000, np.random.default_rng(2)
    row, keys = np.arange(n), [select(seed=s, threshold=1, draw=d)._keys for s, d in [(0, 0), (1, 0), (0, 1), (1, 1)]]
    uids = rng.integers(0, 1 << 63, (n, 2)).astype(np.uint64)
    same = np.zeros((n, 2), np.uint64)
    drawn = [balance.coins(uids, row, k) for k in keys]
    drawn += [balance.coins(uids, np.zeros(n, np.int64), keys[0]), balance.coins(same, row, keys[0])]
    drawn += [balance.coins(np.column_stack([row, row]).astype(np.uint64), row, keys[0])]
    for u in drawn:
        assert u.min() >= 0 and u.max() < 1
        bins = np.bincount((u * 256).astype(int), minlength=256)
        assert np.sum((bins - n / 256) ** 2) / (n / 256) < 255 + 5 * np.sqrt(2 * 255)
        assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 5 / np.sqrt(n)
    close = np.abs(np.corrcoef(drawn) - np.eye(len(drawn)))
    assert close.max() < 5 / np.sqrt(n)


def test_the_coins_of_a_seed_stay_what_they_are():
    """Against plain integers, and golden: another value means that an old configuration draws other rows."""

    def scramble(x):
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> shift)) * factor % 2**64
        return x ^ (x >> 31)

    keys = select(seed=7, threshold=1)._keys
    uids, rows = [(0, 0), (1, 2), (2**64 - 1, 2**63)], [0, 1, 2**40]
    k0, k1 = keys.tolist()
    wanted = [
        (scramble(scramble(scramble(high ^ k0) ^ low) ^ scramble(row ^ k1)) >> 11) / 2**53
        for (high, low), row in zip(uids, rows)
    ]
    assert balance.coins(np.array(uids, np.uint64), np.array(rows), keys).tolist() == wanted
    assert wanted == GOLDEN_COINS


GOLDEN_COINS = [0.8802733764466487, 0.35556786548275576, 0.4587176472969967]


def test_a_second_balance_with_another_draw_keeps_what_it_expects():
    rows = table([["a"]] * 20_000)
    first, same, other = select(threshold=10_000), select(threshold=5_000), select(threshold=5_000, draw=1)
    left = rows.filter(pa.array(first.decide(rows, fitted(first, [rows])).keep))
    state = fitted(other, [left])
    sums = other.forecast(left, state)
    off = (other.decide(left, state).keep.sum() - sums["expected"]) / sums["variance"] ** 0.5
    assert abs(off) < 5
    assert same.decide(left, state).keep.sum() > sums["expected"] + 5 * sums["variance"] ** 0.5  # hence `draw`


# -------------------------------------------------------------------------------------------------------- what is told
def told(method, rows):
    state = fitted(method, [rows])
    return method.told(state, method.forecast(rows, state))


def test_the_forecast_is_told_in_one_line():
    line = told(select(threshold=2), table(EXAMPLE))
    assert (
        line == "t = 2 (tail share 0.20): expects 5 ± 1 of 10 rows, 2 of 4 concepts are thinned, 3 rows have no concept"
    )
    rows = table([["a"], ["a"], ["a"], ["b"]])
    assert told(select(tail_share=0.3), rows) == (
        "t = 1 (tail share 0.25): expects 2 ± 1 of 4 rows, 1 of 2 concepts are thinned"
    )
    many = table([["a", "b"]] * 2_000)
    assert told(select(threshold=1_234.5), many).startswith(
        "t = 1,234.5 (tail share 0.00): expects 1,707 ± 16 of 2,000"
    )


@pytest.mark.parametrize(
    ("settings", "concepts", "said"),
    [
        (
            {"threshold": 100},
            [["a"], ["a"], []],
            "1 rows have no concept: t is so high that every row with a concept is",
        ),
        ({"threshold": 1e-6}, [["a"], ["b"]], "2 of 2 concepts are thinned: t is so low that next to nothing is kept"),
        (
            {"threshold": 5},
            [[], None],
            "of 2 rows, 0 of 0 concepts are thinned, 2 rows have no concept: nothing is kept",
        ),
        ({"tail_share": 0.5}, [[], None], "2 rows have no concept: nothing is kept"),
        ({"tail_share": 0.5}, [], "expects 0 ± 0 of 0 rows, 0 of 0 concepts are thinned: nothing is kept"),
    ],
)
def test_nothing_and_everything_are_told_and_no_error(settings, concepts, said):
    rows, method = table(concepts), select(**settings)
    assert said in told(method, rows)
    decided = method.decide(rows, fitted(method, [rows]))
    assert decided.keep.tolist() == [bool(row) and "high" in said for row in concepts]


def test_a_null_concept_is_an_error():
    method = select()
    with pytest.raises(ValueError, match="`concepts` holds a null concept; a row may be null, a concept may not"):
        method.summarise(table([["a", None]]))
    with pytest.raises(ValueError, match="`concepts` holds a null concept"):
        method.decide(table([["a", None]]), fitted(method, [table([["a"]])]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "none of `threshold`, `tail_share`, a `target_…` is given; give exactly one of them"),
        ({"threshold": 2, "tail_share": 0.5}, "`threshold` and `tail_share` are given; give exactly one"),
        ({"threshold": 0}, "greater than 0"),
        ({"threshold": float("inf")}, "finite"),
        ({"tail_share": 0}, "greater than 0"),
        ({"tail_share": 1}, "less than 1"),
        ({"threshold": 1, "draw": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        methods.Balance(**settings)
