"""Several inputs with different columns: one run, one schema, every row with its own words."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from corpora import config, png, run

from configs.loading import ConfigError
from storage import manifests

SELECT = [{"kind": "exact_duplicates"}]
PLAIN = {
    "embed": None,
    "annotate": None,
    "score": [],
    "select": SELECT,
    "sample": {"kind": "iid", "batch_size": 4, "filter_ratio": 0.0},
}


def write(folder: Path, name: str, **columns) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / name)


@pytest.fixture
def two(tmp_path):
    """Two inputs: `web` has (jpg, alt, id, from), `books` (image, caption, and a column called alt)."""
    write(
        tmp_path / "web",
        "a.parquet",
        jpg=[png(i) for i in range(12)],
        alt=[f"web {i}" for i in range(12)],
        id=[f"w{i}" for i in range(12)],
        quality=[i / 10 for i in range(12)],
    )
    pictures = [{"bytes": png(100 + i), "path": f"{i}.png"} for i in range(12)]
    write(
        tmp_path / "books",
        "a.parquet",
        image=pictures,
        caption=[f"book {i}" for i in range(12)],
        pages=list(range(12)),
        secret=["s"] * 12,
    )
    web = {"name": "web", "path": f"{tmp_path}/web", "image": "jpg", "text": "alt", "key": "id"}
    books = {"name": "books", "path": f"{tmp_path}/books", "text": "caption", "exclude": ["secret"]}
    return tmp_path, web, books


def mixed(tmp_path, inputs, **over):
    return config(tmp_path, PLAIN | {"input": inputs} | over)


def emitted(mix) -> pa.Table:
    return pa.concat_tables(pq.read_table(f) for f in sorted(Path(mix.url, "data").glob("*.parquet")))


def test_inputs_with_different_columns_come_out_under_the_names_of_the_first(two):
    folder, web, books = two
    mix = run(mixed(folder, [web, books]))
    table = emitted(mix)
    assert table.num_rows == 24 and list(manifests.discrepancies(mix.url)) == []
    assert {"jpg", "alt", "id", "source", "quality", "pages"} <= set(table.column_names)
    assert not {"image", "caption", "secret"} & set(table.column_names)
    for row in table.to_pylist():
        kind, number = row["alt"].split()
        name = {"web": "web", "book": "books"}[kind]
        assert row["source"] == name and row["mix_file"] == f"{name}/a.parquet" and row["mix_row"] == int(number)
        assert row["jpg"]["bytes"] == png(int(number) + (100 if name == "books" else 0))
        assert row["id"] == (f"w{number}" if name == "web" else None)
        assert (row["pages"], row["quality"]) == ((int(number), None) if name == "books" else (None, int(number) / 10))
    assert dict(
        zip(*table.select(["source"]).group_by("source").aggregate([([], "count_all")]).to_pydict().values())
    ) == {
        "web": 12,
        "books": 12,
    }


def test_inputs_are_groups_that_proportions_name(two):
    folder, web, books = two
    shares = {"proportions": {"web": 0.75, "books": 0.25}, "budget": 16}
    sources = emitted(run(mixed(folder, [web, books], mix=shares)))["source"].to_pylist()
    assert sources.count("web") == 12 and sources.count("books") == 4


def test_another_column_for_a_role_is_another_shard_and_nothing_stale_is_used(two):
    folder, web, books = two
    write(
        folder / "books",
        "a.parquet",
        image=[png(i) for i in range(100, 112)],
        caption=["same"] * 12,
        alt=[f"x{i}" for i in range(12)],
    )
    first = run(mixed(folder, [web, books | {"exclude": ["alt"]}]))
    assert "same" in emitted(first)["alt"].to_pylist()
    second = run(mixed(folder, [web, books | {"text": "alt"}]))
    assert {f"x{i}" for i in range(12)} < set(emitted(second)["alt"].to_pylist())


def test_a_column_in_the_way_is_named(two):
    folder, web, books = two
    write(folder / "books", "a.parquet", image=[png(1)], caption=["c"], alt=["in the way"])
    with pytest.raises(ValueError, match=r"books/a.parquet has 2 columns named 'alt', .*`input.exclude: \[alt\]`"):
        run(mixed(folder, [web, books]))


def test_a_missing_column_is_named_as_the_input_names_it(two):
    folder, web, books = two
    with pytest.raises(
        ValueError, match=r"`input.text` is 'title', but books/a.parquet has no such column; its columns"
    ):
        run(mixed(folder, [web, books | {"text": "title"}]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": None}, "each needs a `name` of its own"),
        ({"name": "web"}, "of its own"),
        ({"text": None}, "some have none"),
    ],
)
def test_inputs_that_do_not_go_together_are_refused(two, change, said):
    folder, web, books = two
    with pytest.raises(ConfigError, match=said):
        mixed(folder, [web, books | change])


def test_faults_in_one_of_several_inputs_are_told_by_their_place(two):
    folder, web, books = two
    with pytest.raises(ConfigError, match=r"`input.1.colour` is no setting"):
        mixed(folder, [web, books | {"colour": 1}])
    with pytest.raises(ConfigError, match="`kind` must be parquet, webdataset"):
        mixed(folder, [web, books | {"kind": "cassette"}])


def test_a_file_that_two_inputs_have_is_taken_once(two):
    folder, web, _ = two
    again = web | {"name": "again"}
    mix = run(mixed(folder, [web, again]))
    table = pa.concat_tables(pq.read_table(f) for f in Path(mix.url, "ledger").glob("*.parquet"))
    twice = table.filter(pc.equal(table["reason"], "duplicate_file"))
    assert twice.num_rows == 12 and len(set(twice["keeper_file"].to_pylist())) == 1
