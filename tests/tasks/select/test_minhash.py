"""Near-duplicate texts: bands against the formula, groups against the rule row by row, and that nothing is quadratic."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import config as corpus_config
from corpora import run as run_corpus
from corpora import write_corpus
from pydantic import ValidationError

from configs.methods.duplicates import MinHash
from configs.methods.score import MinHashSignature
from storage.exchange import ROW, SHARD
from tasks.score import minhash as sketches
from tasks.select import GROUP, banding, linking, minhash


def method(**changes):
    return minhash.MinHash(MinHash(**{"keep_by": None} | changes), seed=0)


def rows_of(texts, group=None, **columns):
    """Rows as `decide` gets them: all in one component unless said otherwise."""
    section = MinHashSignature()
    made = sketches.MinHashSignature(section).run(pa.table({"text": pa.chunked_array([texts], pa.string())})).table
    return placed(made, group, **columns)


def placed(rows, group=None, **columns):
    count = rows.num_rows
    columns |= {SHARD: np.zeros(count, np.int32), ROW: np.arange(count)}
    columns[GROUP] = np.zeros(count, np.int64) if group is None else np.asarray(group, np.int64)
    for name, values in columns.items():
        rows = rows.append_column(name, pa.array(values))
    return rows


def signed_rows(signatures, **columns):
    """Rows with given signatures."""
    section = MinHashSignature()
    packed = sketches.pack(np.ascontiguousarray(signatures, "<u2"), np.ones(len(signatures), bool))
    nothing = pa.nulls(len(signatures), pa.binary())
    return placed(pa.table([packed, nothing], names=[section.column, section.planted_column]), **columns)


def families(count, size, seed, replaced=0.12):
    """Signatures of `count` families of `size` rows that differ from their first in about a share of the slots."""
    rng = np.random.default_rng(seed)
    first = np.repeat(rng.integers(0, 1 << 16, (count, 1, 128)), size, 1)
    other = rng.integers(0, 1 << 16, first.shape)
    return np.where(rng.random(first.shape) < replaced, other, first).reshape(-1, 128).astype(np.uint16)


WORDS = np.array([f"word{i}" for i in range(3000)])


def sentence(rng, length=60):
    return " ".join(WORDS[rng.integers(0, len(WORDS), length)])


@pytest.mark.parametrize("wanted", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_have_the_most_slots_that_reach_the_recall(threshold, wanted):
    bands, slots = minhash.bands_of(MinHash(threshold=threshold, recall=wanted))
    assert minhash.recall(threshold, bands, slots) >= wanted and bands * slots <= 128
    fewer = [128 // r for r in range(slots + 1, 129)]
    assert all(minhash.recall(threshold, b, 128 // b) < wanted or 128 // b <= slots for b in fewer)
    assert minhash.bands_of(MinHash(bands=14, band_rows=8)) == (14, 8)


@pytest.mark.parametrize("size", [20, 100, 600])
def test_candidates_are_as_many_as_the_formula_says(size):
    rng = np.random.default_rng(size)
    for similarity in (0.6, 0.7, 0.8):
        both = round(size * similarity)
        union = rng.integers(0, 1 << 64, (2500, size), np.uint64)
        sets = [
            union[:, : both + (size - both) // 2],
            np.hstack([union[:, :both], union[:, both + (size - both) // 2 :]]),
        ]
        one, other = (
            banding.band_keys(sketches.sign(s.ravel(), np.arange(2501) * s.shape[1], 112, 0), 14, 8) for s in sets
        )
        found = (one == other).any(axis=1).mean()
        assert abs(found - minhash.recall(similarity, 14, 8)) < 0.02 + 2 * np.sqrt(0.25 / 2500)


def by_the_rule(signatures, group, threshold, select):
    """Row by row: a free row is a keeper and takes every later free candidate that agrees enough."""
    keys = select.keys(signed_rows(signatures), {})
    keeper = np.full(len(signatures), -1)
    for i in range(len(signatures)):
        if keeper[i] < 0:
            later = np.arange(len(signatures)) > i
            met = (keys == keys[i]).any(axis=1) & (group == group[i])
            alike = (signatures == signatures[i]).mean(axis=1) >= threshold
            keeper[later & met & alike & (keeper < 0)] = i
    return keeper


@pytest.mark.parametrize("seed", range(4))
def test_groups_are_those_of_the_rule(seed):
    signatures = families(30, 12, seed)
    signatures[7:180:40] = signatures[3]  # copies
    group = np.arange(len(signatures)) // 180
    select = method()
    told = select.decide(signed_rows(signatures, group=group), {})
    wanted = by_the_rule(signatures, group, 0.8, select)
    assert np.array_equal(told.keeper, wanted) and np.array_equal(told.keep, wanted < 0) and 30 < told.keep.sum() < 300
    assert told.reason.tolist() == ["" if keeper < 0 else "near_duplicate_text" for keeper in wanted]
    dropped = np.flatnonzero(wanted >= 0)
    share = (signatures[dropped] == signatures[wanted[dropped]]).mean(axis=1)
    assert np.allclose(told.score[dropped], share)
    kept = told.score[told.keep]
    assert np.all(kept[~np.isnan(kept)] < 0.8) and told.counts == {"capped_bands": 0}


def test_the_keeper_is_the_longest_text_or_whatever_is_asked_for():
    rng = np.random.default_rng(0)
    text = sentence(rng)
    texts = [text, text + " and some", sentence(rng), text, text]
    rows = rows_of(texts, text_chars=[len(t) for t in texts], quality=[0.1, 0.2, 0.9, None, 0.8])
    assert method(keep_by="longest_text").decide(rows, {}).keeper.tolist() == [1, -1, -1, 1, 1]
    assert method(keep_by="first").decide(rows, {}).keeper.tolist() == [-1, 0, -1, 0, 0]
    told = method(keep_by="quality").decide(rows, {})
    assert told.keeper.tolist() == [4, 4, -1, 4, -1] and told.score[[0, 3]].tolist() == [1, 1]
    assert "text_chars" in method(keep_by="longest_text").needs


def test_rows_without_text_meet_nobody_and_blank_ones_their_equals():
    rng = np.random.default_rng(1)
    texts = [None, "", None, "", "...", sentence(rng), "!", None, "😀", "😀"]
    rows, select = rows_of(texts), method()
    keys = select.keys(rows, {})
    assert all(len(np.unique(keys[[0, 2, 7], band])) == 3 for band in range(keys.shape[1]))
    assert np.array_equal(keys, np.concatenate([select.keys(rows.slice(at, 4), {}) for at in (0, 4, 8)]))
    told = select.decide(rows, {})
    assert told.keeper.tolist() == [-1, -1, -1, 1, -1, -1, -1, -1, -1, 8]


def test_rows_of_two_components_are_not_compared_and_none_is_fine():
    text = sentence(np.random.default_rng(2))
    told = method().decide(rows_of([text, text, text + " more"], group=[-1, -2, -3]), {})
    # Equal signatures share every band, so linking never parts them; rows that only resemble each other it may.
    assert told.keeper.tolist() == [-1, 0, -1]
    empty = rows_of([])
    assert len(method().keys(empty, {})) == 0 and len(method().decide(empty, {}).keep) == 0


def test_equal_rows_are_linear_and_their_keeper_is_the_first():
    told = method().decide(signed_rows(np.tile(families(1, 1, 0), (300_000, 1))), {})
    assert told.keep.sum() == 1 and np.all(told.keeper[1:] == 0) and np.all(told.score[1:] == 1)


def test_a_band_that_many_share_is_compared_through_leaders_and_counted():
    signatures = np.random.default_rng(0).integers(0, 1 << 16, (20_000, 128)).astype(np.uint16)
    signatures[:, :7] = signatures[0, :7]  # one band in common, nothing else
    told = method().decide(signed_rows(signatures), {})
    assert told.keep.all() and told.counts == {"capped_bands": 1}
    assert "1 bands" in method().warnings(told.counts)[0] and method().warnings({"capped_bands": 0}) == []
    alike = families(1, 5000, 1, replaced=0.05)
    told = method().decide(signed_rows(alike), {})
    share = (alike[~told.keep] == alike[told.keeper[~told.keep]]).mean(axis=1)
    assert told.keep.sum() < 10 and np.all(share >= 0.8)


def test_without_verifying_every_candidate_is_alike():
    signatures = np.random.default_rng(0).integers(0, 1 << 16, (3, 128)).astype(np.uint16)
    signatures[2, :7] = signatures[1, :7]
    assert method(verify=False).decide(signed_rows(signatures), {}).keeper.tolist() == [-1, -1, 1]
    assert method().decide(signed_rows(signatures), {}).keep.all()


def test_components_follow_chains():
    a = families(1, 1, 0)[0]
    b, c = a.copy(), a.copy()
    b[:15], c[:30] = 1, 1
    c[15:30] = 2
    rows = signed_rows(np.stack([a, b, c]))  # a ~ b ~ c, a and c agree in 98 of 128
    assert method().decide(rows, {}).keeper.tolist() == [-1, 0, -1]
    assert method(groups="components").decide(rows, {}).keeper.tolist() == [-1, 0, 0]


def test_with_a_target_rows_are_ranked_by_how_alike_they_are_to_a_better_one():
    signatures = families(40, 8, 5)
    signatures[9::50] = signatures[4]
    rows = signed_rows(signatures)
    select = method(target_fraction=0.5, threshold=0.7)
    told = select.decide(rows, {})
    assert select.ranked and told.keep.all() and not np.isnan(told.rank).any()
    against = told.rank[:, 0]
    assert np.array_equal(against == -np.inf, told.reason == "") and np.array_equal(told.keeper < 0, told.reason == "")
    # By components, cut anywhere, what stays is what that threshold keeps, among the same candidates.
    against = method(target_fraction=0.5, threshold=0.7, groups="components").decide(rows, {}).rank[:, 0]
    bands = dict(zip(("bands", "band_rows"), minhash.bands_of(MinHash(threshold=0.7)), strict=True))
    for threshold in (0.72, 0.8, 0.9, 1.0):
        same = method(threshold=threshold, groups="components", **bands).decide(rows, {})
        assert np.array_equal(against < np.float32(threshold), same.keep)


def test_the_run_tells_its_parameters_and_measures_its_recall():
    rng = np.random.default_rng(0)
    rows, select = rows_of([sentence(rng, rng.integers(30, 200)) for _ in range(3000)]), method()
    parts = [select.forecast(rows.slice(at, 1000), {}) for at in (0, 1000, 2000)]
    sums = {name: sum(part[name] for part in parts) for name in parts[0]}
    assert (
        sums == pytest.approx(select.forecast(rows, {}))
        and sums["pairs"] > 20
        and sums["above"] >= sums["confirmed"] > 0
    )
    assert abs(sums["found"] - sums["expected"]) < 0.1 * sums["pairs"]
    line = select.told({}, sums)
    assert (
        "5-grams of words, 128 hashes in 18 bands of 7, seed 0" in line and "probability 0.986 by the formula" in line
    )
    assert f"of {int(sums['pairs'])} pairs planted" in line and "also confirmed" in line
    short = rows_of(["too short", None])
    assert "too few texts are long enough" in select.told({}, select.forecast(short, {}))


def test_settings_that_cannot_be():
    with pytest.raises(ValidationError, match="give both or neither"):
        MinHash(bands=3)
    with pytest.raises(ValidationError, match="`sketch.num_perm` is 64"):
        MinHash(bands=10, band_rows=7, sketch={"num_perm": 64})


def ledger_rows(mix):
    return pa.concat_tables(
        pq.read_table(file) for file in sorted(Path(mix.url, "ledger").glob("*.parquet"))
    ).to_pylist()


def grams(text):
    text = text.lower()
    return {text[at : at + 3] for at in range(max(1, len(text) - 2))}


def test_in_a_run_dropped_rows_name_a_keeper_with_nearly_their_text_and_the_log_tells_of_recall(tmp_path):
    write_corpus(tmp_path / "in", shards=3)
    log: list[str] = []
    over = {"select": [{"kind": "minhash", "sketch": {"tokens": "characters", "ngram": 3}, "keep_by": "longest_text"}]}
    mix = run_corpus(corpus_config(tmp_path, over), log)
    assert [line for line in log if "3-grams of characters" in line and "by the formula" in line]
    texts = {file.name: pq.read_table(file)["text"].to_pylist() for file in (tmp_path / "in").iterdir()}
    dropped = [row for row in ledger_rows(mix) if row["reason"] == "near_duplicate_text"]
    assert len(dropped) >= 3
    for row in dropped:
        own, keeper = texts[row["file"]][row["row"]], texts[row["keeper_file"]][row["keeper_row"]]
        both = len(grams(own) & grams(keeper)) / len(grams(own) | grams(keeper))
        assert len(keeper) >= len(own) and both > 0.6 and abs(both - row["score"]) < 0.2
    assert len({row["keeper_file"] == row["file"] for row in dropped}) == 2  # in its own shard and in another


@pytest.mark.parametrize("shards", [2, 5])
def test_in_a_run_a_target_is_met_exactly(tmp_path, shards):
    write_corpus(tmp_path / "in", shards=shards, count=40)
    over = {"select": [{"kind": "minhash", "threshold": 0.5, "target_rows": 37}]}
    mix = run_corpus(corpus_config(tmp_path, over))
    outcomes = [row for row in ledger_rows(mix) if row["outcome"] != "quarantined"]
    assert sum(row["stage"] != "select/minhash" for row in outcomes) == 37


@pytest.mark.parametrize("most", [1000, 25])
def test_in_a_run_copies_beyond_what_is_decided_at_once_are_told_of(tmp_path, monkeypatch, most):
    monkeypatch.setattr(linking, "COMPONENT_ROWS", most)
    monkeypatch.setattr(linking, "PARTITION_ROWS", 10)  # parts of a component go to buckets of their own
    write_corpus(tmp_path / "in", shards=2, count=40)
    for file in (tmp_path / "in").iterdir():
        columns = pq.read_table(file).to_pydict()
        columns["text"][9:] = ["the same words on every page"] * 31
        pq.write_table(pa.table(columns), file)
    log: list[str] = []
    mix = run_corpus(corpus_config(tmp_path, {"select": [{"kind": "minhash"}]}), log)
    copies = [row for row in ledger_rows(mix) if row["row"] >= 9]
    stay = [(row["file"], row["row"]) for row in copies if row["reason"] != "near_duplicate_text"]
    warned = [line for line in log if "groups of candidates have more than 25 rows each" in line]
    # 62 copies: one part, or three of 20 and 21 in the order of their places.
    assert stay == (
        [("00000.parquet", 9)] if most == 1000 else [(f"{i // 31:05d}.parquet", 9 + i % 31) for i in (0, 21, 42)]
    )
    assert len(warned) == (most == 25)
    assert {(row["keeper_file"], row["keeper_row"]) for row in copies if row["keeper_file"]} <= set(stay)
