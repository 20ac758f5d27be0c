"""The shipped model: it loads, it is small, it knows emoji, and its card is true."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors import safe_open

from configs.methods.embed import OpenClip
from configs.pocket import FOLDER, Pocket
from flows.openmoji import write_openmoji
from tasks.embed.checkpoint import check_names, weights_digest
from tasks.embed.open_clip import OpenClipEmbedder
from tasks.embed.vectors import unpack
from tasks.train.bases import base, hold_out
from tasks.train.pocket import Trained
from tasks.train.publish import measure
from tasks.train.recall import recall

POCKET = OpenClip(model="pocket", device="cpu")
WEIGHTS = FOLDER / "open_clip_model.safetensors"
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")
FRONT = yaml.safe_load(CARD.split("---\n")[1])


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Every twentieth emoji or so, in the size of the demo."""
    corpus = pq.read_table(write_openmoji(tmp_path_factory.mktemp("input"), shards=1, limit=200)[0])
    return pa.table({"image": pa.array([i["bytes"] for i in corpus["image"].to_pylist()]), "text": corpus["text"]})


@pytest.fixture(scope="module")
def embedded(rows):
    result = OpenClipEmbedder(POCKET).run(rows)
    assert result.failures == []
    return result.table


def test_it_is_small():
    assert WEIGHTS.stat().st_size < 12_000_000
    with safe_open(WEIGHTS, "pt") as file:
        sizes = {name: np.prod(file.get_slice(name).get_shape()) for name in file.keys()}
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    parameters = sum(int(size) for name, size in sizes.items() if not name.endswith(buffers))
    assert parameters <= 5_500_000 and kinds == {"F16", "I64"}
    assert f"{parameters:,} parameters, {WEIGHTS.stat().st_size:,} bytes" in CARD


def test_pictures_and_their_names_belong_together(embedded):
    image, text = (unpack(embedded[name]).astype(np.float32) for name in ("image_embedding", "text_embedding"))
    cosine = image @ text.T
    true, false = np.diagonal(cosine), cosine[~np.eye(len(cosine), dtype=bool)]
    shuffled = cosine[np.arange(len(cosine)), np.roll(np.arange(len(cosine)), 1)]
    np.testing.assert_allclose(embedded["alignment"], true, atol=2e-3)
    assert true.mean() > shuffled.mean() + 0.3
    assert np.mean(true[:, None] > false[None, :]) > 0.95
    found = recall(image, text)
    assert found["image_to_text@5"] > 0.7 and found["text_to_image@5"] > 0.7


def test_the_name_stands_for_the_folder(rows, embedded):
    folder = OpenClip(model=f"local-dir:{FOLDER}", device="cpu")
    assert OpenClipEmbedder(folder).run(rows.slice(0, 64)).table.equals(embedded.slice(0, 64))
    assert weights_digest(POCKET) == weights_digest(folder) is not None


def test_the_report_says_what_it_is():
    assert "emoji" in OpenClipEmbedder(POCKET).notes[0] and "trained on" in OpenClipEmbedder(POCKET).notes[0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image_size": 32}, "`image_size` is 32; it must be null"),
        ({"pretrained": "openai"}, "'pocket' brings its own weights"),
        ({"model": "poket"}, "known: .*pocket"),
    ],
)
def test_what_is_refused(changes, told):
    check_names(POCKET)
    with pytest.raises(ValueError, match=told):
        check_names(POCKET.model_copy(update=changes))


def test_a_shorter_context_is_possible(rows):
    short = OpenClipEmbedder(POCKET.model_copy(update={"context_length": 8})).run(rows.slice(0, 3))
    assert short.failures == [] and np.isfinite(short.table["alignment"].to_numpy()).all()


def test_the_card_agrees_with_itself():
    figures = FRONT["recall"]
    names = ("image_to_text@1", "image_to_text@5", "text_to_image@1", "text_to_image@5")
    for row, which in (("**held out**", "held_out"), ("trained on", "trained_on")):
        assert f"| {row} | {' | '.join(f'{figures[which][name]:.3f}' for name in names)} |" in CARD
    count = FRONT["base_emoji"]
    assert f"| chance | {1 / count:.3f} | {5 / count:.3f} |" in CARD and count == figures["held_out"]["pictures"]
    config = json.loads((FOLDER / "open_clip_config.json").read_text())["model_cfg"]
    assert f"{config['text_cfg']['context_length']} of them" in CARD
    assert "\nmixwright train-pocket --out configs/models/pocket\n" in CARD
    assert all(word in CARD for word in ("CC BY-SA 4.0", "Apache 2.0", "held out", "CPU minutes"))


def test_it_has_learnt_more_than_its_own_pictures():
    held, chance = FRONT["recall"]["held_out"], 1 / FRONT["base_emoji"]
    assert held["image_to_text@1"] > 8 * chance and held["text_to_image@1"] > 8 * chance


@pytest.mark.nightly
def test_the_recall_of_the_card_can_be_measured_again(tmp_path):
    corpus = pa.concat_tables(pq.read_table(path) for path in write_openmoji(tmp_path / "input"))
    keys, config = corpus["key"].to_pylist(), Pocket()
    bases = [base(key) for key in keys]
    held = hold_out(bases, config.held_out, config.split_seed)
    again = measure(str(FOLDER), Trained(None, keys, bases, held, 0.0), corpus)
    for which, figures in FRONT["recall"].items():
        for name, value in figures.items():  # another machine rounds otherwise: one or two pictures
            assert abs(again[which][name] - value) <= 2 / FRONT["base_emoji"], (which, name)
