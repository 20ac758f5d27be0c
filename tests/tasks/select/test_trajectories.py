"""S2L: the budget rule, clusters of trajectories, and the same over shards."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from configs.errors import ColumnError
from configs.methods.trajectories import Trajectories as Config
from storage.exchange import ROW, SHARD
from storage.packed import pack
from tasks.select import trajectories
from tasks.select.trajectories import BITS, Trajectories, allocate, select
from tasks.select.trajectory_clusters import assigned, centres_of, trajectories_of

SIZES = st.lists(st.integers(0, 60), min_size=1, max_size=12)


# ----------------------------------------------------------------------------------------------------------- the budget
@pytest.mark.parametrize(
    ("sizes", "budget", "tiny", "counts", "left"),
    [
        ([3, 5, 10, 50, 2, 1], 30, 2, [3, 5, 10, 12, 0, 0], 0),
        ([3, 4, 2, 2, 1], 10, 2, [3, 4, 0, 0, 0], 3),
        ([1500, 100, 400], 900, 0, [400, 100, 400], 0),  # the rule for sources: 400 is not larger than its 400
        ([7, 7, 7], 10, 0, [3, 3, 4], 0),
        ([7, 7, 7], 2, 0, [0, 1, 1], 0),  # less than one for each source
        ([2, 1, 0], 9, 2, [0, 0, 0], 3),  # never more than there are
        ([], 3, 2, [], 0),
    ],
)
def test_worked_examples(sizes, budget, tiny, counts, left):
    found, leftover = allocate(np.array(sizes, np.int64), budget, tiny=tiny)
    assert found.dtype == np.int64 and (found.tolist(), leftover) == (counts, left)


@given(SIZES, st.integers(0, 400), st.integers(0, 4), st.randoms(use_true_random=False))
def test_the_budget_is_spent_whole_and_larger_clusters_get_no_less(sizes, budget, tiny, random):
    counts, left = allocate(sizes, budget, tiny=tiny)
    total = sum(sizes)
    assert counts.sum() + left == min(budget, total)
    assert all(0 <= c <= s for c, s in zip(counts, sizes)) and all(c == 0 for c, s in zip(counts, sizes) if s <= tiny)
    big = sorted((s, c) for s, c in zip(sizes, counts.tolist()) if s > tiny)
    assert all(a[1] <= b[1] for a, b in zip(big, big[1:]) if a[0] < b[0])
    # Only the multiset of sizes counts.
    shuffled = random.sample(sizes, len(sizes))
    again, same_left = allocate(shuffled, budget, tiny=tiny)
    assert left == same_left and sorted(zip(shuffled, again)) == sorted(zip(sizes, counts))
    if big and big[0][0] >= -(-budget // len(big)):  # an equal share fits everywhere: the largest get the rest
        shares = [c for _, c in big]
        assert shares == sorted(shares) and shares[-1] - shares[0] <= 1


@pytest.mark.parametrize(
    ("sizes", "budget", "tiny", "told"),
    [
        ([3, -1], 3, 2, "cluster_sizes"),
        ([0.5], 3, 2, "cluster_sizes"),
        ([[3]], 3, 2, "cluster_sizes"),
        ([3], -1, 2, "`budget` is -1"),
        ([3], 1, -1, "`tiny` is -1"),
    ],
)
def test_wrong_arguments_of_the_budget(sizes, budget, tiny, told):
    with pytest.raises(ValueError, match=told):
        allocate(np.array(sizes), budget, tiny=tiny)


# ------------------------------------------------------------------------------------------------------------- clusters
def shapes(seed=0, counts=(10, 5), noise=0.01):
    """Trajectories around the spec's two shapes."""
    rng = np.random.default_rng(seed)
    known = np.array([[2, 1.5, 1, 0.5], [2, 1.9, 1.8, 1.8], [2, 0.3, 0.2, 0.1], [2, 2.2, 0.9, 0.1]])[: len(counts)]
    return (np.repeat(known, counts, axis=0) + noise * rng.standard_normal((sum(counts), 4))).astype(np.float32)


def partition(points, clusters, **options):
    """Sets of rows."""
    cluster, _ = assigned(points, centres_of(points, clusters, **options))
    return {frozenset(np.flatnonzero(cluster == c).tolist()) for c in np.unique(cluster)}


