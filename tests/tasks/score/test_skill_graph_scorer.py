"""The scorer by a graph of skills: its graph is that of the pure functions, however rows are cut; what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from configs.errors import ColumnError, ConfigError, ModelError, StageError
from configs.methods.embed import EmbeddingColumns, OpenClip
from configs.methods.logits import resolved
from configs.methods.skills import SkillGraph as Config
from storage import states
from storage.states import Checkpoint
from tasks import load
from tasks.annotate.entries import decode_vocabulary
from tasks.embed.vectors import pack, unpack
from tasks.score import METHODS, skills
from tasks.score.skill_graph import SkillGraph, ablated, adjacency, direction, merge

NAMES = ["ant", "bee", "cat", "dog", "eel", "fox"]
DIM = 8


def table(count: int = 120, seed: int = 0, column: str = "concepts") -> pa.Table:
    """Rows with skills, Zipf, and embeddings; some have none."""
    rng = np.random.default_rng(seed)
    lists = [[NAMES[min(i, 6) - 1] for i in rng.zipf(1.5, rng.integers(0, 5))] for _ in range(count)]
    lists[3], lists[4] = None, ["ant", None, "", " ", "bee", "ant"]
    vectors = rng.standard_normal((count, DIM)).astype(np.float16)
    there = np.ones(count, bool)
    there[[3, 10, 11]] = False
    return pa.table(
        {
            "row": np.arange(count),
            column: pa.array(lists, pa.list_(pa.string())),
            "text_embedding": pack(vectors, there),
        }
    )


def fitted(config: Config, rows: pa.Table, cuts=(50,), checkpoint=None):
    """The state of shards cut at `cuts`, through a file, as a run has it."""
    method = load(METHODS, config)
    bounds = [0, *cuts, rows.num_rows]
    parts = [rows.slice(a, b - a) for a, b in zip(bounds, bounds[1:], strict=False)]
    summaries = [method.summarise(part.select(["row", *method.needs])) for part in parts]
    return method.fit(summaries, checkpoint)


def run(config: Config, state, rows: pa.Table):
    result = SkillGraph(config, state=state).run(rows)
    assert result.failures == [] and result.table.schema.types == [pa.float32()]
    return result.table[config.name]


@pytest.mark.parametrize("parts", ["full", "nodes", "edges", "none"])
@pytest.mark.parametrize("least", [1, 9])
def test_the_score_is_that_of_the_pure_functions(parts, least):
    config = Config(parts=parts, min_cooccurrence=least, merge=0.3, pairs="ordered")
    rows = table()
    state = fitted(config, rows)
    # The same by hand: vectors, merging, graph, full product.
    lists = [[NAMES.index(w) for w in row or [] if w in NAMES] for row in rows["concepts"].to_pylist()]
    units = unpack(rows["text_embedding"]).astype(np.float64)
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-9)
    sums = np.array([sum(units[r] for r, row in enumerate(lists) if skill in row) for skill in range(6)])
    vectors = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    counts = np.array([sum(skill in row for row in lists) for skill in range(6)])
    into = merge(vectors, counts, 0.3)
    kept = np.unique(into)
    assert 1 < len(kept) < 6  # else merging is not tried
    weights = ablated(adjacency([into[row] for row in lists], 6, pairs="ordered", min_cooccurrence=least), parts)
    if parts == "none":
        weights = adjacency([[i] for i in kept], 6)
    expected = units @ direction(vectors, weights)
    found = run(config, state, rows)
    assert [i for i, score in enumerate(found.to_pylist()) if score is None] == [3, 10, 11]
    np.testing.assert_allclose(found.fill_null(0).to_numpy(), np.where(units.any(axis=1), expected, 0), atol=1e-6)
    assert sorted(decode_vocabulary(state["skills"])) == [NAMES[i] for i in kept]


@pytest.mark.parametrize("least", [1, 2])
def test_cuts_into_shards_change_no_byte(least, monkeypatch):
    rows, config = table(), Config(merge=0.3, min_cooccurrence=least)
    once = fitted(config, rows, cuts=())
    monkeypatch.setattr(skills, "BLOCK", 7)
    monkeypatch.setattr(skills, "HELD", 20)
    for cuts in [(1, 2, 3, 60), (119,)]:
        assert states.dump(fitted(config, rows, cuts)) == states.dump(once)
    # Blocks and neighbours of a row do not matter either.
    scored = run(config, once, rows)
    assert run(config, once, rows.slice(40, 1)).to_pylist() == scored.slice(40, 1).to_pylist()
    monkeypatch.undo()
    assert run(config, once, rows).equals(scored)


def test_sums_by_skill_are_the_embeddings_of_rows_to_the_byte(monkeypatch):
    """Where a shard has few skills sums are kept, elsewhere embeddings; both, mixed or not, make the same graph."""
    rows, config = table(), Config(merge=0.3, largest=5, row_skills=2)
    method = SkillGraph(config)
    parts = [rows.slice(0, 8), rows.slice(8)]
    mixed = [method.summarise(part) for part in parts]
    assert [one["sum"].null_count < one.num_rows for one in mixed] == [False, True]
    assert mixed[1]["word"].drop_null().to_pylist() == NAMES and mixed[1]["vector"].null_count == len(mixed[1])
    monkeypatch.setattr(skills, "summed", lambda labels, column: (None, None))
    plain = [method.summarise(part) for part in parts]
    assert states.dump(method.fit(mixed)) == states.dump(method.fit(plain))


def test_shards_without_embeddings_count_and_give_no_direction():
    rows, method = table(), SkillGraph(Config(merge=None))
    for size in (8, 60):  # as embeddings, as sums
        unseen = rows.slice(0, size).set_column(2, "text_embedding", pa.nulls(size, pa.binary(2 * DIM)))
        found = method.fit([method.summarise(unseen), method.summarise(rows.slice(size))])
        assert found["rows"].tolist() == fitted(Config(merge=None), rows)["rows"].tolist()
        assert found["direction"].any()


class Read(list):
    """Summaries that note which columns a pass asks for."""

    def __init__(self, tables):
        super().__init__(tables)
        self.passes = []

    def __iter__(self):
        self.passes.append(None)
        return super().__iter__()

    def only(self, *columns):
        self.passes.append(columns)
        return [one.select(columns) for one in list.copy(self)]


def test_counting_reads_lists_alone():
    rows, method = table(), SkillGraph(Config())
    read = Read([method.summarise(rows)])
    assert states.dump(method.fit(read)) == states.dump(fitted(Config(), rows))
    assert read.passes == [("skills",), None, ("skills",)]


def test_rows_in_any_order_and_tables_in_many_chunks_give_the_same_graph():
    rows, config = table(), Config()
    order = np.random.default_rng(5).permutation(rows.num_rows)
    chunks = pa.concat_tables([rows.slice(0, 33), rows.slice(33)])
    one = states.dump(fitted(config, rows))
    assert states.dump(fitted(config, rows.take(pa.array(order)))) == one
    assert states.dump(fitted(config, chunks, ())) == one


def test_shards_without_rows_or_skills_are_nothing():
    rows = table()
    method = SkillGraph(Config())
    bare = rows.set_column(1, "concepts", pa.nulls(rows.num_rows, pa.list_(pa.string())))
    parts = [method.summarise(part) for part in (rows.slice(0, 0), bare, rows, rows.schema.empty_table())]
    state = method.fit(parts)
    assert states.dump(state) == states.dump(fitted(Config(), rows))
    assert run(Config(), state, rows.slice(0, 0)).to_pylist() == []


def test_a_column_of_the_input_is_asked_for_and_other_list_types_are_read():
    rows, config = table(column="tags"), Config(skills="tags", name="by_tags")
    method = SkillGraph(config)
    assert (method.needs, method.input_columns) == (("tags", "text_embedding"), ("tags",))
    assert method.provides == ("by_tags",) == (config.column,)
    expected = states.dump(fitted(config, rows))
    for kind in (pa.large_list(pa.large_string()), pa.list_(pa.dictionary(pa.int32(), pa.string()))):
        if pa.types.is_large_list(kind):
            other = rows["tags"].cast(kind)
        else:
            other = pa.array(rows["tags"].to_pylist(), kind)
        method.check_columns(pa.schema([("tags", kind)]))
        assert states.dump(fitted(config, rows.set_column(1, "tags", other))) == expected
    assert SkillGraph(Config()).input_columns == ()


def test_only_the_first_skills_of_a_row_and_the_commonest_of_all_count(tmp_path):
    lines = []
    config = Config(row_skills=2, merge=None, min_cooccurrence=2)
    rows = table()
    checkpoint = Checkpoint(str(tmp_path / "c.npz"), lines.append)
    state = fitted(config, rows, checkpoint=checkpoint)
    cut = [list(dict.fromkeys(w for w in row or [] if w and w.strip()))[:2] for row in rows["concepts"].to_pylist()]
    shortened = rows.set_column(1, "concepts", pa.array(cut, pa.list_(pa.string())))
    assert states.dump(fitted(config, shortened)) == states.dump(state)
    more = sum(len(set(row or []) - {None, "", " "}) > 2 for row in rows["concepts"].to_pylist())
    assert lines == [f"skill_graph: 6 skills, 0 of them merged; of {more} rows with more than 2 the first count"]
    few = fitted(Config(largest=2, merge=None), rows)
    counts = {name: sum(name in (row or []) for row in rows["concepts"].to_pylist()) for name in NAMES}
    assert decode_vocabulary(few["skills"]) == sorted(NAMES, key=lambda name: (-counts[name], name))[:2]


def test_skills_that_are_not_utf8_are_left_out():
    words = pa.Array.from_buffers(pa.binary(), 3, pa.array([b"ant", b"\xff\xfe", b"bee"]).buffers()).view(pa.string())
    labels, _ = skills.read(pa.ListArray.from_arrays(pa.array([0, 2, 3]), words), 9)
    assert [labels.words[int(i)].as_py() for i in labels.ids] == ["ant", "bee"]
    assert labels.offsets.tolist() == [0, 1, 2]


# ------------------------------------------------------------------------------------------------------------ reference
def reference(folder: Path, lists, name="skills") -> str:
    pq.write_table(
        pa.table({"id": range(len(lists)), name: pa.array(lists, pa.list_(pa.string()))}), folder / "r.parquet"
    )
    return str(folder / "r.parquet")


def test_a_reference_makes_the_graph_and_the_rows_the_vectors(tmp_path):
    rows = table()
    url = reference(tmp_path, [["ant", "bee"], ["bee", "unknown"], ["bee"]])
    state = fitted(Config(reference=url, merge=None), rows)
    names = decode_vocabulary(state["skills"])
    assert dict(zip(names, state["rows"].tolist(), strict=True)) == {"bee": 3, "ant": 1, "unknown": 1}
    own = fitted(Config(merge=None), rows)
    assert state["direction"].shape == own["direction"].shape and (state["direction"] != own["direction"]).any()


def test_the_reference_counts_by_its_content(tmp_path):
    (tmp_path / "b").mkdir()
    one, same = reference(tmp_path, [["ant"]]), reference(tmp_path / "b", [["ant"]])
    facts = [SkillGraph(Config(reference=url)).depends_on() for url in (one, same)]
    assert facts[0] == facts[1] and Config(reference=one).output_fields() == Config(reference=same).output_fields()
    reference(tmp_path, [["bee"]])
    assert SkillGraph(Config(reference=one)).depends_on() != facts[0]


def test_references_that_cannot_be_used(tmp_path):
    def told(url, **settings):
        with pytest.raises((ConfigError, ColumnError)) as error:
            method = SkillGraph(Config(reference=url, **settings))
            method.depends_on()
            method.check()
        return str(error.value)

    assert "no such file" in told(str(tmp_path / "none.parquet"))
    url = reference(tmp_path, [["ant"]])
    assert "has no column 'tags'; name one of id, skills in `reference_column`" in told(url, reference_column="tags")
    assert "is a column of int64; skills must be lists of strings" in told(url, reference_column="id")
    (tmp_path / "text.parquet").write_text("no table")
    assert "is no Parquet file" in told(str(tmp_path / "text.parquet"))


# ---------------------------------------------------------------------------------------------------------------- names
TOWER = OpenClip(model="pocket", device="cpu")


def test_names_are_embedded_by_the_text_tower_and_parts_are_kept(tmp_path, monkeypatch):
    from tasks.annotate import zero_shot
    from tasks.embed.encoder import load_encoder

    url = reference(tmp_path, [["cat face", "dog face"], ["dog face"], ["red apple"], []])
    config = resolved(Config(vectors="names", reference=url, merge=None, against="image"), TOWER)
    method = SkillGraph(config)
    assert method.needs == ("image_embedding",) and method.device == "cpu"
    method.check()
    assert not method.learns_from_rows and SkillGraph(Config(reference=url)).learns_from_rows
    empty = pa.table({"row": [1, 2], "image_embedding": pa.nulls(2, pa.binary(4))})
    assert method.summarise(empty).num_rows == 0
    monkeypatch.setattr(zero_shot, "PART_TEXTS", 2)
    checkpoint = Checkpoint(str(tmp_path / "c.npz"))
    state = method.fit([method.summarise(empty)], checkpoint)
    assert sorted(checkpoint.load()) == ["part-0", "part-1"]
    names = decode_vocabulary(state["skills"])
    assert names == ["dog face", "cat face", "red apple"]
    encoder = load_encoder(TOWER, "cpu")
    vectors = encoder.submit(None, encoder.tokens(names)).result()["text"]
    sets = [[1, 0], [0], [2]]
    np.testing.assert_allclose(state["direction"], direction(vectors, adjacency(sets, 3)), atol=1e-5)
    # A fit that broke off takes what is saved.
    checkpoint.save({"part-0": checkpoint.load()["part-0"] * 0, "part-1": checkpoint.load()["part-1"]})
    again = method.fit([], checkpoint)
    assert (again["direction"] != state["direction"]).any()


def test_names_need_a_model():
    config = Config(vectors="names")
    with pytest.raises(
        StageError, match="`vectors: names`, but `embed` does not say which model .* name it in `encoder`"
    ):
        resolved(config, EmbeddingColumns(image="i"))
    assert resolved(config, TOWER).encoder == TOWER
    named = Config(vectors="names", encoder=TOWER)
    assert resolved(named, EmbeddingColumns(image="i")) is named
    assert resolved(Config(), EmbeddingColumns(image="i")) == Config()
    with pytest.raises(ValidationError, match="only `vectors: names` has a use for"):
        Config(encoder=TOWER)
    with pytest.raises(ValidationError, match="`template` is 'no place'"):
        Config(template="no place")


# --------------------------------------------------------------------------------------------------------------- errors
def test_graphs_that_cannot_be():
    rows = table()
    none = rows.set_column(1, "concepts", pa.array([[]] * rows.num_rows, pa.list_(pa.string())))
    with pytest.raises(StageError, match="no row of `concepts` has a skill"):
        fitted(Config(), none)
    with pytest.raises(StageError, match="no row of `concepts` has a skill"):
        SkillGraph(Config()).fit([])
    unseen = rows.set_column(2, "text_embedding", pa.nulls(rows.num_rows, pa.binary(2 * DIM)))
    with pytest.raises(StageError, match="no row has both a skill of the graph and a text embedding"):
        fitted(Config(), unseen)
    with pytest.raises(StageError, match="no two skills meet in 500 rows; lower `min_cooccurrence`"):
        fitted(Config(parts="edges", min_cooccurrence=500), rows)
    with pytest.raises(ColumnError, match="`tags` is a column of string; skills must be lists of strings"):
        SkillGraph(Config(skills="tags")).check_columns(pa.schema([("tags", pa.string())]))


def test_embeddings_of_another_width_are_refused():
    state = fitted(Config(), table())
    other = pa.table({"concepts": [["ant"]], "text_embedding": pack(np.ones((1, 3)), np.ones(1, bool))})
    with pytest.raises(ModelError, match="text embeddings have 3 dimensions, skills' vectors 8"):
        run(Config(), state, other)
