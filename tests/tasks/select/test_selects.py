"""Exact duplicates and the threshold: hand-made cases, and that buckets and shards do not matter."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from configs.methods.select import ExactDuplicates, Threshold
from tasks.select import exact_duplicates, threshold


def exact(uids, scores=None):
    columns = {"uid": pa.array(uids, pa.binary(16))} | ({"s": scores} if scores is not None else {})
    method = exact_duplicates.ExactDuplicates(ExactDuplicates(keep_by="s" if scores is not None else None), seed=0)
    return method, pa.table(columns)


def test_of_equal_uids_the_first_row_is_kept_or_the_best():
    a, b = b"a" * 16, b"b" * 16
    method, rows = exact([a, b, a, a])
    told = method.decide(rows, {})
    assert told.keep.tolist() == [True, True, False, False] and told.keeper.tolist() == [-1, -1, 0, 0]
    method, rows = exact([a, b, a, a], [1.0, 0.0, None, 5.0])
    told = method.decide(rows, {})
    assert told.keep.tolist() == [False, True, False, True] and told.keeper.tolist() == [3, -1, 3, -1]
    assert told.reason.tolist() == ["exact_duplicate", "", "exact_duplicate", ""]


def test_equal_uids_share_a_bucket():
    uids = [bytes([i % 7] * 16) for i in range(100)]
    method, rows = exact(uids)
    buckets = method.partition(rows, {"buckets": np.int64(5)})
    assert all(len({b for b, u in zip(buckets, uids) if u == uid}) == 1 for uid in set(uids))
    assert method.fit([pa.table({"rows": [300_000]}), pa.table({"rows": [1]})], None)["buckets"] == 2


@given(
    st.lists(st.lists(st.floats(-1, 1, width=32) | st.just(float("nan")), max_size=30), max_size=5), st.floats(0.01, 1)
)
def test_the_quantile_is_exact_over_any_shards(shards, fraction):
    tables = [pa.table({"score": pa.array(np.array(s, np.float32))}) for s in shards]
    scores = np.array([v for s in shards for v in s], np.float32)
    cut = threshold.kth_largest(tables, fraction)
    known = np.sort(scores[~np.isnan(scores)])[::-1]
    wanted = int(np.ceil(round(fraction * len(scores), 9)))
    if wanted == 0 or wanted > len(known):
        assert cut == float("-inf")
    else:
        assert cut == known[wanted - 1]
        assert np.sum(known >= cut) >= wanted > np.sum(known > cut)


def test_rows_without_a_score_are_dropped_as_such():
    method = threshold.Threshold(Threshold(score="s", minimum=0.1), seed=0)
    rows = pa.table({"s": pa.array([0.1, None, 0.0999, 0.3], pa.float32())})
    told = method.decide(rows, method.fit([], None))
    assert told.reason.tolist() == ["", "no_score", "below_threshold", ""]
