"""Concepts read from a column."""

import numpy as np
import pyarrow as pa
import pytest

from configs.methods.annotate import ConceptColumn
from tasks.annotate import column as column_method
from tasks.annotate import mining
from tasks.annotate.column import ColumnAnnotator
from tasks.annotate.entries import decode_vocabulary, mapping_text

LISTS = [["dog", "dog", "cat"], [], None, ["zebra"], ["cat", None, ""]]
SCORES = [[0.9, 0.2, 0.5], [], None, [0.5], [0.7, 0.9, 0.9]]
KINDS = [
    pa.list_(pa.string()),
    pa.large_list(pa.large_string()),
    pa.list_(pa.dictionary(pa.int32(), pa.string())),
]


def run(columns, **config):
    return ColumnAnnotator(ConceptColumn(**config)).run(pa.table(columns))


def concepts(result):
    assert result.failures == []
    assert result.table.schema.types == [pa.list_(pa.string()), pa.list_(pa.float32())]
    return result.table["concepts"].to_pylist()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_lists_keep_repeats_and_lose_null_and_empty_concepts(kind):
    result = run({"classes": pa.array(LISTS, kind)})
    assert concepts(result) == [["dog", "dog", "cat"], [], None, ["zebra"], ["cat"]]
    assert result.table["confidences"].to_pylist() == [None] * 5


def test_fixed_size_lists_and_dictionary_strings():
    fixed = pa.array([["a", "b"], None, ["c", "c"]], pa.list_(pa.string(), 2))
    assert concepts(run({"classes": fixed})) == [["a", "b"], None, ["c", "c"]]
    joined = pa.array(["a | b", "c", "a | b"]).dictionary_encode()
    assert concepts(run({"classes": joined})) == [["a", "b"], ["c"], ["a", "b"]]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()], ids=str)
def test_joined_strings_are_split_trimmed_and_emptied(kind):
    joined = pa.array(["dog | dog |  big cat ", "", None, " | ", "a|b", "zebra | "], kind)
    expected = [["dog", "dog", "big cat"], [], None, [], ["a|b"], ["zebra"]]
    assert concepts(run({"classes": joined})) == expected
    assert concepts(run({"tags": pa.array(["a, b,c"])}, column="tags", separator=",")) == [["a", "b", "c"]]


def test_confidences_stay_parallel_and_the_threshold_counts():
    rows = {"classes": pa.array(LISTS), "sure": pa.array(SCORES, pa.list_(pa.float64()))}
    result = run(rows, scores="sure")
    assert concepts(result) == [["dog", "dog", "cat"], [], None, ["zebra"], ["cat"]]
    np.testing.assert_allclose(result.table["confidences"][0].as_py(), [0.9, 0.2, 0.5], rtol=1e-6)
    assert result.table["confidences"].to_pylist()[1:3] == [[], None]
    result = run(rows, scores="sure", threshold=0.5)
    assert concepts(result) == [["dog", "cat"], [], None, ["zebra"], ["cat"]]  # 0.5 reaches 0.5
    np.testing.assert_allclose(result.table["confidences"][0].as_py(), [0.9, 0.5], rtol=1e-6)


def test_confidences_of_joined_strings_count_empty_parts():
    rows = {"classes": ["dog |  | cat", "zebra"], "sure": [[0.9, 0.8, 0.1], [0.7]]}
    assert concepts(run(rows, scores="sure", threshold=0.5)) == [["dog"], ["zebra"]]


def test_null_and_nan_confidences_are_left_out():
    rows = {"classes": [["a", "b", "c"]], "sure": [[None, float("nan"), 0.0]]}
    assert concepts(run(rows, scores="sure")) == [["c"]]


def test_rows_that_do_not_fit_fail_alone():
    rows = {
        "classes": pa.array([["a"], ["b", "c"], None, ["d"], None, ["e", "e"]]),
        "sure": pa.array([[0.5], [0.5], [0.5], None, None, [0.1, 0.9]]),
    }
    result = run(rows, scores="sure", threshold=0.3)
    assert [failure.row for failure in result.failures] == [1, 2, 3]
    assert {failure.reason for failure in result.failures} == {"bad_concepts"}
    assert result.failures[0].detail == "`classes` has 2 concepts, `sure` has 1 confidences"
    assert result.failures[1].detail == "`classes` is null, `sure` is not"
    assert result.table["concepts"].to_pylist() == [["a"], None, None, None, None, ["e"]]
    np.testing.assert_allclose(result.table["confidences"][5].as_py(), [0.9], rtol=1e-6)


def test_chunks_and_slices_change_nothing():
    table = pa.table({"classes": pa.array(LISTS * 4), "sure": pa.array(SCORES * 4)})
    chunked = pa.concat_tables([table.slice(0, 3), table.slice(3, 0), table.slice(3, 8), table.slice(11)])
    method = ColumnAnnotator(ConceptColumn(scores="sure", threshold=0.5))
    assert method.run(chunked).table.equals(method.run(table).table)
    assert method.run(table.slice(4, 9)).table.equals(method.run(table).table.slice(4, 9))
    assert method.run(table.slice(0, 0)).table.num_rows == 0


def strings(*values):
    offsets = np.cumsum([0, *map(len, values)]).astype(np.int32)
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(b"".join(values)))


