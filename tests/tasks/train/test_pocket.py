"""Training: same seed, same weights; a stopped one goes on to the same weights; what is published is what was trained."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

from configs.pocket import FOLDER, Pocket
from flows.openmoji import other_names, write_openmoji
from tasks.train import pocket
from tasks.train.dictionary import Entry, entries
from tasks.train.pocket import build, train
from tasks.train.publish import Workshop, make, words

ENTRIES = [Entry(["otter"], "a mammal that swims"), Entry(["oak", "oak tree"], "a tree"), Entry(["bun"], "small bread")]
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 4, "head_width": 32},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return pq.read_table(write_openmoji(tmp_path_factory.mktemp("input"), shards=1, size=32, limit=90)[0])


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(pocket, "entries", lambda: ENTRIES)
    shipped = json.loads((FOLDER / "open_clip_config.json").read_text())
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "open_clip_config.json").write_text(json.dumps({**shipped, "model_cfg": TINY}))
    return Pocket(
        architecture=str(tmp_path / "tiny"), dictionary_steps=3, steps=5, batch_size=8, warmup=2, checkpoint_every=2
    )


def trained(config, corpus, checkpoint, tell=lambda line: None):
    return train(config, corpus, other_names(), str(checkpoint), tell)


def same(first, second):
    """Whether two models have the same weights, bit by bit."""
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_seed_is_all_that_decides(config, corpus, tmp_path):
    torch.manual_seed(1)
    first = trained(config, corpus, tmp_path / "a")
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert same(first.model, trained(config, corpus, tmp_path / "b").model)
    other = trained(config.model_copy(update={"seed": 1}), corpus, tmp_path / "c")
    assert not same(first.model, other.model)
    assert np.array_equal(first.held, other.held)  # the split has a seed of its own
    start = build(config.architecture, 0)[0].state_dict()
    moved = [name for name, tensor in first.model.state_dict().items() if not torch.equal(tensor, start[name])]
    assert {name.partition(".")[0] for name in moved} >= {"visual", "transformer", "token_embedding", "logit_scale"}


class Stopped(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2, 3, 4, 7])
def test_a_stopped_training_goes_on_to_the_same_weights(config, corpus, tmp_path, monkeypatch, after):
    """Stopped in the dictionary, between it and the pictures, in the pictures; before, at and after a checkpoint."""
    monkeypatch.setattr(pocket, "TOLD_EVERY", 1)
    lines = []

    def stop(line):
        if line.startswith(f"step {after + 1} of 8"):  # before the checkpoint of this step is written
            raise Stopped

    with pytest.raises(Stopped):
        trained(config, corpus, tmp_path / "stopped", stop)
    assert (tmp_path / "stopped").exists() is (after >= 2)
    again = trained(config, corpus, tmp_path / "stopped", lines.append)
    if after >= 2:
        assert lines[0] == f"going on after step {after // 2 * 2} of 8"
    assert lines[-1].startswith("step 8 of 8: loss ")
    assert same(again.model, trained(config, corpus, tmp_path / "whole").model)
    first, second = load_file(tmp_path / "stopped"), load_file(tmp_path / "whole")
    assert [n for n in first if n != "cpu_seconds" and not torch.equal(first[n], second[n])] == []


def test_a_finished_training_is_not_done_again(config, corpus, tmp_path, monkeypatch):
    first = trained(config, corpus, tmp_path / "a")
    monkeypatch.setattr(pocket.Training, "advance", None)
    again = trained(config, corpus, tmp_path / "a")
    assert same(first.model, again.model) and 0 < again.cpu_seconds <= first.cpu_seconds


def test_nothing_held_out_is_learnt_from(config, corpus, tmp_path, monkeypatch):
    seen = []
    advance = pocket.Training.advance

    def spy(training):
        seen.append(set(training._pairs.bases))
        return advance(training)

    monkeypatch.setattr(pocket.Training, "advance", spy)
    done = trained(config, corpus, tmp_path / "a")
    held = {base for base, is_held in zip(done.bases, done.held) if is_held}
    assert len(held) == round(0.1 * len(set(done.bases))) and not held & set.union(*seen)


def test_it_learns(config, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(pocket, "TOLD_EVERY", 30)
    lines = []
    more = config.model_copy(update={"steps": 90, "batch_size": 32, "learning_rate": 5e-3, "dictionary_weight": 0.0})
    trained(more, corpus, tmp_path / "a", lines.append)
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in lines]
    assert losses[-1] < 0.9 * np.log(32) and losses[-1] < losses[1]


def test_a_checkpoint_is_tensors_and_nothing_else(config, corpus, tmp_path):
    trained(config, corpus, tmp_path / "a")
    tensors = load_file(tmp_path / "a")
    assert int(tensors["done"]) == 8 and float(tensors["cpu_seconds"]) > 0
    assert {name.partition(".")[0] for name in tensors} == {
        "model",
        "optimiser",
        "dictionary_scale",
        "done",
        "cpu_seconds",
    }


def test_what_is_published(config, corpus, tmp_path):
    lines = []
    shop = Workshop(corpus, other_names(), str(tmp_path / "work"), lines.append)
    facts = make(config.model_copy(update={"other_seeds": 1, "held_out": 0.3}), shop, str(tmp_path / "out"), "do it")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "README.md",
        "open_clip_config.json",
        "open_clip_model.safetensors",
    ]
    weights = load_file(tmp_path / "out" / "open_clip_model.safetensors")
    assert {tensor.dtype for name, tensor in weights.items() if "num_batches" not in name} == {torch.float16}
    assert facts["bytes"] == (tmp_path / "out" / "open_clip_model.safetensors").stat().st_size
    card = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["recall"] == facts["recall"]
    assert front["recall"]["held_out"]["pictures"] == front["base_emoji"] == front["recall"]["trained_on"]["pictures"]
    assert "```sh\ndo it\n```" in card and "With 1 further seeds and splits, 2 trainings in all" in card
    assert len({line for line in lines if line.startswith("step 8")}) == 2

    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    make(config.model_copy(update={"held_out": 0.3}), shop, str(tmp_path / "again"), "do it")
    assert (tmp_path / "again" / "open_clip_model.safetensors").read_bytes() == before["open_clip_model.safetensors"]
    assert "further seeds" not in (tmp_path / "again" / "README.md").read_text()


def test_the_dictionary():
    found = entries()
    assert len(found) > 21_000 and all(entry.words[0] and entry.definition for entry in found)
    assert Entry(["wombat"], "burrowing herbivorous Australian marsupials about the size of a badger") in found


def test_words():
    assert words("Keycap: 5 (o’clock)") == {"keycap", "5", "o", "clock"}


def test_methods_know_no_prefect():
    code = "import sys, tasks.train.publish; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_picture_that_cannot_be_read_is_named(config, corpus, tmp_path):
    row = {"image": {"bytes": b"GIF", "path": ""}, "text": "a", "key": "1F600", "source": "x"}
    broken = pa.Table.from_pylist([row], schema=corpus.schema)
    with pytest.raises(ValueError, match="the picture 1F600 cannot be decoded"):
        trained(config, pa.concat_tables([corpus, broken]), tmp_path / "a")
