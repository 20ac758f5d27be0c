"""Concepts that people bring: columns as DataConcept has them, vocabularies and their cleaning, through a whole run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import config, png, run

from configs.errors import ColumnError, ConfigError, StageError
from flows.freezing import frozen_url, mapping_url
from storage import manifests, states
from tasks.annotate.entries import decode_vocabulary
from tasks.emit.loader import MixBatches

NAMES = ["hot_dog", "Hot Dog", "cat", "skateboards", "skateboard", "zebra"]


def write(folder: Path, shards: int = 2, rows: int = 24) -> Path:
    """Rows with the fields of DataConcept: `classes` with repeats, `scores`, `bounding_boxes`, `tags` joined."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        rng = np.random.default_rng(shard)
        counts = rng.integers(0, 5, rows)
        classes = [rng.choice(NAMES, n).tolist() for n in counts]
        columns = {
            "image": [png(shard * 1000 + row) for row in range(rows)],
            "text": [f"caption {row} of a {(classes[row] or ['thing'])[0]}" for row in range(rows)],
            "classes": pa.array(classes, pa.list_(pa.string())),
            "scores": pa.array([rng.random(n).astype(np.float32) for n in counts], pa.list_(pa.float32())),
            "bounding_boxes": pa.array([rng.random((n, 4)).tolist() for n in counts], pa.list_(pa.list_(pa.float64()))),
            "tags": [" | ".join(found) for found in classes],
        }
        pq.write_table(pa.table(columns), folder / f"{shard:05d}.parquet")
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write(tmp_path / "in")
    return tmp_path


def settings(place: Path, annotate: dict, **over):
    sample = {"kind": "cabs_dm", "batch_size": 4, "filter_ratio": 0.5}
    plain = {"input": {"key": None, "source": None}, "embed": None, "score": [], "select": [], "sample": sample}
    made = plain | {"annotate": annotate} | over
    return config(place, made)


def mixed(url: str) -> pa.Table:
    return pq.read_table(Path(url) / "data").combine_chunks()


def concepts(place: Path, kind: str) -> list:
    """The concepts of all rows of the one annotation of this kind in the store, in order of the inputs' digests."""
    (folder,) = (path for path in Path(place, "store/annotate", kind).iterdir() if path.name[0] != "_")
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file)["concepts"].to_pylist()]


def flat(rows: list) -> set:
    return {concept for row in rows for concept in row or ()}


def test_boxes_and_whatever_else_a_row_has_are_in_the_mix_as_they_were(place):
    annotate = {"kind": "column", "column": "classes", "scores": "scores", "threshold": 0.3}
    mix = run(settings(place, annotate))
    table = mixed(mix.url)
    files = [pq.read_table(file) for file in sorted((place / "in").glob("*.parquet"))]
    assert 8 <= len(table) <= 48
    for name in ("bounding_boxes", "classes", "scores", "tags", "text"):
        for got, file, row in zip(
            table[name].to_pylist(), table["mix_file"].to_pylist(), table["mix_row"].to_pylist(), strict=True
        ):
            assert got == files[int(file[:5])][name][row].as_py()
    assert table.schema.field("bounding_boxes").type == pa.list_(pa.list_(pa.float64()))
    expected = {
        concept
        for file in files
        for row, scores in zip(file["classes"].to_pylist(), file["scores"].to_pylist(), strict=True)
        for concept, score in zip(row, scores, strict=True)
        if score >= np.float32(0.3)
    }
    assert flat(concepts(place, "column")) == expected


def test_tags_joined_by_bars_are_the_same_concepts_as_lists(place):
    run(settings(place, {"kind": "column", "column": "tags"}))
    lists = [row for file in sorted((place / "in").glob("*")) for row in pq.read_table(file)["classes"].to_pylist()]
    assert sorted(concepts(place, "column")) == sorted(lists)


def test_merged_concepts_of_a_column_are_frozen_and_new_shards_change_nothing(place):
    annotate = {"kind": "column", "column": "classes", "cleaning": "merge"}
    wanted = settings(place, annotate)
    log: list[str] = []
    run(wanted, log)
    assert any("mining the vocabulary" in line for line in log)
    found = flat(concepts(place, "column"))
    assert found in ({"hot dog", "cat", "skateboard", "zebra"}, {"hot dog", "cat", "skateboards", "zebra"})
    url = frozen_url(wanted)
    before, mapping = Path(url).read_bytes(), Path(mapping_url(url)).read_text()
    assert mapping.startswith("name\tconcept\twhy\trows\n") and "\talike\t" in mapping
    assert sum(int(line.split("\t")[3]) for line in mapping.splitlines()[1:] if line.startswith("cat\t")) == sum(
        "cat" in row for file in (place / "in").glob("*") for row in pq.read_table(file)["classes"].to_pylist()
    )
    first = sorted(concepts(place, "column"))
    schema = pq.read_schema(place / "in" / "00000.parquet")
    more = {"classes": [["Brand_New", "SKATEBOARDS"]] * 8, "text": [f"t{i}" for i in range(8)]}
    more |= {"image": [png(9000 + i) for i in range(8)], "scores": [[0.5, 0.5]] * 8, "tags": ["x"] * 8}
    more |= {"bounding_boxes": [[[0.0] * 4] * 2] * 8}
    pq.write_table(pa.table(more, schema=schema), place / "in" / "00002.parquet")
    again: list[str] = []
    run(wanted, again)
    assert "annotate: 1 of 3 shards to do" in again and not any("mining" in line for line in again)
    assert Path(url).read_bytes() == before
    merged = next(iter(found & {"skateboard", "skateboards"}))
    assert sorted(concepts(place, "column")) == sorted([*first, *[["brand new", merged]] * 8])
    Path(mapping_url(url)).unlink()
    run(wanted)
    assert Path(mapping_url(url)).read_text() == mapping


