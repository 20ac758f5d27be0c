"""Near duplicates against brute force: every rule, both embeddings, targets; cells, bad vectors, and many equal rows."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from configs.methods.duplicates import NearDuplicates
from flows.planning import facts_of
from tasks.embed.device import planned_for
from tasks.embed.vectors import pack
from tasks.select import METHODS, alike, cells, linkage, near_duplicates
from tasks.select.alike import Cell


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def packed(vectors):
    return pack(np.asarray(vectors), np.ones(len(vectors), bool))


def chunked(vectors, rows=37):
    """A column in chunks, as a bucket has them."""
    return pa.chunked_array([packed(vectors[at : at + rows]) for at in range(0, len(vectors), rows)])


def method(**changes):
    return near_duplicates.NearDuplicates(NearDuplicates(**{"keep_by": None} | changes), seed=3)


def blobs(seed, n=300, dim=8, spread=0.15):
    """Clusters of rows that are alike, some rows equal byte for byte: float16 `(n, dim)`."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((12, dim))
    vectors = unit(centres[rng.integers(0, 12, n)] + rng.normal(0, spread, (n, dim))).astype(np.float16)
    vectors[n // 6 : n // 5] = vectors[n // 30]
    return vectors


def cosines(vectors):
    exact = unit(vectors.astype(np.float64))
    return exact @ exact.T


def greedy(similarity, tau):
    """The rule, row by row: a free row is a keeper and takes every later free row within tau."""
    keeper = np.full(len(similarity), -1)
    for i in range(len(similarity)):
        if keeper[i] < 0:
            near = similarity[i, i:] >= tau - 1e-6
            near[0] = True
            keeper[i:][near & (keeper[i:] < 0)] = i
    return keeper


def components(similarity, tau):
    """Best row of each connected component, by search."""
    keeper = np.full(len(similarity), -1)
    for i in range(len(similarity)):
        waiting = [i] if keeper[i] < 0 else []
        while waiting:
            row = waiting.pop()
            if keeper[row] < 0:
                keeper[row] = i
                waiting += np.flatnonzero((similarity[row] >= tau - 1e-6) & (keeper < 0)).tolist()
    return keeper


def semdedup(similarity, tau):
    """Whether each row stays: no row before it, dropped or not, is within tau."""
    return ~(np.triu(similarity, 1) >= tau - 1e-6).any(axis=0)


# ------------------------------------------------------------------------------------------------------- what is alike
@pytest.mark.parametrize("floor", [0.9, 0.95, 0.97])
def test_short_vectors_lose_no_pair(floor):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((2500, 96)) * np.arange(1, 97) ** -0.7
    vectors[2400:] = vectors[:100] + rng.normal(0, 0.02, (100, 96))
    cell = Cell([unit(vectors).astype(np.float16)], floor=floor)
    whole = cosines(cell.parts[0])
    assert cell._short is not None and cell._short.shape[1] < 60, "full products would prove nothing"
    found = {(i, j) for a, b in cell.pairs() for i, j in zip(*cell.edges(a, b)[:2], strict=True)}
    sure = set(zip(*np.nonzero(np.triu(whole >= floor + 1e-6, 1)), strict=True))
    assert len(sure) > 30 and sure <= found
    assert found <= set(zip(*np.nonzero(np.triu(whole >= floor - 1e-6, 1)), strict=True))


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.99))
@settings(max_examples=25, deadline=None)
def test_short_vectors_bound_every_product(seed, share):
    rng = np.random.default_rng(seed)
    vectors = unit(rng.standard_normal((40, 1)) * share + rng.standard_normal((40, 20)) * rng.random(20))
    short = alike._with_rest(vectors @ alike.leading(vectors, 5))
    assert np.all(short @ short.T >= vectors @ vectors.T - 1e-9)


def test_both_is_the_smaller_cosine_with_the_text_s_shifted():
    rng = np.random.default_rng(1)
    image, text = unit(rng.standard_normal((60, 5))), unit(rng.standard_normal((60, 3)))
    cell = Cell([image, text], shifts=(0.0, -0.1))
    found = cell.similarities(np.arange(60), np.arange(60))
    assert np.allclose(found, np.minimum(cosines(image), cosines(text) + 0.1), atol=1e-6)
    i, j = np.arange(30), np.arange(30, 60)
    assert np.allclose(cell.each(i, j), found[i, j], atol=1e-6)