def test_two_shapes_are_told_apart_whatever_the_order_of_checkpoints_and_offsets():
    points, wanted = shapes(), {frozenset(range(10)), frozenset(range(10, 15))}
    offset = np.array([0, 100, -50, 7], np.float32)
    for moved in (points, points[:, ::-1], points + offset, points + np.float32(4096)):
        assert partition(np.ascontiguousarray(moved), 2) == wanted
    order = np.random.default_rng(1).permutation(15)
    assert partition(points[order], 2) == {frozenset(np.flatnonzero(np.isin(order, list(p))).tolist()) for p in wanted}
    # A scaled column does count: noise in it can outweigh the shapes.
    assert partition(points * np.array([1e4, 1, 1, 1], np.float32), 2) != wanted


def test_clusters_are_the_nearest_centres_and_those_of_faiss():
    points = np.random.default_rng(0).standard_normal((500, 6)).astype(np.float32)
    centres = centres_of(points, 7, seed=3)
    cluster, distance = assigned(points, centres)
    brute = np.linalg.norm(points[:, None].astype(np.float64) - centres, axis=2)
    assert np.array_equal(cluster, brute.argmin(1)) and np.allclose(distance, brute.min(1), atol=1e-5)
    import faiss

    kmeans = faiss.Kmeans(6, 7, niter=20, seed=3)
    kmeans.train(points)
    assert np.allclose(np.sort(centres, axis=0), np.sort(kmeans.centroids, axis=0), atol=1e-4)


def test_equal_trajectories_share_a_cluster():
    rng = np.random.default_rng(2)
    points = rng.standard_normal((300, 5)).astype(np.float32)[rng.integers(0, 300, 4000)]
    cluster, _ = assigned(points, centres_of(points, 20))
    _, same = np.unique(points, axis=0, return_inverse=True)
    assert len(np.unique(np.stack([same, cluster]), axis=1).T) == len(np.unique(same))


@pytest.mark.parametrize("clusters", [1, 3, 4, 100])
def test_few_distinct_rows_are_clusters_of_equal_rows(clusters):
    points = np.repeat(np.eye(4, dtype=np.float32)[:3], [5, 1, 9], axis=0)
    wanted = {frozenset(range(5)), frozenset([5]), frozenset(range(6, 15))} if clusters > 1 else {frozenset(range(15))}
    assert partition(points, clusters) == wanted


# ------------------------------------------------------------------------------------------------------------ selection
@given(st.integers(0, 60), st.integers(0, 80), st.integers(1, 30), st.integers(0, 6), st.integers(0, 9))
def test_exactly_the_budget_is_selected(n, budget, clusters, sources, seed):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 3, (n, 2)).astype(np.float32)  # many equal ones
    labels = rng.integers(0, sources, n) if sources else None
    chosen = select(points, budget, clusters=clusters, sources=labels, seed=seed)
    assert chosen.dtype == np.int64 and len(chosen) == min(budget, n)
    assert np.array_equal(chosen, np.unique(chosen)) and (not n or chosen.max(initial=0) < n)
    assert np.array_equal(chosen, select(points, budget, clusters=clusters, sources=labels, seed=seed))
    if labels is not None and n:
        _, sizes = np.unique(labels, return_counts=True)
        shares, _ = allocate(sizes, budget, tiny=0)
        _, source = np.unique(labels, return_inverse=True)
        assert np.array_equal(np.bincount(source[chosen], minlength=len(sizes)), shares)


def test_small_clusters_are_taken_whole_and_the_rest_is_drawn():
    points = shapes(counts=(200, 5, 60, 2), noise=0)
    chosen = [select(points, 100, clusters=4, seed=seed) for seed in range(40)]
    ends = np.cumsum([200, 5, 60, 2])
    for one in chosen:
        assert np.bincount(np.searchsorted(ends, one, side="right"), minlength=4).tolist() == [48, 5, 47, 0]
    times = np.bincount(np.concatenate(chosen), minlength=267)
    assert times[200:205].tolist() == [40] * 5 and times[265:].tolist() == [0, 0]
    assert 0 < times[:200].min() and times[:200].max() < 25  # of 40 draws with probability 0.24


def test_what_is_missing_is_drawn_from_the_union_of_the_tiny_clusters():
    points = shapes(counts=(3, 4, 2, 2), noise=0)
    for seed in range(20):
        chosen = select(points, 9, clusters=4, seed=seed)
        assert chosen[:7].tolist() == [*range(7)] and len(chosen) == 9
    assert len({tuple(select(points, 9, clusters=4, seed=seed)) for seed in range(40)}) == 6  # all pairs of four


