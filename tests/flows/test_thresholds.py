"""Thresholds of single concepts through the pipeline: what they change, and what is refused before any work."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from corpora import config, run, sidecars, write_corpus

from configs.errors import ConfigError
from flows.freezing import frozen_url

WORDS = ["red square", "blue noise", "green dots", "a cat", "nothing at all"]
TOWER = {"kind": "open_clip", "model": "ViT-S-32-alt", "image_size": 64, "context_length": 16, "device": "cpu"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a tiny corpus in `in` and a vocabulary in `words.txt`."""
    write_corpus(tmp_path / "in", shards=2, count=15)
    (tmp_path / "words.txt").write_text("\n".join(WORDS))
    return tmp_path


def settings(place: Path, **annotate):
    wanted = {"kind": "zero_shot", "vocabulary": f"{place}/words.txt", "top_k": 2} | annotate
    sample = {"kind": "cabs_fm", "batch_size": 4, "filter_ratio": 0.5}
    return config(place, {"embed": TOWER, "annotate": wanted, "select": [], "sample": sample})


def concepts(place: Path) -> list[list[list[str] | None]]:
    """The concepts of all rows, of every annotation in the store."""
    folders = [path for path in Path(place, "store/annotate/zero_shot").iterdir() if path.name[0] != "_"]
    files = [sorted(folder.glob("*.parquet")) for folder in folders]
    return [[row for file in found for row in pq.read_table(file)["concepts"].to_pylist()] for found in files]


def test_what_the_file_says_counts_and_not_where_it_is(place, tmp_path_factory):
    (place / "own.txt").write_text("a cat\t1\nred square\t1\n")
    chosen = settings(place, thresholds=f"{place}/own.txt")
    run(chosen)
    (found,) = concepts(place)
    assert {name for row in found if row for name in row} == set(WORDS) - {"a cat", "red square"}
    assert all(len(row) == 2 for row in found if row is not None) and found.count(None) == 2
    assert frozen_url(chosen) == frozen_url(settings(place))  # class embeddings are the same
    assert run(settings(place, thresholds={"red square": 1, "a cat": 1})).task_runs == 0
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(place / "in", other / "in")
    shutil.copy(place / "words.txt", other)
    shutil.copy(place / "own.txt", other / "moved.txt")
    run(settings(other, thresholds=f"{other}/moved.txt"))
    assert sidecars(place / "store") == sidecars(other / "store")

    (place / "own.txt").write_text("a cat\t1\n")
    log: list[str] = []
    run(chosen, log)
    assert "annotate: 2 of 2 shards to do" in log and not any("making the state" in line for line in log)
    assert len(concepts(place)) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [("a cat\t0.2\na cat\t0.3", "line 2: 'a cat' was in line 1"), ("a dog\t0.2", "'a dog'"), (None, "no such file")],
)
def test_refused_before_any_work(place, text, says):
    if text is not None:
        (place / "own.txt").write_text(text)
    with pytest.raises(ConfigError, match=says):
        run(settings(place, thresholds=f"{place}/own.txt"))
    assert not (place / "store").exists()
