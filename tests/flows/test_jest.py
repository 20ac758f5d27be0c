"""JEST through the whole pipeline: a learner from `embed`, a reference from two other columns of the input."""

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
from corpora import config, digests, run, write_corpus

from configs.errors import RunFailed
from storage import manifests
from tasks.sample.jest import select_joint

SCALES = {"learner": (10.0, -3.0), "reference": (16.0, -5.0)}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A small corpus whose rows carry vectors of a second model."""
    write_corpus(tmp_path / "in", shards=3, count=40)
    for number, file in enumerate(sorted((tmp_path / "in").glob("*.parquet"))):
        table, rng = pq.read_table(file), np.random.default_rng([9, number])
        image = rng.standard_normal((len(table), 12)).astype(np.float32)
        text = image + rng.standard_normal((len(table), 12)).astype(np.float32)
        for name, vectors in (("clean_image", image), ("clean_text", text)):
            table = table.append_column(name, pa.array(list(vectors)))
        pq.write_table(table, file, row_group_size=25)
    return tmp_path


def settings(place: Path, over: dict | None = None, **sample):
    learner, reference = (dict(zip(("logit_scale", "logit_bias"), SCALES[name])) for name in ("learner", "reference"))
    wanted = {"kind": "jest", "batch_size": 8, "filter_ratio": 0.75, "chunks": 4, "learner": learner}
    wanted |= {"reference": reference | {"image": "clean_image", "text": "clean_text"}} | sample
    return config(place, {"annotate": None, "select": [], "sample": wanted} | (over or {}))


def loss(images, texts, name, rounded):
    """The sigmoid losses of all pairs, in float64; `rounded`: the vectors are float16 where they rest."""
    vectors = [np.array(column.to_pylist(), np.float64) for column in (images, texts)]
    vectors = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in vectors]
    vectors = [rows.astype(np.float16).astype(np.float64) if rounded else rows for rows in vectors]
    vectors = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in vectors]
    scale, bias = SCALES[name]
    return np.logaddexp(0, (1 - 2 * np.eye(len(images))) * (scale * vectors[0] @ vectors[1].T + bias))


def emitted(mix) -> pa.Table:
    return pq.read_table(Path(mix.url, "data"))


def test_picks_are_those_of_explicit_matrices_and_the_mix_verifies(place):
    draws = emitted(run(settings(place, {"sample": {"kind": "iid", "batch_size": 32}})))  # 32 draws a batch, in order
    mix = run(settings(place, greedy=True))
    found = emitted(mix)
    assert mix.emitted == found.num_rows == 24 and list(manifests.discrepancies(mix.url)) == []
    for step in range(3):
        drawn = draws.slice(32 * step, 32)
        learner = loss(drawn["image_emb"], drawn["text_emb"], "learner", rounded=True)
        reference = loss(drawn["clean_image"], drawn["clean_text"], "reference", rounded=False)
        picks = select_joint(learner, reference, 8, chunks=4, greedy=True)
        expected = drawn["mix_draw"].to_numpy()[picks]
        assert found["mix_draw"].to_pylist()[8 * step : 8 * step + 8] == expected.tolist()


def test_the_same_bytes_for_any_workers_and_again_for_nothing(place, tmp_path_factory):
    first = run(settings(place))
    assert run(settings(place)).task_runs == 0
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(place / "in", other / "in")
    second = run(settings(other, {"runner": {"workers": 3, "shards_per_task": 1}}))
    assert first.manifest["version"] == second.manifest["version"]
    assert digests(Path(first.url), "data", "ledger") == digests(Path(second.url), "data", "ledger")
    assert run(settings(place, {"seed": 4})).manifest["version"] != first.manifest["version"]


def test_the_reference_may_be_what_embed_made_and_columns_of_its_name_are_the_inputs(place):
    learner = {"image": "image_emb", "text": "clean_text", "logit_scale": 9}
    reference = {"image": "image_embedding", "text": "text_embedding", "logit_scale": 9}
    with pytest.raises(RunFailed, match="`image_emb` has 16 numbers and `clean_text` 12; the two columns of one model"):
        run(settings(place, learner=learner, reference=reference))
    # A score that bears the name of a column which the user names does not stand in for it.
    for file in sorted((place / "in").glob("*.parquet")):
        table = pq.read_table(file)
        pq.write_table(table.append_column("alignment", table["text_emb"]), file)
    learner["text"] = "alignment"
    assert run(settings(place, {"emit": {"scores": []}}, learner=learner, reference=reference)).emitted == 24


def test_columns_that_are_not_there_are_refused_before_any_work(place):
    reference = {"image": "clean_image", "text": "clean_words", "logit_scale": 9}
    with pytest.raises(
        ValueError,
        match=r"00000\.parquet has no column 'clean_words', which `sample` names; its columns are image, text",
    ):
        run(settings(place, reference=reference))
    with pytest.raises(ValueError, match="`sample: jest` needs the column 'image_embedding', which nothing before it"):
        run(settings(place, {"embed": None, "score": []}))
    assert not (place / "store").exists()


def test_a_dry_run_loads_no_heavy_library(place):
    (place / "mine.yaml").write_text(yaml.safe_dump(settings(place).model_dump(mode="json")))
    script = (
        "import sys, yaml; from configs.loading import validate; from flows.forecast import forecast;"
        "forecast(validate(yaml.safe_load(open(sys.argv[1]))));"
        "sys.exit(', '.join({'torch', 'open_clip', 'timm'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(place / "mine.yaml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