@pytest.mark.parametrize("dim", [4, 96])
def test_pairs_of_both_are_found_by_short_vectors_too(dim):
    rng = np.random.default_rng(2)
    image, text = (rng.standard_normal((2200, dim)) for _ in range(2))
    image[2000:], text[2100:] = image[:200] + 0.01, text[100:200] + 0.01  # 100 pairs alike in the image alone
    cell = Cell([unit(image), unit(text)], shifts=(0.0, 0.0), floor=0.99)
    assert (cell._short is None) == (dim == 4)
    found = {(i, j) for a, b in cell.pairs() for i, j in zip(*cell.edges(a, b)[:2], strict=True)}
    whole = np.triu(np.minimum(cosines(image), cosines(text)), 1)
    assert found == set(zip(*np.nonzero(whole >= 0.99), strict=True)) and len(found) >= 100


# ------------------------------------------------------------------------------------------------- groups by threshold
def told(vectors, state=None, **changes):
    return method(**changes).decide(pa.table({"image_embedding": chunked(vectors)}), state or {})


@pytest.mark.parametrize("seed", range(6))
def test_greedy_groups_are_those_of_the_rule(seed):
    vectors = blobs(seed)
    decided, similarity = told(vectors, threshold=0.95), cosines(vectors)
    keeper = greedy(similarity, 0.95)
    dropped = keeper != np.arange(300)
    assert 100 < dropped.sum() < 290
    assert np.array_equal(decided.keep, ~dropped) and np.array_equal(decided.keeper, np.where(dropped, keeper, -1))
    assert np.allclose(decided.score[dropped], similarity[dropped, keeper[dropped]], atol=1e-5)
    assert set(decided.reason[dropped]) == {"near_duplicate"} and set(decided.reason[~dropped]) == {""}


@pytest.mark.parametrize("seed", range(6))
def test_components_and_semdedup_are_those_of_their_rules(seed):
    vectors = blobs(seed, spread=0.3)
    similarity = cosines(vectors)
    one, keeper = told(vectors, groups="components", threshold=0.93), components(similarity, 0.93)
    dropped = keeper != np.arange(300)
    assert np.array_equal(one.keep, ~dropped) and np.array_equal(one.keeper, np.where(dropped, keeper, -1))
    assert not np.array_equal(keeper, greedy(similarity, 0.93)), "the seeds must tell the rules apart"
    two = told(vectors, groups="semdedup", threshold=0.93)
    assert np.array_equal(two.keep, semdedup(similarity, 0.93))
    assert np.all(two.keep[two.keeper[~two.keep]]), "whoever stands for a dropped row stays"


@pytest.mark.parametrize("groups", ["greedy", "components", "semdedup"])
def test_blocks_do_not_matter(groups, monkeypatch):
    vectors = unit(np.random.default_rng(0).standard_normal((500, 4))).astype(np.float16)
    whole = told(vectors, groups=groups, threshold=0.99)
    monkeypatch.setattr(alike, "BLOCK", 7)
    monkeypatch.setattr(linkage, "BLOCK", 7)
    monkeypatch.setattr(linkage, "MOST_EDGES", 40)
    again = told(vectors, groups=groups, threshold=0.99)
    assert 50 < whole.keep.sum() < 480
    assert np.array_equal(whole.keep, again.keep) and np.array_equal(whole.keeper, again.keeper)


def dense(n=4096, dim=64):
    """One tight cluster, with a second one far from it."""
    rng = np.random.default_rng(6)
    vectors = np.eye(2, dim)[(np.arange(n) % 16 == 0).astype(int)]
    return (vectors + rng.normal(0, 0.1 / dim**0.5, (n, dim))).astype(np.float16)


