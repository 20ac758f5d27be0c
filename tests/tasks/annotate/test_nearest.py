"""The nearest classes: exact, ties in order, the same bytes however the work is cut."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.annotate import nearest
from tasks.annotate.nearest import Nearest, block_rows, first_highest, group_size, top
from tasks.embed.encoder import single_threads


def search(found, vectors):
    """Everything that `found` finds for float16 `(n, D)`."""
    blocks = (vectors[i : i + found.rows] for i in range(0, len(vectors), found.rows))
    classes, confidences = zip(*found.search(blocks))
    return np.concatenate(classes), np.concatenate(confidences)


def brute_force(vectors, classes, k):
    """Classes and dot products in float64, sorted by (dot product down, class up)."""
    scores = vectors.astype(np.float64) @ classes.astype(np.float64).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, 1)


def small_integers(seed, rows, count, dim=8):
    """Vectors whose dot products are small integers: exact in any order of summing, and full of ties."""
    rng = np.random.default_rng(seed)
    return rng.integers(-2, 3, (rows, dim)).astype("<f2"), rng.integers(-2, 3, (count, dim)).astype(np.float32)


def unit(seed, rows, dim):
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@settings(max_examples=60)
@given(
    st.integers(0, 10_000),
    st.integers(1, 40),
    st.sampled_from([1, 2, 31, 63, 64, 65, 129, 640, 641, 3000]),
    st.integers(1, 12),
)
def test_exactly_the_brute_force_ties_to_the_earlier_class(seed, rows, count, k):
    vectors, classes = small_integers(seed, rows, count)
    found, scores = search(Nearest(classes, k), vectors)
    expected, exact = brute_force(vectors, classes, k)
    assert np.array_equal(found, expected) and np.array_equal(scores, exact)
    assert scores.dtype == np.float32


def brute_force_above(vectors, classes, k, thresholds, scale=None):
    """As `brute_force`, of the classes whose confidence reaches their threshold; -1 and -inf behind them."""
    scores = confidences = (vectors.astype(np.float32) @ classes.T).astype(np.float32)
    if scale is not None:
        confidences = np.exp(scale * (scores - scores.max(1, keepdims=True)))
        confidences /= confidences.sum(1, keepdims=True)
    found, kept = np.full((len(vectors), k), -1), np.full((len(vectors), k), -np.inf, np.float32)
    for row in range(len(vectors)):
        reaching = np.flatnonzero(confidences[row] >= thresholds)
        order = reaching[np.argsort(-scores[row, reaching], kind="stable")][:k]
        found[row, : len(order)], kept[row, : len(order)] = order, confidences[row, order]
    return found, kept


@settings(max_examples=60)
@given(
    st.integers(0, 10_000),
    st.integers(1, 20),
    st.sampled_from([1, 2, 31, 64, 65, 640, 641, 3000]),
    st.integers(1, 12),
    st.sampled_from([[-40, 40], [-3, 0, 3, 6], [-np.inf, 2, 5], [0], [40], [-40]]),
)
def test_only_classes_that_reach_their_own_threshold_ties_to_the_earlier(seed, rows, count, k, levels):
    """Thresholds are whole numbers, so are the products: many reach theirs exactly, many rows have none or too few."""
    vectors, classes = small_integers(seed, rows, count)
    thresholds = np.random.default_rng(seed).choice(np.array(levels, np.float32), count)
    nearest_ = Nearest(classes, k, thresholds=thresholds)
    found, scores = search(nearest_, vectors)
    expected, exact = brute_force_above(vectors, classes, nearest_.k, thresholds)
    assert np.array_equal(found, expected) and np.array_equal(scores, exact)
    assert ((found == -1) == (scores == -np.inf)).all() and found.max() < count


@pytest.mark.parametrize("scale", [None, 20.0, 200.0])
@pytest.mark.parametrize("count", [40, 5000])
def test_thresholds_of_real_vectors(count, scale):
    vectors, classes = unit(13, 300, 32).astype("<f2"), unit(14, count, 32)
    plain = search(Nearest(classes, 6, scale=scale), vectors)
    thresholds = (np.random.default_rng(15).random(count) * 2 * np.median(plain[1])).astype(np.float32)
    found, confidences = search(Nearest(classes, 6, scale=scale, thresholds=thresholds), vectors)
    expected, exact = brute_force_above(vectors, classes, 6, thresholds, scale)
    same = (found == expected).all(axis=1)
    assert same.mean() > 0.98  # a confidence may be on the other side by its last bit
    both = same[:, None] & (found >= 0)
    assert np.abs(confidences[both] / exact[both] - 1).max() < 1e-3
    assert (confidences[found >= 0] >= thresholds[found[found >= 0]]).all()
    assert 0.2 < (found != plain[0]).mean() and 0.2 < (found >= 0).mean()


@pytest.mark.parametrize("scale", [None, 30.0])
def test_one_threshold_for_all_is_a_filter_of_the_nearest_bit_by_bit(scale):
    vectors, classes = unit(16, 400, 32).astype("<f2"), unit(17, 3000, 32)
    plain = search(Nearest(classes, 7, scale=scale), vectors)
    level = np.float32(np.median(plain[1]))
    found, confidences = search(Nearest(classes, 7, scale=scale, thresholds=np.full(3000, level)), vectors)
    reaching = plain[1] >= level
    assert np.array_equal(found, np.where(reaching, plain[0], -1)) and 0.3 < reaching.mean() < 0.7
    assert confidences.tobytes() == np.where(reaching, plain[1], np.float32(-np.inf)).tobytes()
    without = search(Nearest(classes, 7, scale=scale, thresholds=np.full(3000, -np.inf, np.float32)), vectors)
    assert np.array_equal(without[0], plain[0]) and without[1].tobytes() == plain[1].tobytes()


def test_grouping_pays_for_few_of_many_and_is_left_out_else():
    assert group_size(20_101, 5) == 64 and group_size(998, 5) == 32 and group_size(20_101, 1000) == 1
    assert group_size(1, 1) == 1 and group_size(100, 100) == 1


@pytest.mark.parametrize("k", [1, 2, 5, 16])
def test_groups_with_equal_maxima_lose_nothing(k):
    scores = torch.zeros(3, 1024)
    scores[1, 1023], scores[1, 512] = 1, 1
    scores[2, ::32] = 1
    for group in (1, 32, 64):
        best, found = top(scores, k, group)
        order = np.argsort(-scores.numpy(), axis=1, kind="stable")[:, :k]
        assert np.array_equal(found.numpy(), order), group
        assert torch.equal(best, scores.gather(1, found))


def test_order_of_keys_is_the_order_of_numbers():
    values = torch.tensor([[-0.0, 0.0, -1e-38, 1e-38, -3e38, 3e38, -1.5, 1.5, -torch.inf, torch.inf]])
    assert first_highest(values, 10).tolist() == [[9, 5, 7, 3, 0, 1, 2, 6, 4, 8]]


@pytest.mark.parametrize(("count", "dim"), [(50, 16), (5000, 64)])
def test_real_vectors_agree_with_float64_to_a_millionth(count, dim):
    vectors, classes = unit(1, 700, dim).astype("<f2"), unit(2, count, dim)
    found, scores = search(Nearest(classes, 5), vectors)
    expected, exact = brute_force(vectors, classes, 5)
    assert np.abs(scores - exact).max() < 1e-6
    told_apart = -np.diff(np.sort(-(vectors.astype(np.float64) @ classes.T.astype(np.float64)), axis=1)[:, :6]) < -2e-6
    assert np.array_equal(found[told_apart.all(axis=1)], expected[told_apart.all(axis=1)])
    assert told_apart.all(axis=1).mean() > 0.9


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_softmax_is_over_all_classes(scale):
    vectors, classes = unit(3, 50, 32).astype("<f2"), unit(4, 3000, 32)
    found, confidences = search(Nearest(classes, 4, scale=scale), vectors)
    logits = scale * (vectors.astype(np.float64) @ classes.T.astype(np.float64))
    expected = np.exp(logits - logits.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    assert np.abs(confidences / np.take_along_axis(expected, found, 1) - 1).max() < 2e-4 * max(1, scale / 100)
    assert np.array_equal(found, search(Nearest(classes, 4), vectors)[0])
    everything = search(Nearest(classes[:20], 20, scale=scale), vectors)[1]
    assert np.abs(everything.sum(1) - 1).max() < 1e-5


def test_the_same_bytes_for_any_number_of_workers():
    vectors, classes = unit(5, 3000, 48).astype("<f2"), unit(6, 7000, 48)
    one = search(Nearest(classes, 5, scale=100.0, workers=1), vectors)
    four = search(Nearest(classes, 5, scale=100.0, workers=4), vectors)
    assert one[0].tobytes() == four[0].tobytes() and one[1].tobytes() == four[1].tobytes()


def test_blocks_are_computed_by_one_thread_each_whatever_is_set_elsewhere():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        pool = single_threads(2)
        assert torch.get_num_threads() == 3
        used = [pool.submit(lambda: (torch.ones(2000, 2000).exp_(), torch.get_num_threads())[1]) for _ in range(6)]
        assert [one.result() for one in used] == [1] * 6
        torch.set_num_threads(2)
        assert pool.submit(torch.get_num_threads).result() == 1
    finally:
        torch.set_num_threads(before)


def test_the_rows_of_a_block_do_not_change_what_is_found(monkeypatch):
    vectors, classes = small_integers(7, 500, 900)
    whole = search(Nearest(classes, 7), vectors)
    monkeypatch.setitem(nearest.SCORES_BYTES, "cpu", 4 * 900 * 9)
    small = Nearest(classes, 7)
    assert small.rows == 8 and all(map(np.array_equal, whole, search(small, vectors)))


def test_a_row_depends_on_its_place_and_not_on_its_neighbours():
    vectors, classes = unit(8, 40, 32).astype("<f2"), unit(9, 2000, 32)
    alone = np.zeros_like(vectors)
    alone[17] = vectors[17]
    together, single = (search(Nearest(classes, 5), rows) for rows in (vectors, alone))
    assert together[1][17].tobytes() == single[1][17].tobytes() and np.array_equal(together[0][17], single[0][17])


def test_blocks_are_bounded_whatever_the_vocabulary():
    for device in ("cpu", "cuda"):
        for count in (1, 10, 998, 20_101, 1_000_000, 10**10):
            rows = block_rows(count, device)
            assert rows == 1 or 4 * rows * count <= nearest.SCORES_BYTES[device]
            assert rows & (rows - 1) == 0 and rows <= nearest.MOST_ROWS[device]


def test_no_rows_no_blocks():
    assert list(Nearest(np.eye(3, dtype=np.float32), 2).search(iter([]))) == []


@pytest.mark.gpu
def test_a_cuda_device_finds_the_same():
    vectors, classes = small_integers(10, 5000, 3000)
    here, there = (search(Nearest(classes, 7, device=device), vectors) for device in ("cpu", "cuda"))
    assert np.array_equal(here[0], there[0]) and np.array_equal(here[1], there[1])
    vectors, classes = unit(11, 5000, 128).astype("<f2"), unit(12, 3000, 128)
    here, there = (search(Nearest(classes, 5, scale=50.0, device=device), vectors) for device in ("cpu", "cuda"))
    assert np.abs(here[1] - there[1]).max() < 1e-4 and (here[0] == there[0]).mean() > 0.999
