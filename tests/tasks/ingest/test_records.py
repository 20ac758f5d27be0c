"""Types of fields do not depend on order or slicing; what JSON can hold at its worst has a defined end."""

from __future__ import annotations

import json
import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ingest import TypesChanged, fields, records
from tasks.ingest.records import Row, Unusable, bare, extension, parse, slices

SCALARS = [pa.null(), pa.bool_(), pa.int64(), pa.float64(), pa.string()]
TYPES = [*SCALARS, *(pa.list_(kind) for kind in SCALARS), pa.binary()]

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**65), 2**65), st.floats(allow_nan=False), st.text(max_size=3)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
)
objects = st.dictionaries(st.sampled_from(["a", "b", "c", "ü"]), values, max_size=4)


@given(st.sampled_from(TYPES), st.sampled_from(TYPES), st.sampled_from(TYPES))
def test_types_form_a_lattice(a, b, c):
    assert fields.join(a, a) == a and fields.join(a, b) == fields.join(b, a)
    assert fields.join(fields.join(a, b), c) == fields.join(a, fields.join(b, c))


@pytest.mark.parametrize(
    ("column", "kind", "out"),
    [
        ([None, None], pa.null(), [None, None]),
        ([1, None, -2], pa.int64(), [1, None, -2]),
        ([True, None], pa.bool_(), [True, None]),
        ([1, 2.5, None], pa.float64(), [1.0, 2.5, None]),
        ([2**53 + 1, 0.5], pa.float64(), [float(2**53 + 1), 0.5]),
        ([True, 1], pa.string(), ["true", "1"]),
        (["a", 1, None, 2.0, False], pa.string(), ["a", "1", None, "2.0", "false"]),
        ([2**63, 1], pa.string(), [str(2**63), "1"]),
        ([2**63, 1.5], pa.string(), [str(2**63), "1.5"]),
        ([-(2**63), 2**63 - 1], pa.int64(), [-(2**63), 2**63 - 1]),
        ([{"b": 1, "a": "ü"}], pa.string(), ['{"a": "ü", "b": 1}']),
        ([[1, 2], [], None], pa.list_(pa.int64()), [[1, 2], [], None]),
        ([[1, None], [0.5]], pa.list_(pa.float64()), [[1.0, None], [0.5]]),
        ([["a"], ["b", None]], pa.list_(pa.string()), [["a"], ["b", None]]),
        ([[], [None]], pa.list_(pa.null()), [[], [None]]),
        ([["a", 1]], pa.string(), ['["a", 1]']),
        ([["a"], [1]], pa.string(), ['["a"]', "[1]"]),
        ([[[1]]], pa.string(), ["[[1]]"]),
        ([[2**64]], pa.string(), [f"[{2**64}]"]),
        ([[1], 1], pa.string(), ["[1]", "1"]),
        ([b"\xff", None, "ü", 1], pa.binary(), [b"\xff", None, "ü".encode(), b"1"]),
    ],
)
def test_values_of_a_column_meet_in_one_type(column, kind, out):
    for order in (column, column[::-1]):
        one_by_one = fields.join(*(fields.of([value]) for value in order))
        assert fields.of(order) == one_by_one == kind
    found = fields.array(column, kind)
    assert found.type == kind and found.to_pylist() == out


@given(st.lists(values, max_size=6), st.randoms(use_true_random=False))
def test_the_type_depends_on_no_order_and_holds_every_value(column, random):
    kind = fields.of(column)
    shuffled = random.sample(column, len(column))
    cut = random.randint(0, len(column))
    assert kind == fields.of(shuffled) == fields.join(fields.of(shuffled[:cut]), fields.of(shuffled[cut:]))
    found = fields.array(column, kind).to_pylist()
    for value, got in zip(column, found):
        if kind == pa.string():
            assert got == (value if value is None or isinstance(value, str) else fields.text(value))
        elif kind in (pa.float64(), pa.list_(pa.float64())):
            assert got == (value if not isinstance(value, int) else float(value)) or isinstance(value, list)
        else:
            assert got == value and type(got) is type(value)


def rows(found):
    return [Row(record, 10) for record in found]


def read(found, types=None):
    """All slices, read again with wider types if need be; how often that was."""
    types, again = types or {}, 0
    while True:
        try:
            return list(slices(iter(rows(found)), types)), again
        except TypesChanged as changed:
            assert set(types) <= set(changed.types)
            types, again = changed.types, again + 1


@given(st.lists(objects, max_size=12), st.integers(1, 5))
def test_slicing_changes_no_value_and_one_more_reading_is_enough(found, size):
    with pytest.MonkeyPatch.context() as patch:
        (whole,), again = read(found)
        assert again == 0
        patch.setattr(records, "SLICE_ROWS", size)
        cut, again = read(found)
    assert again <= 1 and all(one.table.num_rows <= size for one in cut)
    assert pa.concat_tables(one.table for one in cut).equals(whole.table)
    assert whole.table.column_names == list(dict.fromkeys(name for record in found for name in record))


def test_a_slice_ends_before_its_bytes_are_too_many(monkeypatch):
    monkeypatch.setattr(records, "SLICE_BYTES", 100)
    sizes = [60, 40, 1, 200, 1, 99, 1]
    found = list(slices((Row({"n": size}, size) for size in sizes), {}))
    assert [one.table["n"].to_pylist() for one in found] == [[60, 40], [1], [200], [1, 99], [1]]