def test_of_many_pairs_components_gather_few(monkeypatch):
    gathered, single = [], linkage._single
    monkeypatch.setattr(
        linkage, "_single", lambda many, n: gathered.append(sum(len(one.i) for one in many)) or single(many, n)
    )
    link, similarity = linkage.components(Cell([dense()], floor=0.9, cut=0.95))
    assert sum(gathered) < 3 * 4096 and (link >= 0).sum() == 4094
    every = linkage.components(Cell([dense()]))
    assert np.array_equal(link, np.where(every[1] >= 0.9, every[0], -1)) and similarity.max() == every[1].max()


@pytest.mark.parametrize("pairs", [0, 10**9])
def test_trees_and_lists_of_pairs_join_the_same_components(pairs, monkeypatch):
    monkeypatch.setattr(linkage, "DENSE", pairs)
    monkeypatch.setattr(alike, "BLOCK", 50)
    vectors = blobs(2, spread=0.3)
    seen, similarity = told(vectors, groups="components", threshold=0.93), cosines(vectors)
    for tau in (0.9, 0.93, 0.96):
        assert np.array_equal(seen.score >= tau - 1e-6, components(similarity, tau) != np.arange(300))
    assert np.nanmin(seen.score) >= 0.88 - 1e-5, "nothing below the floor"


@pytest.mark.parametrize("groups", ["components", "semdedup"])
def test_scores_tell_what_any_threshold_from_the_floor_up_would_keep(groups):
    vectors = blobs(7, spread=0.2)
    seen = told(vectors, groups=groups, threshold=0.95)
    for tau in (0.91, 0.93, 0.97, 0.99):
        at_tau = told(vectors, groups=groups, threshold=tau)
        assert np.array_equal(~(seen.score >= tau - 1e-6), at_tau.keep)


def test_kept_rows_of_greedy_have_their_most_alike_better_keeper_as_score():
    decided = told(unit(np.array([[1.0, 0.0], [1.0, 0.4], [0.0, 1.0]])).astype(np.float16), threshold=0.95)
    assert decided.keep.all() and np.allclose(decided.score[1], 0.92848, atol=1e-3)
    assert np.isnan(decided.score[[0, 2]]).all(), "nothing within 0.05 of the threshold was seen"


def test_the_keeper_is_the_best_scored_then_the_first():
    same = np.tile([1.0, 0.0], (4, 1))
    rows = pa.table({"image_embedding": packed(same), "s": pa.array([0.1, 0.9, None, 0.9])})
    decided = method(keep_by="s").decide(rows, {})
    assert decided.keep.tolist() == [False, True, False, False] and decided.keeper.tolist() == [1, -1, 1, 1]


def test_hard_keeps_the_least_and_easy_the_most_alike_the_centroid_and_random_another():
    angles = np.radians([0, 4, 8, 12, 16, 90])  # a chain of five, each within 0.99 of the next; centroid at about 20°
    vectors = np.column_stack([np.cos(angles), np.sin(angles)])
    kept = {order: np.flatnonzero(told(vectors, groups="semdedup", threshold=0.96, order=order).keep) for order in
            ("keep_by", "hard", "easy")}  # fmt: skip
    assert {order: rows.tolist() for order, rows in kept.items()} == {
        "keep_by": [0, 5],
        "hard": [0, 5],
        "easy": [4, 5],
    }
    vectors = unit(np.tile(vectors[:1], (200, 1)) + np.random.default_rng(0).normal(0, 0.01, (200, 2)))
    draws = [
        told(vectors, groups="semdedup", threshold=0.9, order="random", draw=draw).keep.argmax() for draw in range(5)
    ]
    assert len(set(draws)) > 2


def test_both_drops_what_is_alike_in_image_and_text_alone():
    image = unit(np.array([[1, 0.0], [1, 0.01], [1, 0.02], [0, 1]]))
    text = unit(np.array([[1, 0.0], [0, 1.0], [1, 0.3], [0, 1]]))
    rows = pa.table({"image_embedding": packed(image), "text_embedding": packed(text)})
    kept = {
        tau: method(embedding="both", threshold=0.99, text_threshold=tau).decide(rows, {}).keep.tolist()
        for tau in (None, 0.95)
    }
    assert kept == {None: [True] * 4, 0.95: [True, True, False, True]}  # the cosine of the texts 0 and 2 is 0.958
    scores = method(embedding="both", threshold=0.95).decide(rows, {}).score
    assert scores[2] == pytest.approx(0.958, abs=1e-3)


