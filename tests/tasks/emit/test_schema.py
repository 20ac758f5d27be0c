import pyarrow as pa
import pytest
from datasets import Features

from tasks.emit.schema import Passing, conform, mix_schema

HF_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def build(columns, **changes):
    schemas = {f"{i}.parquet": pa.schema(list(c.items())) for i, c in enumerate(columns)}
    exclude, as_json = {*changes.get("exclude", [])}, changes.get("unsupported") == "json"
    passing = {file: Passing(schema, exclude, as_json) for file, schema in schemas.items()}
    return mix_schema(passing, changes.get("image", "image"), ["alignment"])


BASE = {"image": pa.binary(), "text": pa.string()}


def test_types_of_all_files_meet_and_missing_columns_become_null():
    schema = build([BASE | {"n": pa.int32()}, BASE | {"n": pa.int64(), "tag": pa.dictionary(pa.int8(), pa.string())}])
    assert schema.field("n").type == pa.int64() and schema.field("tag").type == pa.string()
    assert schema.field("image").type == HF_IMAGE and schema.field("alignment").type == pa.float32()
    inputs = pa.schema([schema.field(n) for n in ("image", "text", "n", "tag")])
    table = conform(
        pa.table({"image": [b"x", None], "text": ["a", "b"], "n": pa.array([1, 2], pa.int32())}), inputs, "image"
    )
    assert table.to_pylist() == [
        {"image": {"bytes": b"x", "path": None}, "text": "a", "n": 1, "tag": None},
        {"image": None, "text": "b", "n": 2, "tag": None},
    ]


def test_types_without_common_ground_are_refused_with_both_files():
    with pytest.raises(ValueError, match=r"'n' is int64 in 0.parquet and string in 1.parquet"):
        build([BASE | {"n": pa.int64()}, BASE | {"n": pa.string()}])


@pytest.mark.parametrize("other", [pa.float64(), pa.uint64()])
def test_numbers_that_would_lose_digits_are_refused(other):
    with pytest.raises(ValueError, match="'n' is int64 in 0.parquet and"):
        build([BASE | {"n": pa.int64()}, BASE | {"n": other}])


UNREADABLE = {
    "map": pa.map_(pa.string(), pa.int64()),
    "inside": pa.list_(pa.struct([("m", pa.map_(pa.string(), pa.int64()))])),
    "fixed": pa.binary(16),
    "interval": pa.month_day_nano_interval(),
    "view": pa.string_view(),
}


@pytest.mark.parametrize("name", sorted(UNREADABLE))
def test_what_datasets_cannot_read_is_refused_or_becomes_json(name):
    columns = [BASE | {"odd": UNREADABLE[name]}]
    with pytest.raises(ValueError, match=r"cannot read .* back. Leave it out with `input.exclude: \[odd\]`"):
        build(columns)
    assert build(columns, unsupported="json").field("odd").type == pa.string()
    assert "odd" not in build(columns, exclude=["odd"]).names


READABLE = [
    pa.int8(),
    pa.float16(),
    pa.bool_(),
    pa.date32(),
    pa.time64("us"),
    pa.timestamp("ns", "UTC"),
    pa.duration("s"),
]
READABLE += [pa.decimal128(5, 2), pa.large_string(), pa.large_binary(), pa.list_(pa.float32()), pa.list_(pa.int8(), 3)]
READABLE += [pa.large_list(pa.string()), pa.struct([("a", pa.list_(pa.struct([("b", pa.null())])))])]


@pytest.mark.parametrize("kind", READABLE, ids=str)
def test_what_is_let_through_datasets_can_read(kind):
    schema = build([BASE | {"odd": kind}])
    features = Features.from_arrow_schema(schema)
    assert "odd" in features and type(features["image"]).__name__ == "Image"


def test_maps_become_json_text():
    schema = pa.schema([("odd", pa.string())])
    table = pa.table({"odd": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64()))})
    assert conform(table, schema, None)["odd"].to_pylist() == ['[["a", 1]]', None]


@pytest.mark.parametrize("name", ["mix_step", "alignment"])
def test_names_that_the_mix_uses_are_refused(name):
    with pytest.raises(ValueError, match=rf"{name}.*has a name that the mix uses; leave it out"):
        build([BASE | {name: pa.int64()}])


def test_types_told_from_values_meet_in_the_wider_one():
    one = pa.schema([("text", pa.string()), ("n", pa.int64()), ("mixed", pa.bool_()), ("tags", pa.list_(pa.string()))])
    two = pa.schema([("text", pa.string()), ("n", pa.float64()), ("mixed", pa.int64()), ("tags", pa.null())])
    passing = {name: Passing(schema, set(), False, converted=True) for name, schema in (("a", one), ("b", two))}
    schema = mix_schema(passing, None, [])
    assert [schema.field(n).type for n in ("n", "mixed", "tags")] == [pa.float64(), pa.string(), pa.list_(pa.string())]
    inner = pa.schema([schema.field(name) for name in one.names])
    rows = pa.table([["t"], [3], [True], [["x"]]], schema=one)
    assert conform(rows, inner, None).to_pylist() == [{"text": "t", "n": 3.0, "mixed": "true", "tags": ["x"]}]
    strict = passing | {"b": Passing(two, set(), False)}
    with pytest.raises(ValueError, match="the column 'n' is int64 in a and double in b"):
        mix_schema(strict, None, [])


def told(*kinds):
    passing = {str(i): Passing(pa.schema([("n", kind)]), set(), False, converted=True) for i, kind in enumerate(kinds)}
    return mix_schema(passing, None, []).field("n").type


@pytest.mark.parametrize(
    ("kinds", "met"),
    [
        ((pa.int32(), pa.int32()), pa.int32()),
        ((pa.int32(), pa.null()), pa.int32()),
        ((pa.int32(), pa.int64()), pa.int64()),
        ((pa.int64(), pa.float32()), pa.float64()),
        ((pa.list_(pa.int32()), pa.large_list(pa.float32())), pa.list_(pa.float64())),
        ((pa.large_string(), pa.string()), pa.string()),
        ((pa.int32(), pa.string()), pa.string()),
        ((pa.int64(), pa.uint64()), pa.string()),
    ],
)
def test_widths_that_nobody_has_chosen_meet_without_becoming_text(kinds, met):
    assert told(*kinds) == told(*reversed(kinds)) == met


def test_lists_of_large_whole_numbers_become_floats_where_json_had_both():
    rows = pa.table({"n": pa.array([[2**53 + 1], None], pa.list_(pa.int64()))})
    inner = pa.schema([("n", pa.list_(pa.float64()))])
    assert conform(rows, inner, None)["n"].to_pylist() == [[float(2**53)], None]