@pytest.mark.parametrize(
    ("points", "arguments", "told"),
    [
        ([[1.0, float("nan")]], {"budget": 1}, "NaN or infinity in row 0"),
        ([[1.0], [float("inf")]], {"budget": 1}, "in row 1"),
        ([1.0, 2.0], {"budget": 1}, r"\(n, T\)"),
        ([[1.0]], {"budget": -1}, "`budget` is -1"),
        ([[1.0]], {"budget": 1, "clusters": 0}, "`clusters` 0"),
        ([[1.0]], {"budget": 1, "sources": ["a", "b"]}, "`sources` has the shape"),
    ],
)
def test_wrong_arguments_of_the_selection(points, arguments, told):
    with pytest.raises(ValueError, match=told):
        select(np.array(points), **arguments)


# --------------------------------------------------------------------------------------------------------------- shards
def table(points, sources=None, missing=()):
    """Rows as a select sees them, uids from the row numbers."""
    n = len(points)
    valid = ~np.isin(np.arange(n), missing)
    columns = {"trajectory": pack(points, valid), "uid": pack(_uids(n))}
    columns |= {"source": pa.array(sources, pa.string())} if sources is not None else {}
    return pa.table(columns)


def _uids(n):
    return np.random.default_rng(7).integers(0, 1 << 63, (n, 2), np.uint64)


def kept(config, rows, cuts, wanted, seed=0):
    """The rows that a whole select keeps, and its decisions, when `rows` are cut into shards at `cuts`."""
    method = Trajectories(config, seed=seed)
    starts = [0, *cuts]
    shards = [rows.slice(a, b - a) for a, b in zip(starts, [*cuts, rows.num_rows])]
    numbered = [one.append_column("row", pa.array(np.arange(one.num_rows))) for one in shards]
    state = method.fit([method.summarise(one) for one in numbered], None)
    found = []
    for shard, one in enumerate(numbered):
        one = one.rename_columns([*one.column_names[:-1], ROW])
        found.append(method.decide(one.append_column(SHARD, pa.array(np.full(len(one), shard))), state))
    keep, group = (np.concatenate([getattr(d, name) for d in found]) for name in ("keep", "group"))
    rank = np.concatenate([d.rank for d in found])
    groups, rows_of = np.unique(group[keep], return_counts=True)
    quota = dict(zip(groups.tolist(), method.quotas(groups, rows_of, wanted).tolist()))
    order = [i for i in np.lexsort((rank[:, 1], rank[:, 0])).tolist() if keep[i]]
    chosen = []
    for i in order:
        if quota[int(group[i])] > 0:
            quota[int(group[i])] -= 1
            chosen.append(i)
    return np.sort(np.array(chosen, np.int64)), found, (method, state, groups)


@pytest.mark.parametrize("noise", [0, 0.5])
@pytest.mark.parametrize("by_source", [False, True])
def test_over_shards_the_same_rule_whatever_the_cut(by_source, noise):
    rng = np.random.default_rng(3)
    points = shapes(counts=(700, 40, 250, 2), noise=noise)[rng.permutation(992)]
    sources = np.array(["web", "books", None])[rng.choice(3, 992, p=[0.8, 0.15, 0.05])].tolist()
    rows = table(points, sources, missing=[5, 17])
    config = Config(target_rows=300, clusters=4, by_source=by_source)
    whole, decisions, (method, state, groups) = kept(config, rows, [], 300)
    assert len(whole) == 300 and not {5, 17} & set(whole.tolist())
    assert decisions[0].reason[[5, 17]].tolist() == ["no_trajectory"] * 2 and decisions[0].keep.sum() == 990
    for cuts in ([1, 500], [100, 200, 300, 900], list(range(50, 992, 50))):
        assert np.array_equal(whole, kept(config, rows, cuts, 300)[0])
    assert not np.array_equal(whole, kept(config, rows, [], 300, seed=1)[0])
    # The shares are those of the arrays' function.
    sound = np.setdiff1d(np.arange(992), [5, 17])
    labels = np.array([str(s) for s in sources])[sound] if by_source else None
    pure = sound[select(points[sound], 300, clusters=4, sources=labels)]
    at = decisions[0].group if noise == 0 else decisions[0].group >> BITS  # k-means begins elsewhere
    found, wanted = (dict(zip(*np.unique(at[one], return_counts=True), strict=True)) for one in (whole, pure))
    if noise or not by_source:
        assert found == wanted
    else:  # which of two clusters of equal size comes first is left to their numbers
        assert sorted(found.values()) == sorted(wanted.values())
    names = method.group_names(groups, state)
    assert ({n.split("/")[0] for n in names} == {"web", "books", "no source"}) if by_source else names[0] == "0"