# ------------------------------------------------------------------------------------------------------------- targets
def kept_by_rank(decided, keep):
    """The rows that stay when all but `keep` go, the highest rank first, the latest row first among equals."""
    index = np.arange(len(decided.keep))
    order = np.lexsort((index, *decided.rank.T[::-1]))
    stays = np.zeros(len(index), bool)
    stays[order[:keep]] = True
    return stays


@pytest.mark.parametrize("groups", ["components", "semdedup"])
@pytest.mark.parametrize("block", [2048, 11])
def test_a_target_keeps_what_the_threshold_of_that_size_keeps(groups, block, monkeypatch):
    monkeypatch.setattr(alike, "BLOCK", block)
    vectors = blobs(3, spread=0.25)
    ranked = told(vectors, groups=groups, target_rows=50)
    assert ranked.keep.all() and not np.isnan(ranked.rank).any() and np.isneginf(ranked.rank[0, 0])
    sizes = set()
    for tau in (0.5, 0.8, 0.9, 0.95, 0.99, 1.0):
        at_tau = told(vectors, groups=groups, threshold=tau)
        stays = kept_by_rank(ranked, at_tau.keep.sum())
        assert np.array_equal(stays, at_tau.keep)
        sizes.add(int(stays.sum()))
    assert len(sizes) > 4


def test_greedy_with_a_target_leaves_no_pair_and_joins_no_chains():
    vectors = blobs(4)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ranked = told(vectors, groups="greedy", target_fraction=0.5)
    for keep in (40, 150):
        stays = kept_by_rank(ranked, keep)
        cut = ranked.rank[~stays, 0].min()
        left = unit[stays].astype(np.float64)
        assert (left @ left.T - 2 * np.eye(keep)).max() <= cut + 1e-3
    gone = np.flatnonzero(ranked.keeper >= 0)
    assert np.allclose(np.sum(unit[gone] * unit[ranked.keeper[gone]], axis=1), ranked.score[gone], atol=2e-3)


def test_whoever_stands_for_a_ranked_row_comes_before_it():
    rng = np.random.default_rng(5)
    rows = pa.table({"image_embedding": chunked(blobs(5)), "s": pa.array(rng.random(300))})
    ranked = method(keep_by="s", target_rows=10).decide(rows, {})
    linked = ranked.keeper >= 0
    scores = rows["s"].to_numpy()
    assert linked.sum() > 250  # rows that are not alike at all are linked with none
    assert np.all(scores[ranked.keeper[linked]] >= scores[linked])
    assert np.allclose(ranked.rank[:, 1], -scores, atol=1e-6)  # among copies the worse by `keep_by` goes first


# --------------------------------------------------------------------------------------------------------------- cells
def test_every_row_has_one_cell_and_equal_rows_the_same():
    rng = np.random.default_rng(1)
    vectors = unit(rng.standard_normal((2000, 6)))
    vectors[1000:] = vectors[:1000]
    rows = pa.table({"image_embedding": packed(vectors)})
    select = method(bucket_rows=100)
    parts = [rows.slice(i, 500) for i in range(0, 2000, 500)]
    state = select.fit([select.summarise(part) for part in parts], None)
    found = select.partition(rows, state)
    assert 5 <= len(np.unique(found)) <= 20 and np.array_equal(found[:1000], found[1000:])
    assert np.array_equal(found, np.concatenate([select.partition(part, state) for part in parts]))


def test_another_draw_has_other_cells_and_finds_what_the_first_missed():
    rng = np.random.default_rng(2)
    vectors = unit(rng.standard_normal((4000, 16)))
    vectors[2000:] = unit(vectors[:2000] + rng.normal(0, 0.07, (2000, 16)))
    rows = pa.table({"image_embedding": packed(vectors)})
    together = []
    for draw in (0, 1):
        select = method(bucket_rows=200, draw=draw)
        found = select.partition(rows, select.fit([select.summarise(rows)], None))
        together.append(found[:2000] == found[2000:])
    assert 0.5 < together[0].mean() < 0.9 and (together[0] | together[1]).mean() > together[0].mean() + 0.08


