"""The score by a graph of skills through whole runs: selects go by it, the mix carries it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import config, run, write_corpus

from configs.errors import ColumnError, ConfigError, StageError
from flows.pipeline import examine

SAMPLE = {"kind": "iid", "batch_size": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A corpus of three shards, and the same rows in two."""
    folder = tmp_path_factory.mktemp("skills")
    rows = pa.concat_tables(pq.read_table(path) for path in sorted(write_corpus(folder / "in", 3, 40).iterdir()))
    rows = rows.append_column("tags", pa.array([text.split() for text in rows["text"].to_pylist()]))
    rows = rows.append_column("untold", pa.array([[]] * rows.num_rows, pa.list_(pa.string())))
    for name, size in (("in", 40), ("cut", 61)):
        (folder / name).mkdir(exist_ok=True)
        for at in range(0, rows.num_rows, size):
            pq.write_table(rows.slice(at, size), folder / name / f"{at // size:05d}.parquet")
    return folder


def settings(place: Path, *scores, **over):
    listed = [{"kind": "skill_graph"} | score for score in scores]
    return config(place, {"score": listed, "select": [], "sample": SAMPLE, **over})


def mixed(mix) -> dict[str, dict]:
    """The rows of a mix by their keys."""
    return {row["key"]: row for row in pq.read_table(Path(mix.url) / "data").to_pylist()}


def test_selects_go_by_it_and_the_mix_carries_it(place):
    first = {"kind": "threshold", "score": "skill_graph", "keep_fraction": 0.5}
    second = {"kind": "threshold", "score": "edges", "target_rows": 24}
    scores = [{}, {"name": "edges", "parts": "edges", "against": "image"}]
    every = mixed(run(settings(place, *scores)))
    mix = run(settings(place, *scores, select=[first, second]))
    kept = mixed(mix)
    assert mix.emitted == len(kept) == 24
    best = sorted(every, key=lambda key: -every[key]["skill_graph"])[: len(every) // 2]
    assert {*kept} <= {*best} and {*kept} == {*sorted(best, key=lambda key: -every[key]["edges"])[:24]}
    assert {key: row["skill_graph"] for key, row in kept.items()} == {k: every[k]["skill_graph"] for k in kept}
    log: list[str] = []
    run(settings(place, *scores), log)
    assert log.count("score/skill_graph: all 3 shards are done") == 2  # nothing is done twice


def test_shards_that_are_cut_otherwise_give_the_same_scores(place):
    found = [
        {key: row["skill_graph"] for key, row in mixed(run(settings(place, {"skills": "tags"}, input=source))).items()}
        for source in ({"path": f"{place}/in"}, {"path": f"{place}/cut"})
    ]
    assert len(found[0]) > 110 and found[0] == found[1]


def refused(place: Path, kind: type, *scores, **over) -> str:
    with pytest.raises(kind) as error:
        examine(settings(place, *scores, **over))
    return str(error.value)


def test_what_is_refused_before_any_work(place):
    told = refused(place, StageError, {}, embed={"kind": "columns", "image": "image_emb", "text": None})
    assert "`score: skill_graph` needs the column 'text_embedding', which nothing before it makes" in told
    assert "needs the column 'concepts'" in refused(place, StageError, {}, annotate=None)
    assert "name it in `encoder`, or take `vectors: rows`" in refused(place, StageError, {"vectors": "names"})
    assert "there is no such file" in refused(place, ConfigError, {"reference": f"{place}/none.parquet"})
    told = refused(place, ConfigError, {"reference": f"{place}/in/00000.parquet"})
    assert "has no column 'skills'; name one of image, text, key" in told
    assert "`quality` is a column of double; skills must be lists" in refused(place, ColumnError, {"skills": "quality"})
    assert "has no column 'nothing'" in refused(place, ColumnError, {"skills": "nothing"})
    assert "two settings of `merge`" in refused(place, StageError, {}, {"merge": 0.5})


def test_rows_without_any_skill_end_a_run_in_a_sentence(place):
    with pytest.raises(StageError, match="no row of `untold` has a skill; name a column that has"):
        run(settings(place, {"skills": "untold"}))


@pytest.mark.nightly
def test_names_of_a_reference_are_learned_once_whatever_shards_come(place, tmp_path, monkeypatch):
    """No row is summarised, and a shard that comes leaves the scores of the others as they are."""
    pq.write_table(pa.table({"skills": [["cat", "dog"], ["dog"]]}), tmp_path / "reference.parquet")
    (tmp_path / "in").mkdir()
    shards = sorted((place / "in").iterdir())
    tower = {"kind": "open_clip", "model": "pocket", "device": "cpu"}
    graph = {"vectors": "names", "encoder": tower, "against": "image", "reference": f"{tmp_path}/reference.parquet"}
    told: list[list[str]] = []
    for count in (2, 3):
        for shard in shards[:count]:
            (tmp_path / "in" / shard.name).write_bytes(shard.read_bytes())
        told.append([])
        run(settings(tmp_path, graph, embed={"kind": "open_clip", "model": "pocket", "device": "cpu"}), told[-1])
    assert "score/skill_graph: learning" in told[0] and "score/skill_graph: 2 of 2 shards to do" in told[0]
    assert not any("learning" in line for line in told[1]) and "score/skill_graph: 1 of 3 shards to do" in told[1]
