"""Zero-shot concepts through the whole pipeline: the state made once, part by part, and what a change costs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from corpora import config, digests, run, sidecars, write_corpus

from configs.errors import RunFailed
from flows.forecast import forecast
from flows.freezing import frozen_url
from storage import states
from tasks.annotate import zero_shot
from tasks.annotate.entries import decode_vocabulary
from tasks.annotate.zero_shot import ZeroShotAnnotator

WORDS = ["red square", "blue noise", "green dots", "a cat", "nothing at all", "television static", "confetti"]
TOWER = {"kind": "open_clip", "model": "ViT-S-32-alt", "image_size": 64, "context_length": 16, "device": "cpu"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a tiny corpus in `in` and a vocabulary in `words.txt`."""
    write_corpus(tmp_path / "in", shards=3, count=20)
    (tmp_path / "words.txt").write_text("\n".join(WORDS))
    return tmp_path


def settings(place: Path, over: dict | None = None, **annotate):
    """Pictures embedded by a small tower with random weights, their concepts found by it."""
    wanted = {"kind": "zero_shot", "vocabulary": f"{place}/words.txt", "top_k": 2} | annotate
    sample = {"kind": "cabs_dm", "batch_size": 4, "filter_ratio": 0.5}
    base = {"embed": TOWER, "annotate": wanted, "select": [], "sample": sample}
    return config(place, base | (over or {}))


def concepts(place: Path) -> list:
    """The concepts of all rows of the one annotation in the store."""
    (folder,) = (path for path in Path(place, "store/annotate/zero_shot").iterdir() if path.name[0] != "_")
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file)["concepts"].to_pylist()]


def test_every_row_gets_its_concepts_and_a_second_run_does_nothing(place):
    log: list[str] = []
    mix = run(settings(place), log)
    assert mix.emitted >= 20
    assert any("making the state of" in line and "1 of 1 parts" in line for line in log)
    found = concepts(place)
    # One null picture in each shard: no embedding, so no concepts; that it fails is told by ingest.
    assert len(found) == 60 and sum(row is None for row in found) == 3
    assert all(len(row) == 2 and set(row) <= set(WORDS) for row in found if row is not None)
    assert len({tuple(row) for row in found if row is not None}) > 3
    assert "finds mean nothing" in Path(mix.url, "report", "index.html").read_text()
    state = states.load(frozen_url(settings(place)))
    assert decode_vocabulary(state["vocabulary"]) == WORDS and state["classes"].shape == (7, 256)
    again: list[str] = []
    assert run(settings(place), again).task_runs == 0 and not any("making the state" in line for line in again)
    assert not list(Path(place, "store").rglob("spill"))


def test_the_same_bytes_for_any_workers_and_any_shards_per_task(place, tmp_path_factory):
    first = run(settings(place, {"runner": {"workers": 1, "shards_per_task": 1}}))
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(place / "in", other / "in")
    shutil.copy(place / "words.txt", other / "moved.txt")
    over = {"runner": {"workers": 3, "shards_per_task": 3}}
    second = run(settings(other, over, vocabulary=f"{other}/moved.txt"))
    assert first.manifest["version"] == second.manifest["version"]
    assert digests(Path(first.url), "data", "ledger") == digests(Path(second.url), "data", "ledger")
    assert sidecars(place / "store") == sidecars(other / "store")


def test_another_selection_uses_the_same_class_embeddings(place):
    run(settings(place))
    log: list[str] = []
    run(settings(place, top_k=1, confidence="softmax", threshold=0.1), log)
    assert "annotate: 3 of 3 shards to do" in log and not any("making the state" in line for line in log)


def test_another_vocabulary_is_another_annotation(place):
    url = frozen_url(settings(place))
    run(settings(place))
    (place / "words.txt").write_text("\n".join(WORDS[:3]))
    assert frozen_url(settings(place)) != url
    log: list[str] = []
    run(settings(place), log)
    assert "annotate: 3 of 3 shards to do" in log and any("making the state" in line for line in log)