def test_small_data_has_one_cell_and_is_exact():
    select = method(bucket_rows=1000)
    rows = pa.table({"image_embedding": packed(unit(np.random.default_rng(2).standard_normal((900, 4))))})
    assert set(select.partition(rows, select.fit([select.summarise(rows)], None))) == {0}


def test_cells_of_both_are_of_both():
    rng = np.random.default_rng(3)
    side = np.repeat([[1.0, 0.0], [-1.0, 0.0]], 100, axis=0) + rng.normal(0, 0.1, (200, 2))
    other = np.tile(np.repeat([[0.0, 1.0], [0.0, -1.0]], 50, axis=0), (2, 1)) + rng.normal(0, 0.1, (200, 2))
    rows = pa.table({"image_embedding": packed(unit(side)), "text_embedding": packed(unit(other))})
    select = method(embedding="both", bucket_rows=50)
    state = select.fit([select.summarise(rows)], None)
    assert state["centroids"].shape == (4, 4)
    assert [len(set(select.partition(rows, state)[at : at + 50])) for at in range(0, 200, 50)] == [1] * 4


def test_large_cells_are_divided():
    vectors = unit(np.random.default_rng(2).standard_normal((3000, 4)))
    parts, forced = cells.divide(cells.Vectors([chunked(vectors, 501)]), np.arange(3000)[::-1], 100, 0)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(3000)) and max(map(len, parts)) <= 400
    assert all(np.all(np.diff(part) < 0) for part in parts), "the order is kept"
    assert forced == 0


def test_what_k_means_cannot_divide_is_cut_and_told(monkeypatch):
    monkeypatch.setattr(cells, "centroids", lambda sample, count, seed: sample[:1])
    vectors = unit(np.random.default_rng(2).standard_normal((900, 4)))
    select = method(bucket_rows=100)
    decided = select.decide(pa.table({"image_embedding": packed(vectors)}), {})
    assert decided.counts == {"cut_cells": 1}
    assert "1 cells of nearly equal rows were cut at 400 rows" in select.warnings(decided.counts)[0]


# ------------------------------------------------------------------------------------------------- equal and bad vectors
@pytest.mark.parametrize("changes", [{}, {"groups": "components"}, {"groups": "semdedup"}, {"target_rows": 3}])
def test_equal_rows_are_linear(changes, monkeypatch):
    taken = []
    take = cells.Vectors.take
    monkeypatch.setattr(cells.Vectors, "take", lambda self, rows: taken.append(len(rows)) or take(self, rows))
    decided = told(np.tile(unit(np.arange(1.0, 5)[None]), (100_000, 1)), **changes)
    assert np.all(decided.keeper[1:] == 0) and decided.keeper[0] == -1 and np.allclose(decided.score[1:], 1)
    assert decided.keep.sum() == (100_000 if changes.get("target_rows") else 1)
    assert sum(taken) <= 2 * 100_000 and max(taken) <= cells.SLICE, "no more than a slice at a time"


def test_one_digest_for_all_changes_nothing(monkeypatch):
    vectors = blobs(1)
    before = told(vectors, threshold=0.95)
    monkeypatch.setattr(cells, "_digest", lambda halves, digest, sound: None)
    after = told(vectors, threshold=0.95)
    assert np.array_equal(before.keep, after.keep) and np.array_equal(before.keeper, after.keeper)


@pytest.mark.parametrize("changes", [{}, {"groups": "semdedup"}, {"target_rows": 1}])
def test_rows_without_a_direction_stay_and_are_told(changes):
    vectors = np.array([[0, 0], [np.nan, 1], [0, 0], [1, 0], [1, 0], [np.inf, 0], [-0.0, 0]], np.float16)
    select = method(**changes)
    decided = select.decide(pa.table({"image_embedding": packed(vectors)}), {})
    assert decided.keeper.tolist() == [-1, -1, -1, -1, 3, -1, -1] and decided.counts == {"no_direction": 5}
    assert np.isnan(decided.score[[0, 1, 2, 5, 6]]).all()
    assert select.warnings(decided.counts) == ["5 rows are kept uncompared: their vectors are zero or not finite"]
    if changes.get("target_rows"):
        assert np.isneginf(decided.rank[[0, 1, 2, 3, 5, 6], 0]).all() and decided.rank[4, 0] == 1


