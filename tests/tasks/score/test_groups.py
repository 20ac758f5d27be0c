"""Groups by cluster and by concept: labels of every row, the same for any cut into shards."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from clumps import clumps
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.methods.grouping import ClusterGroups, ConceptGroups, ScoreGroups
from storage.states import Checkpoint
from tasks import load, score
from tasks.embed.vectors import pack
from tasks.score.clusters import WITHOUT, nearest

ROWS, DIM = 600, 24


def embedded(image=None, text=None, missing=()):
    """Rows with uids and packed embeddings; `missing` are null."""
    rng = np.random.default_rng(3)
    some = image if image is not None else text
    valid = ~np.isin(np.arange(len(some)), missing)
    uids = pa.array([rng.bytes(16) for _ in range(len(some))], pa.binary(16))
    columns = {"uid": uids, "row": np.arange(len(some))}
    for name, vectors in (("image_embedding", image), ("text_embedding", text)):
        if vectors is not None:
            columns[name] = pack(vectors, valid)
    return pa.table(columns)


def fitted(config, parts, heard=None):
    """The state, of shards as they are cut."""
    method = load(score.METHODS, config)
    summaries = [method.summarise(part) for part in parts]
    return method.fit(summaries, Checkpoint("nowhere", (heard if heard is not None else []).append))


def labelled(config, parts, heard=None):
    """The labels of all rows."""
    method = load(score.METHODS, config, state=fitted(config, parts, heard))
    tables = [method.run(part.select(method.needs)).table for part in parts]
    assert [table.column_names for table in tables] == [[config.column]] * len(parts)
    assert all(pa.types.is_dictionary(table.schema.field(0).type) for table in tables)
    found = pa.concat_tables([table.cast(pa.schema([(config.column, pa.string())])) for table in tables])
    assert found[config.column].null_count == 0
    return found[config.column].to_pylist()


def cut(rows, ends):
    """Slices of a table."""
    edges = [0, *sorted(ends), rows.num_rows]
    return [rows.slice(a, b - a) for a, b in zip(edges, edges[1:], strict=False)]


# ------------------------------------------------------------------------------------------------------------ clusters
def blobs(count=ROWS, dim=DIM, number=4, seed=1):
    """Well separated clumps, and which each row is of."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, number, count)
    centres = 8 * np.eye(number, dim)
    return (centres[which] + rng.standard_normal((count, dim)) * 0.3).astype(np.float32), which


def test_clumps_are_found_and_rows_without_an_embedding_are_apart():
    vectors, which = blobs()
    vectors[9] = 0
    vectors[10] = np.inf
    found = np.array(labelled(ClusterGroups(clusters=4), [embedded(vectors, missing=[7, 8])]))
    assert set(found[[7, 8, 9, 10]]) == {WITHOUT} and (np.delete(found, [7, 8, 9, 10]) != WITHOUT).all()
    sound = np.delete(np.arange(ROWS), [7, 8, 9, 10])
    pairs = set(zip(found[sound].tolist(), which[sound].tolist(), strict=True))
    assert len(pairs) == 4 and {label for label, _ in pairs} == {f"cluster {i}" for i in range(4)}


@pytest.mark.parametrize("vectors", ["image", "text", "both"])
def test_any_cut_into_shards_gives_the_same_clusters(vectors):
    rows = embedded(clumps(ROWS, DIM, 9, 0), clumps(ROWS, DIM, 5, 1), missing=[3])
    config = ClusterGroups(clusters=12, vectors=vectors, train_rows=250)
    whole = labelled(config, [rows])
    assert len(set(whole)) == 13 and min(whole) == WITHOUT and "cluster 03" in whole
    for ends in ([100], [1, 2, 3, 599], range(50, 600, 50)):
        assert labelled(config, cut(rows, ends)) == whole
    order = np.random.default_rng(0).permutation(ROWS)
    assert labelled(config, [rows.take(order)]) == [whole[i] for i in order]


def test_copies_have_one_cluster_however_they_lie():
    vectors = clumps(ROWS, DIM, 9, 0)
    rows = embedded(vectors)
    twice = pa.concat_tables([rows, rows])
    config = ClusterGroups(clusters=8, train_rows=300)
    found = labelled(config, [twice])
    assert found[:ROWS] == found[ROWS:]
    assert labelled(config, [rows, rows]) == found


def test_one_uid_for_other_vectors_depends_on_no_order():
    """Uids that collide stand by the bytes of their vectors."""
    vectors = clumps(ROWS, DIM, 9, 0)
    rows = embedded(vectors).set_column(0, "uid", pa.array([bytes(16)] * ROWS, pa.binary(16)))
    config = ClusterGroups(clusters=6, train_rows=ROWS)
    order = np.random.default_rng(1).permutation(ROWS)
    assert [labelled(config, [rows])[i] for i in order] == labelled(config, cut(rows.take(order), [200]))


def test_the_seed_matters_and_train_rows_bounds_the_sample():
    rows = embedded(clumps(ROWS, DIM, 9, 0))
    one, other = (labelled(ClusterGroups(clusters=8, seed=seed), [rows]) for seed in (0, 1))
    assert one != other
    method = load(score.METHODS, ClusterGroups(train_rows=100))
    assert method.summarise(rows).num_rows == 100