def test_bytes_that_are_not_utf8_fail_alone():
    joined = strings(b"dog | cat", b"dog | \xff\xfe", b"zebra")
    lists = pa.ListArray.from_arrays([0, 1, 2, 3], strings(b"dog", b"\xff\xfe", b"zebra"))
    for column, first in ((joined, ["dog", "cat"]), (lists, ["dog"])):
        result = run({"classes": column})
        assert [(failure.row, failure.reason) for failure in result.failures] == [(1, "bad_concepts")]
        assert result.table["concepts"].to_pylist() == [first, None, ["zebra"]]


WRITTEN = [["Hot_Dog", "hot  dog", "_", None, "cat"], None, ["skateboards", "UPS"], [], ["CAT", "cat"], ["skateboard"]]
SURE = [[0.9, 0.8, 0.7, 0.6, 0.1], None, [0.5, 0.6], [], [0.3, 0.4], [0.2]]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_names_are_cleaned_value_by_value_and_repeats_stay(kind):
    rows = {"classes": pa.array(WRITTEN, kind), "sure": SURE}
    expected = [["hot dog", "hot dog", "cat"], None, ["skateboards", "ups"], [], ["cat", "cat"], ["skateboard"]]
    assert concepts(run(rows, cleaning="names")) == expected
    result = run(rows, cleaning="names", scores="sure", threshold=0.2)
    assert concepts(result) == [
        ["hot dog", "hot dog"],
        None,
        ["skateboards", "ups"],
        [],
        ["cat", "cat"],
        ["skateboard"],
    ]
    np.testing.assert_allclose(result.table["confidences"][0].as_py(), [0.9, 0.8], rtol=1e-6)
    assert not ColumnAnnotator(ConceptColumn(cleaning="names")).fitted
    assert run({"classes": pa.array(["A_b | _ | a  B"])}, cleaning="names").table["concepts"].to_pylist() == [
        ["a b"] * 2
    ]


def fitted(*shards, **config):
    settings = ConceptColumn(cleaning="merge", **config)
    method = ColumnAnnotator(settings)
    return settings, method.fit([method.summarise(pa.table(shard)) for shard in shards])


def test_merging_is_fitted_once_on_rows_that_have_a_concept():
    shards = [{"classes": pa.array(WRITTEN)}, {"classes": [["skateboard"] * 9, ["skateboard"], ["new\nline\\n"]]}]
    settings, state = fitted(*shards)
    assert ColumnAnnotator(settings).fitted
    assert mapping_text(state).splitlines() == [
        "name\tconcept\twhy\trows",
        "skateboard\tskateboard\t\t3",
        "cat\tcat\t\t2",
        "CAT\tcat\tspelling\t1",
        "Hot_Dog\thot dog\tspelling\t1",
        "UPS\tups\tspelling\t1",
        "_\t\tempty\t1",
        "hot  dog\thot dog\tspelling\t1",
        "new\\nline\\\\n\tnew line\\\\n\tspelling\t1",
        "skateboards\tskateboard\talike\t1",
    ]
    assert decode_vocabulary(state["names"])[7] == "new\nline\\n"
    method = ColumnAnnotator(settings, state)
    rows = {"classes": [["Skateboards", "CAT", "cat", "_"], ["Brand_NEW", "skateboarding"], None]}
    found = method.run(pa.table(rows)).table["concepts"].to_pylist()
    assert found == [["skateboard", "cat", "cat"], ["brand new", "skateboarding"], None]
    with pytest.raises(ValueError, match="`state` is None"):
        ColumnAnnotator(settings).run(pa.table(rows))


def test_what_does_not_count_is_not_fitted(monkeypatch):
    rows = {"classes": [["dog", "cat"], ["dog", "dog"], ["zebra"]], "sure": [[0.9, 0.1], [0.9, 0.9], [0.5, 0.5]]}
    _, state = fitted(rows, scores="sure", threshold=0.5)
    assert mapping_text(state).splitlines()[1:] == ["dog\tdog\t\t2"]  # the last row's confidences do not fit
    monkeypatch.setattr(column_method, "MERGED", 1)
    monkeypatch.setattr(mining, "SUMMARY_ROWS", 2)
    _, state = fitted({"classes": [["b", "a", "c"], ["b"]]})
    assert decode_vocabulary(state["names"]) == ["b"]


def test_a_column_without_a_concept_is_an_empty_state():
    for kind in (pa.list_(pa.string()), pa.string()):
        settings, state = fitted({"classes": pa.nulls(3, kind)}, {"classes": pa.array([], kind)})
        assert all(array.size == 0 for array in state.values())
        result = ColumnAnnotator(settings, state).run(pa.table({"classes": pa.nulls(2, kind)}))
        assert concepts(result) == [None, None]


def test_other_types_and_a_threshold_without_scores_are_refused():
    with pytest.raises(ValueError, match="`classes` is a column of int64"):
        run({"classes": [1, 2]})
    with pytest.raises(ValueError, match="`sure` is a column of double"):
        run({"classes": ["a"], "sure": [0.5]}, scores="sure")
    with pytest.raises(ValueError, match=r"`threshold` is 0.5, but `scores`"):
        run({"classes": ["a"]}, threshold=0.5)