def test_an_all_null_column_gives_no_concepts_and_says_so(place):
    for file in (place / "in").glob("*.parquet"):
        table = pq.read_table(file)
        nulls = pa.nulls(len(table), pa.list_(pa.string()))
        pq.write_table(table.set_column(table.schema.get_field_index("classes"), "classes", nulls), file)
    log: list[str] = []
    mix = run(settings(place, {"kind": "column", "column": "classes", "cleaning": "merge"}), log)
    assert "mining found no concept: no row has concepts" in log
    assert set(map(str, concepts(place, "column"))) == {"None"} and mix.emitted > 0


def test_a_missing_column_is_refused_before_work(place):
    with pytest.raises(ValueError, match="no column 'clases'"):
        run(settings(place, {"kind": "column", "column": "clases", "cleaning": "merge"}))
    assert not list((place / "store").rglob("*.npz"))


def test_the_mapping_lies_beside_a_given_vocabulary_and_cleaning_makes_another(place):
    (place / "words.txt").write_text("\n".join([*NAMES, "", "hot_dog"]))
    urls = {}
    for cleaning, expected in (
        ("none", ["hot_dog", "hot dog", "cat", "skateboards", "skateboard", "zebra"]),
        ("names", ["hot dog", "cat", "skateboards", "skateboard", "zebra"]),
        ("merge", ["hot dog", "cat", "skateboards", "zebra"]),
    ):
        annotate = {"kind": "captions", "vocabulary": f"{place}/words.txt", "cleaning": cleaning}
        wanted = settings(place, annotate)
        run(wanted)
        urls[cleaning] = frozen_url(wanted)
        assert decode_vocabulary(states.load(urls[cleaning])["vocabulary"]) == expected
        lines = Path(mapping_url(urls[cleaning])).read_text().splitlines()
        assert len(lines) == 8 and lines[7].endswith("\trepeated\t") and lines[4].split("\t")[0] == "skateboards"
    assert len(set(urls.values())) == 3
    exact = {"kind": "captions", "vocabulary": f"{place}/words.txt", "cleaning": "none", "lowercase": False}
    assert frozen_url(settings(place, exact)) not in urls.values()


def test_a_vocabulary_that_cleaning_empties_is_refused(place):
    (place / "words.txt").write_text("_\n__\n")
    with pytest.raises(ConfigError, match="there is no concept in it, write one a line"):
        run(settings(place, {"kind": "captions", "vocabulary": f"{place}/words.txt"}))


def test_remining_writes_the_mapping_anew(place):
    annotate = {"kind": "captions", "min_count": 2, "max_words": 1}
    wanted = settings(place, annotate)
    run(wanted)
    mapping = Path(mapping_url(frozen_url(wanted)))
    first = mapping.read_text()
    assert "caption\tcaption\t\t48" in first
    write(place / "in", shards=3)
    run(settings(place, annotate | {"remine": True}))
    assert "caption\tcaption\t\t72" in mapping.read_text()


def test_two_inputs_of_which_one_has_no_concepts_are_refused_before_work(place):
    bare = pq.read_table(place / "in" / "00001.parquet").drop_columns(["classes"])
    (place / "other").mkdir()
    pq.write_table(bare, place / "other" / "00000.parquet")
    inputs = [{"name": name, "path": str(place / folder)} for name, folder in (("web", "in"), ("books", "other"))]
    over = {"embed": None, "score": [], "select": [], "annotate": {"kind": "column"}, "input": inputs}
    with pytest.raises(ColumnError, match=r"books/00000\.parquet has no column 'classes', which `annotate` names"):
        run(config(place, over))
    assert not list((place / "store").rglob("*.parquet"))


def test_emitted_rows_carry_their_concepts_if_asked(place):
    over = {"emit": {"concepts": True}, "sample": {"kind": "iid", "batch_size": 4}}
    mix = run(settings(place, {"kind": "column"}, **over))
    table = mixed(mix.url)
    assert table["mix_concepts"].to_pylist() == table["classes"].to_pylist() and table.num_rows == 48
    assert table.schema.field("mix_concepts").type == pa.list_(pa.string())
    assert next(manifests.discrepancies(mix.url), None) is None
    batch = next(iter(MixBatches(mix.url, columns=["mix_concepts", "classes"])))
    assert batch["mix_concepts"] == batch["classes"]
    other = run(settings(place, {"kind": "column"}, sample=over["sample"]))
    assert other.url != mix.url and "mix_concepts" not in mixed(other.url).column_names
    with pytest.raises(StageError, match="`emit.concepts` asks for concepts, which nothing makes"):
        run(config(place, over | {"annotate": None, "embed": None, "score": [], "select": []}))