def test_failures_count_from_the_first_row_of_all(monkeypatch):
    monkeypatch.setattr(records, "SLICE_ROWS", 2)
    bad = Unusable("bad", "why")
    made = [Row({"a": 1}, 1), Row({}, 0, bad), Row({"a": 2}, 1), Row({}, 0, bad), Row({}, 0, bad)]
    found = list(slices(made, {}))
    assert [[tuple(f) for f in one.failures] for one in found] == [
        [(1, "bad", "why")], [(3, "bad", "why")], [(4, "bad", "why")],
    ]  # fmt: skip


def test_no_rows_are_one_slice_with_the_columns_there_must_be():
    (found,) = slices([], {"text": pa.string()})
    assert found.table.schema == pa.schema([("text", pa.string())]) and found.table.num_rows == 0


def test_keys_of_a_dictionary_that_stand_as_fields_fail_their_rows_alone(monkeypatch):
    monkeypatch.setattr(records, "MOST_FIELDS", 4)
    found = [{"a": 1}, {"key": "k", "b": 2, "c": 3, "d": 4}, {"a": 5, "key": "l", "b": 6, "c": 7}, {"d": 8}]
    expected = None
    for size in (1, 2, 9):
        monkeypatch.setattr(records, "SLICE_ROWS", size)
        cut, _ = read(found, {"key": pa.string()})
        failed = [failure for one in cut for failure in one.failures]
        assert [(f.row, f.reason) for f in failed] == [(1, "too_many_fields"), (3, "too_many_fields")]
        table = pa.concat_tables(one.table for one in cut).to_pylist()
        expected = expected or table
        assert table == expected and table[1] == {"key": "k", "a": None, "b": None, "c": None}


@given(values)
def test_json_comes_back(value):
    assert parse(json.dumps(value).encode()) == value
    assert parse(b" \t" + json.dumps(value, ensure_ascii=False).encode() + b"\r") == value


@pytest.mark.parametrize(
    ("data", "reason", "said"),
    [
        (b"", "invalid_json", "no value"),
        (b"nope", "invalid_json", "no value at character 0, 'nope'"),
        (b'{"a": }', "invalid_json", "no value at character 6"),
        (b'{"a": 1', "invalid_json", "delimiter at character 7"),
        (b'{"a": 1} x', "invalid_json", "Extra data at character 8"),
        (b"{'a': 1}", "invalid_json", "property name"),
        (b'"a\tb"', "invalid_json", "Invalid control character"),
        (b"1" * 5000, "invalid_json", "limit"),
        (b"[" * 100_000, "invalid_json", "more than 100 deep"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "invalid_json", "more than 100 deep"),
        (b'"\xff"', "text_not_utf8", "byte 0xff at 1"),
        (b'"\xed\xa0\x80"', "text_not_utf8", "byte 0xed at 1"),
        ('{"a": 1}'.encode("utf-16"), "text_not_utf8", "byte 0xff at 0"),
        (rb'{"a": ["x\ud800"]}', "text_not_utf8", r"\ud800 is half of a surrogate pair"),
        (rb'{"\uDFFF": 1}', "text_not_utf8", r"\udfff is half"),
    ],
)
def test_what_is_not_json_is_told_with_its_place(data, reason, said):
    with pytest.raises(Unusable) as caught:
        parse(data)
    assert caught.value.reason == reason and said in caught.value.detail


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a": 1, "b": 2, "a": 3}', {"a": 3, "b": 2}),
        (b"[NaN, Infinity, -Infinity, 1e999]", [None, math.inf, -math.inf, math.inf]),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (rb'"\ud83d\ude00"', "😀"),
        (rb'"\\ud800"', r"\ud800"),
        (rb'"\u0000"', "\0"),
        (b"[" * 100 + b"]" * 100, eval("[" * 100 + "]" * 100)),
        (b'"' + b"[" * 500 + b'"', "[" * 500),
        (b'["' + b'\\"[' * 500 + b'", "]"]', ['"[' * 500, "]"]),
        (json.dumps([[i] for i in range(500)]).encode(), [[i] for i in range(500)]),
    ],
)
def test_json_at_its_edges(data, value):
    assert parse(data) == value


def test_brackets_and_quotes_without_end_are_told_at_once():
    for data in (b'{"' + b'\\"[' * 300_000, b"[" * 101 + b'"' * 900_000, b'"\\' * 300_000 + b"[" * 200):
        with pytest.raises(Unusable):
            parse(data)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a/b/cat.jpg", "cat.jpg"),
        ("../../etc/passwd", "passwd"),
        ("a\\..\\b.png", "b.png"),
        ("..", ""),
        ("x/..", ""),
        ("", ""),
        ("a\0b\n.png", "ab.png"),
        ("\u202egpj.exe", "gpj.exe"),
        ("猫 ü.png", "猫 ü.png"),
    ],
)
def test_a_bare_name_leads_nowhere(name, shown):
    assert bare(name) == shown
    assert len(bare(name + "é" * 500).encode()) <= 200


def test_extensions():
    assert [extension(n) for n in ("a/b.JPG", "a.b/c", "x", ".png", "a.tar.gz")] == ["jpg", "", "", "png", "gz"]