def test_fewer_distinct_vectors_than_clusters_are_their_own_centres():
    vectors = np.repeat(np.eye(3, DIM, dtype=np.float32), 20, axis=0)
    found = labelled(ClusterGroups(clusters=8), [embedded(vectors)])
    assert len(set(found)) == 3 and all(len(set(found[i : i + 20])) == 1 for i in (0, 20, 40))
    nothing = embedded(np.zeros((5, DIM), np.float32))
    assert labelled(ClusterGroups(), [nothing]) == [WITHOUT] * 5
    assert labelled(ClusterGroups(), [nothing.slice(0, 0), nothing]) == [WITHOUT] * 5


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 99))
def test_the_nearest_centre_is_that_of_float64_and_of_no_other_row(count, centres, seed):
    """Centres that are all but equal, so that float32 alone could not tell."""
    rng = np.random.default_rng(seed)
    unit = rng.standard_normal((count, 16)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    around = (unit[:1] + 1e-7 * rng.standard_normal((centres, 16))).astype(np.float32)
    wanted = [(around.astype(np.float64) * row).sum(axis=1).argmax() for row in unit]
    assert nearest(unit, around).tolist() == wanted
    assert [nearest(unit[i : i + 1], around)[0] for i in range(count)] == wanted


# ------------------------------------------------------------------------------------------------------------ concepts
def with_concepts(lists):
    return pa.table({"concepts": pa.array(lists, pa.list_(pa.string())), "row": np.arange(len(lists))})


LISTS = [["dog"], ["dog", "cat"], ["cat"], ["dog", "zebra"], ["dog"], None, [], ["yak"], ["cat", "yak", "yak"]]


def test_a_row_is_of_the_rarest_of_the_commonest_concepts_that_it_has():
    """dog 4, cat 3, yak 2, zebra 1 rows."""
    found = labelled(ConceptGroups(count=3), [with_concepts(LISTS)])
    assert found == ["dog", "cat", "cat", "dog", "dog", "(other)", "(other)", "yak", "yak"]
    assert labelled(ConceptGroups(count=1, others="rest"), [with_concepts(LISTS)]) == [
        *["dog", "dog", "rest", "dog", "dog"],
        *["rest"] * 4,
    ]


def test_ties_go_by_code_point():
    lists = [["b", "a"], ["a"], ["b"], ["Z"], ["Z"], ["é"]]
    assert labelled(ConceptGroups(count=2), [with_concepts(lists)]) == ["a", "a", "(other)", "Z", "Z", "(other)"]
    assert labelled(ConceptGroups(count=3), [with_concepts(lists)])[0] == "b"  # later by code point: the rarer


def test_given_concepts_are_the_groups_and_what_no_row_has_is_told():
    heard: list[str] = []
    config = ConceptGroups(concepts=["cat", "zebra", "dgo", "lynx"])
    found = labelled(config, [with_concepts(LISTS)], heard)
    assert found == ["(other)", "cat", "cat", "zebra", "(other)", "(other)", "(other)", "(other)", "cat"]
    assert heard == ["score/concept_group: no row has 'dgo' (did you mean 'dog'?); 'lynx'"]


def test_the_group_of_the_others_is_called_like_no_concept():
    with pytest.raises(ConfigError, match=r"`others` is 'dog', which is a concept that is a group itself; give"):
        labelled(ConceptGroups(others="dog"), [with_concepts(LISTS)])
    with pytest.raises(ValueError, match="`others` is 'cat', which is one of `concepts`; give it another name"):
        ConceptGroups(concepts=["cat"], others="cat")


def test_no_concept_at_all_makes_one_group():
    assert labelled(ConceptGroups(), [with_concepts([None, []])]) == ["(other)"] * 2
    assert labelled(ConceptGroups(), [with_concepts([])]) == []


@given(
    st.lists(st.none() | st.lists(st.sampled_from("abcdef\0é "), max_size=4), max_size=25),
    st.integers(1, 5),
    st.lists(st.integers(0, 25), max_size=3),
)
def test_it_is_the_definition_for_any_cut_into_shards(lists, count, ends):
    rows_of: dict[str, int] = {}
    for one in lists:
        for concept in set(one or []):
            rows_of[concept] = rows_of.get(concept, 0) + 1
    common = sorted(rows_of, key=lambda c: (-rows_of[c], c))[:count]
    wanted = [max((c for c in one or [] if c in common), key=common.index, default="(other)") for one in lists]
    table = with_concepts(lists)
    assert labelled(ConceptGroups(count=count), [table]) == wanted
    assert labelled(ConceptGroups(count=count), cut(table, [min(e, len(lists)) for e in ends])) == wanted


# ---------------------------------------------------------------------------------------------------- buckets of a score
def scored(values):
    rng = np.random.default_rng(5)
    uids = pa.array([rng.bytes(16) for _ in values], pa.binary(16))
    return pa.table({"uid": uids, "quality": pa.array(values, pa.float32()), "row": np.arange(len(values))})


@given(
    values=st.lists(st.one_of(st.none(), st.integers(0, 4), st.just(float("nan"))), max_size=40),
    buckets=st.integers(2, 6),
    data=st.data(),
)
def test_buckets_of_a_score_are_equal_and_ordered_for_any_cut(values, buckets, data):
    rows, config = scored(values), ScoreGroups(score="quality", buckets=buckets)
    ends = data.draw(st.lists(st.integers(0, len(values)), max_size=3))
    found = labelled(config, cut(rows, ends))
    assert found == labelled(config, [rows])
    known = [value is not None and value == value for value in values]
    assert [label == "(no score)" for label in found] == [not one for one in known]
    count = min(buckets, sum(known))
    groups = [[v for v, label in zip(values, found) if label == f"quality {i + 1} of {count}"] for i in range(count)]
    assert sum(map(len, groups)) == sum(known)
    if count:
        assert max(map(len, groups)) - min(map(len, groups)) <= 1
        for better, worse in zip(groups, groups[1:]):
            assert min(better) >= max(worse)