def test_cells_do_not_mind_rows_without_a_direction_or_nulls():
    vectors = unit(np.random.default_rng(0).standard_normal((500, 4)))
    vectors[::50] = np.nan
    valid = np.arange(500) % 7 != 0
    rows = pa.table({"image_embedding": pack(vectors, valid)})
    select = method(bucket_rows=50)
    state = select.fit([select.summarise(rows)], None)
    found = select.partition(rows, state)
    assert len(state["centroids"]) == 10 and np.isfinite(state["centroids"]).all()
    assert found.min() >= 0 and found.max() < 10
    assert method().decide(rows, {}).counts == {"no_direction": int((~valid | (np.arange(500) % 50 == 0)).sum())}


@pytest.mark.parametrize("changes", [{}, {"groups": "components"}, {"groups": "semdedup", "order": "hard"},
                                     {"target_rows": 1}])  # fmt: skip
def test_no_rows_one_row_and_one_dimension(changes):
    select = method(**changes)
    empty = pa.table({"image_embedding": packed(np.zeros((0, 4)))})
    state = select.fit([select.summarise(empty)], None)
    assert len(select.partition(empty, state)) == 0 and len(select.decide(empty, state).keep) == 0
    one = pa.table({"image_embedding": packed(np.ones((1, 4)))})
    assert select.decide(one, select.fit([select.summarise(one)], None)).keep.tolist() == [True]
    line = pa.table({"image_embedding": packed(np.array([[1.0], [-1.0], [1.0], [0.5], [-1.0]]))})
    assert select.fit([select.summarise(line)], None)["centroids"].shape == (1, 1)
    decided = select.decide(line, {})
    if "target_rows" not in changes:
        assert decided.keep.sum() == 2 and decided.keep[:3].any() and decided.keep[[1, 4]].sum() == 1


# -------------------------------------------------------------------------------------------------------------- settings
@pytest.mark.parametrize(
    "given, told",
    [
        ({"threshold": 0.9, "target_rows": 5}, "`threshold` and a target are given"),
        ({"embedding": "both", "text_threshold": 0.9, "target_rows": 5}, "`text_threshold` and a target"),
        ({"text_threshold": 0.9}, "it is for 'both'"),
        ({"order": "hard"}, "it is for 'semdedup'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given, told):
    with pytest.raises(ValidationError, match=told):
        NearDuplicates(**given)


def test_the_threshold_is_that_of_before_if_none_is_given():
    config = NearDuplicates()
    assert config.cut("image") == 0.95 and NearDuplicates(**config.model_dump()) == config


def test_fingerprints_tell_the_device_and_the_thresholds_that_were_left_open():
    with planned_for(gpus=False):
        here = method().depends_on()
    with planned_for(gpus=True):
        there = method().depends_on()
    assert there["device"] == "cuda" and here["faiss"] == there["faiss"] and here["faiss"]
    assert here["thresholds"] == [0.95] and method(threshold=0.9).depends_on()["thresholds"] == [0.9]
    both = method(embedding="both", threshold=0.9, text_threshold=0.8)
    assert both.depends_on()["thresholds"] == [0.9, 0.8]
    assert "numba" in facts_of(METHODS, "near_duplicates", method())["versions"]


@pytest.mark.gpu
@pytest.mark.parametrize("groups", ["greedy", "components", "semdedup"])
def test_a_gpu_decides_as_a_cpu_does(groups, monkeypatch):
    vectors = blobs(8, n=6000, dim=64)
    on_gpu = told(vectors, groups=groups, threshold=0.95)
    ranked = told(vectors, groups=groups, target_rows=100)
    monkeypatch.setattr(alike, "resolve_device", lambda name: "cpu")
    on_cpu = told(vectors, groups=groups, threshold=0.95)
    assert np.array_equal(on_gpu.keep, on_cpu.keep) and np.array_equal(on_gpu.keeper, on_cpu.keeper)
    assert np.allclose(ranked.score, told(vectors, groups=groups, target_rows=100).score, atol=1e-5, equal_nan=True)