def test_tiny_clusters_share_what_is_left_as_one_draw_would():
    method = Trajectories(Config(target_rows=4, clusters=9), seed=0)
    groups, rows = np.arange(6), np.array([3, 2, 2, 1, 4, 1])
    counts = method.quotas(groups, rows, 10)
    assert counts[[0, 4]].tolist() == [3, 4] and counts.sum() == 10 and (counts <= rows).all()
    assert np.array_equal(counts, method.quotas(groups, rows, 10))
    assert len({tuple(Trajectories(Config(target_rows=4), seed=s).quotas(groups, rows, 10)) for s in range(30)}) > 3
    assert method.quotas(groups, rows, 99).tolist() == rows.tolist()
    two = groups % 2 << BITS | groups  # two sources: 5 rows each is more than neither has
    order = np.argsort(two)
    assert method.quotas(two[order], rows[order], 6).sum() == 6


def test_the_sample_is_bounded_for_every_source(monkeypatch):
    monkeypatch.setattr(trajectories, "POINTS_PER_CLUSTER", 4)
    monkeypatch.setattr(trajectories, "MOST_POINTS", 30)
    seen = []
    monkeypatch.setattr(trajectories, "centres_of", lambda points, k, **_: seen.append(len(points)) or points[:1])
    rng = np.random.default_rng(0)
    rows = table(rng.random((900, 3)).astype(np.float32), [f"s{i % 3}" for i in range(900)])
    method = Trajectories(Config(target_rows=9, clusters=5, by_source=True), seed=0)
    summaries = [method.summarise(rows.slice(at, 300)) for at in (0, 300, 600)]
    assert [len(one) for one in summaries] == [60] * 3
    method.fit(summaries, None)
    assert seen == [10] * 3


# ----------------------------------------------------------------------------------------------------- columns of lists
@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 3), pa.large_list(pa.int16()), pa.list_(pa.float16())]
)
def test_lists_of_numbers_are_read(kind):
    column = pa.chunked_array([pa.array([[1, 2, 3], None], kind), pa.array([[4, 5, 6]], kind).slice(0, 1)])
    found, sound = trajectories_of(column, "losses")
    assert found.dtype == np.float32 and sound.tolist() == [True, False, True]
    assert found[sound].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_rows_without_whole_numbers_have_no_trajectory():
    lists = [[1.0, 2.0], [None, 1.0], [float("nan"), 1.0], [1e39, 1.0], [], None, [float("-inf"), 0.0]]
    found, sound = trajectories_of(pa.chunked_array([pa.array(lists, pa.list_(pa.float64()))]), "losses")
    assert sound.tolist() == [True] + [False] * 6 and found.shape == (7, 2)
    found, sound = trajectories_of(pa.chunked_array([pa.array([None, []], pa.list_(pa.float32()))]), "losses")
    assert found.shape == (2, 0) and not sound.any()


def test_lengths_and_types_that_do_not_fit_are_refused():
    with pytest.raises(ColumnError, match="`losses` has 3 numbers in row 2 .* and 2 in row 0"):
        trajectories_of(pa.chunked_array([[[1.0, 2.0], None, [1.0, 2.0, 3.0]]]), "losses")
    with pytest.raises(ColumnError, match="`column` names 'losses', which is list<item: string>"):
        trajectories_of(pa.chunked_array([[["a"]]]), "losses")
    method = Trajectories(Config(target_rows=2, column="losses"), seed=0)
    with pytest.raises(ColumnError, match="which is double"):
        method.check_columns(pa.schema([("losses", pa.float64())]))
    uid = pack(_uids(2))
    short, long = (pa.table({"losses": [[1.0] * t] * 2, "uid": uid, ROW: [0, 1]}) for t in (2, 3))
    summaries = [method.summarise(one.rename_columns(["losses", "uid", "row"])) for one in (short, long)]
    with pytest.raises(ColumnError, match="3 numbers in shard 1 .* and 2 before it"):
        method.fit(summaries, None)
    with pytest.raises(ColumnError, match="3 numbers; in other shards it has 2"):
        method.decide(long, method.fit(summaries[:1], None))


def test_no_rows_no_trajectories_and_wrong_settings():
    method = Trajectories(Config(target_rows=2), seed=0)
    for rows in (table(np.zeros((0, 3), np.float32)), table(np.zeros((2, 3), np.float32), missing=[0, 1])):
        numbers = pa.array(np.arange(len(rows)))
        state = method.fit([method.summarise(rows.append_column("row", numbers))], None)
        told = method.decide(rows.append_column(ROW, numbers), state)
        assert not told.keep.any() and set(told.reason) <= {"no_trajectory"}
    assert len(method.quotas(np.zeros(0, np.int64), np.zeros(0, np.int64), 5)) == 0
    for wrong in ({}, {"target_tokens": 5}, {"target_rows": 3, "clusters": 0}):
        with pytest.raises(ValidationError):
            Config(**wrong)