def test_a_crash_costs_only_the_parts_in_flight(place, monkeypatch):
    monkeypatch.setattr(zero_shot, "PART_TEXTS", 14)
    whole, build = settings(place), ZeroShotAnnotator.build
    built: list[int] = []

    def breaking(self, part):
        if part == 2 and 2 not in built:
            built.append(2)
            raise RuntimeError("the lights went out")
        built.append(part)
        return build(self, part)

    monkeypatch.setattr(ZeroShotAnnotator, "build", breaking)
    with pytest.raises(RunFailed, match=r"making the state of .*words\.txt failed: 1 failed, first 2: RuntimeError"):
        run(whole)
    log: list[str] = []
    run(whole, log)
    assert any("1 of 4 parts to do" in line for line in log) and sorted(built) == [0, 1, 2, 2, 3]


def test_a_dry_run_and_a_cached_rerun_load_no_heavy_library(place):
    chosen = settings(place)
    before = {row[0]: row[2:4] for row in forecast(chosen).rows}
    run(chosen)
    after = {row[0]: row[2:4] for row in forecast(chosen).rows}
    assert before["annotate"] == ("3 shards, 60 rows", "0 shards") and after["annotate"] == ("-", "3 shards")
    (place / "mine.yaml").write_text(yaml.safe_dump(chosen.model_dump(mode="json")))
    script = (
        "import sys, yaml; from configs.loading import validate; from flows.forecast import forecast;"
        "from flows.pipeline import curate; from flows.runners import IdleRunner;"
        "config = validate(yaml.safe_load(open(sys.argv[1]))); forecast(config); curate(config, IdleRunner(), print);"
        "sys.exit(', '.join({'torch', 'open_clip', 'timm'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(place / "mine.yaml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("over", "annotate", "says"),
    [
        ({}, {"vocabulary": "imagenet-22k"}, "there is no such file, and built in are imagenet-1k, imagenet-21k"),
        (
            {"embed": {"kind": "columns", "image": "image_emb", "text": None}},
            {},
            "does not say which model made its columns",
        ),
        (
            {"embed": {"kind": "columns", "image": None, "text": "text_emb"}},
            {"encoder": TOWER},
            "needs the column 'image_embedding'",
        ),
        ({"embed": None, "score": []}, {}, "needs image embeddings; add the section `embed`"),
        ({}, {"encoder": TOWER}, "leave it out"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(place, over, annotate, says):
    over = {"score": []} | over
    with pytest.raises(ValueError, match=says):
        run(settings(place, over, **annotate))
    assert not (place / "store").exists()


def test_embeddings_that_are_not_the_named_models_are_refused_before_its_text_tower_works(place, monkeypatch):
    monkeypatch.setattr(ZeroShotAnnotator, "build", lambda self, part: pytest.fail("it works"))
    with pytest.raises(ValueError, match="image embeddings have 16 dimensions, texts of ViT-S-32-alt have 256"):
        run(
            settings(
                place, {"embed": {"kind": "columns", "image": "image_emb", "text": None}, "score": []}, encoder=TOWER
            )
        )


def test_embeddings_made_elsewhere_work_with_the_model_named(place):
    rng = np.random.default_rng(0)
    for file in sorted((place / "in").glob("*.parquet")):
        found = pq.read_table(file)
        wide = pa.array(list(rng.standard_normal((len(found), 256)).astype(np.float32)))
        pq.write_table(found.append_column("wide", wide), file)
    run(settings(place, {"embed": {"kind": "columns", "image": "wide", "text": None}, "score": []}, encoder=TOWER))
    assert sum(row is not None and len(row) == 2 for row in concepts(place)) >= 54


def test_captions_know_the_built_in_vocabularies_too(place):
    state = frozen_url(config(place, {"annotate": {"kind": "captions", "vocabulary": "imagenet-1k"}}))
    run(config(place, {"annotate": {"kind": "captions", "vocabulary": "imagenet-1k"}, "select": []}))
    assert len(decode_vocabulary(states.load(state)["vocabulary"])) == 998
