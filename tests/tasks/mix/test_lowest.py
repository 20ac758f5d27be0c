"""The rows that come first, against a plain sort; and their places within a group."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tasks.mix.lowest import firsts, places

rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.sampled_from(["a", "b", "é", "z", "zz"])))


@given(rows, st.randoms(use_true_random=False))
def test_of_equal_keys_the_first_text_is_taken_whatever_the_order(given_rows, random):
    shuffled = random.sample(given_rows, len(given_rows))
    outer, inner = (np.array([one[k] for one in shuffled], np.int64) for k in (0, 1))
    table = pa.table({"text": pa.array([one[2] for one in shuffled], pa.large_string())})
    chosen = firsts(outer, inner, table)
    expected = {}
    for a, b, text in sorted(given_rows):
        expected.setdefault((a, b), text)
    assert [shuffled[i] for i in chosen.tolist()] == [(*key, text) for key, text in expected.items()]
    told = places(outer[chosen])
    assert told.tolist() == [sum(a == c for c, _ in list(expected)[:i]) for i, (a, _) in enumerate(expected)]


def test_embeddings_break_ties_too():
    table = pa.table({"vector": pa.array([b"zz", b"aa", b"mm"], pa.binary(2))})
    assert firsts(np.zeros(3), np.zeros(3), table).tolist() == [1]
