"""Embedding with a small open_clip architecture, random weights."""

import io
import itertools
import threading

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from configs.methods.embed import OpenClip
from tasks import load
from tasks.embed import METHODS
from tasks.embed.decode import decode
from tasks.embed.encoder import load_encoder
from tasks.embed.open_clip import OpenClipEmbedder, resolved_batch_size
from tasks.embed.vectors import unpack

SMALL = {"model": "ViT-S-32-alt", "image_size": 64, "context_length": 16, "device": "cpu", "batch_size": 4}
CONFIG = OpenClip(**SMALL)


def picture(seed, size=(40, 30), mode="RGB", kind="PNG"):
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    target = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(target, kind)
    return target.getvalue()


GOOD = [
    picture(0),
    picture(1, (64, 64), kind="JPEG"),
    picture(2, mode="RGBA"),
    picture(3, mode="LA"),
    picture(4, mode="P"),
    picture(5, mode="CMYK", kind="JPEG"),
    picture(6, mode="I;16"),
    picture(7, (1, 1)),
    picture(8, (200, 20)),
    picture(9, (20, 200), kind="WEBP"),
]
TEXTS = [f"picture number {row} of {'many ' * row}" for row in range(len(GOOD))]


def table(images=GOOD, texts=TEXTS):
    return pa.table({"image": pa.array(images, pa.large_binary()), "text": pa.array(texts, pa.string())})


def run(rows, sizes=None, **changes):
    """The result for a table handed over in slices of the given sizes."""
    embedder = OpenClipEmbedder(CONFIG.model_copy(update=changes))
    bounds = np.cumsum([0, *(sizes or [len(rows)])])
    return embedder.run(rows.slice(start, stop - start) for start, stop in itertools.pairwise(bounds))


@pytest.fixture(scope="module")
def clean():
    result = run(table())
    assert result.failures == []
    return result.table


def test_schema_units_and_sizes(clean):
    assert clean.column_names == ["image_embedding", "text_embedding", "alignment", "width", "height"]
    assert clean.schema.field("text_embedding").type == pa.binary(512)
    assert clean.schema.field("text_embedding").metadata == {b"dim": b"256", b"dtype": b"float16"}
    image, text = (unpack(clean[name]).astype(np.float32) for name in ("image_embedding", "text_embedding"))
    np.testing.assert_allclose(np.linalg.norm(image, axis=1), 1, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(text, axis=1), 1, atol=2e-3)
    np.testing.assert_allclose(clean["alignment"], (image * text).sum(1), atol=2e-3)
    assert clean["width"].to_pylist() == [40, 64, 40, 40, 40, 40, 40, 1, 200, 20]
    assert clean["height"].to_pylist() == [30, 64, 30, 30, 30, 30, 30, 1, 20, 200]


def test_matches_open_clip_called_directly(clean):
    import open_clip
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, _, transform = open_clip.create_model_and_transforms(
            "ViT-S-32-alt", force_image_size=64, force_context_length=16
        )
    tokens = open_clip.get_tokenizer("ViT-S-32-alt", context_length=16)(TEXTS)
    with torch.inference_mode():
        images = torch.stack([transform(decode(data, 10**6)) for data in GOOD])
        image = model.eval().encode_image(images, normalize=True)
        text = model.encode_text(tokens, normalize=True)
    np.testing.assert_allclose(unpack(clean["image_embedding"]), image, atol=2e-3)
    np.testing.assert_allclose(unpack(clean["text_embedding"]), text, atol=2e-3)
    np.testing.assert_allclose(clean["alignment"], (image * text).sum(1), atol=1e-5)


def test_batched_preprocessing_is_the_transform_of_the_model():
    import open_clip
    import torch

    _, _, transform = open_clip.create_model_and_transforms("ViT-S-32-alt", force_image_size=64)
    encoder = load_encoder(CONFIG, "cpu")
    for data in GOOD:
        image = decode(data, 10**6)
        ours = torch.from_numpy(encoder.pixels(image).copy()).permute(2, 0, 1).contiguous()
        ours = encoder._normalise(ours.to(torch.float32).div_(255))
        assert torch.equal(ours, transform(image))


@pytest.mark.parametrize("sizes", [[1] * 10, [3, 7], [4, 4, 2], [9, 0, 1], [5, 5]])
def test_slices_of_any_size_give_the_same_bytes(clean, sizes):
    assert run(table(), sizes).table.equals(clean)


def test_a_bad_row_changes_no_other_row(clean):
    images, texts = list(GOOD), list(TEXTS)
    images[0] = b"<html>not found</html>"
    images[2] = GOOD[2][:100]
    images[3] = b""
    images[5] = None
    images[6] = texts[6] = None
    texts[8] = None
    images[9] = picture(0, (2, 90_000))
    images[4] = picture(0, (2000, 2000), mode="1")
    result = run(table(images, texts), max_pixels=3_999_999)
    assert [(failure.row, failure.reason) for failure in result.failures] == [
        (0, "not_an_image"),
        (2, "truncated_image"),
        (3, "not_an_image"),
        (4, "too_many_pixels"),
        (5, "missing_image"),
        (8, "missing_text"),
    ]
    assert "2000 x 2000" in result.failures[3].detail
    for column in result.table.columns:
        assert column.is_valid().to_numpy().nonzero()[0].tolist() == [1, 7, 9]
    assert result.table.take([1, 7]).equals(clean.take([1, 7]))


def test_neighbours_and_padding_change_nothing(clean):
    assert run(table().slice(0, 5)).table.equals(clean.slice(0, 5))
    swapped = table([*GOOD[4:8], *GOOD[:4], *GOOD[8:]], [*TEXTS[4:8], *TEXTS[:4], *TEXTS[8:]])
    assert run(swapped).table.equals(pa.concat_tables([clean[4:8], clean[:4], clean[8:]]).combine_chunks())


def test_threads_change_nothing(clean):
    assert run(table(), decode_threads=1, cpu_threads=1).table.equals(clean)
    assert run(table(), decode_threads=5, cpu_threads=3).table.equals(clean)
    results = []
    shards = [threading.Thread(target=lambda: results.append(run(table(), [6, 4]).table)) for _ in range(3)]
    for shard in shards:
        shard.start()
    for shard in shards:
        shard.join()
    assert len(results) == 3 and all(result.equals(clean) for result in results)


def test_text_alone_and_images_alone(clean):
    texts = OpenClipEmbedder(CONFIG, columns=("text",))
    assert texts.needs == ("text",) and texts.provides == ("text_embedding",)
    assert texts.run(table().select(["text"])).table.equals(clean.select(["text_embedding"]))
    images = OpenClipEmbedder(CONFIG, columns=("image",))
    assert images.needs == ("image",) and images.provides == ("image_embedding", "width", "height")
    assert images.run(iter([table().select(["image"])])).table.equals(clean.select(images.provides))
    with pytest.raises(ValueError, match="`columns` is"):
        OpenClipEmbedder(CONFIG, columns=("image", "sound"))


def test_an_empty_shard_has_the_same_schema(clean):
    assert run(table([], [])).table.schema.equals(clean.schema, check_metadata=True)
    assert OpenClipEmbedder(CONFIG).run(iter([])).table.schema.equals(clean.schema, check_metadata=True)


def test_long_and_broken_texts():
    broken = pa.StringArray.from_buffers(
        3, pa.py_buffer(np.array([0, 2, 4, 6], np.int32)), pa.py_buffer(b"ok\xff\xfeok")
    )
    rows = pa.table({"image": pa.array(GOOD[:3], pa.binary()), "text": broken})
    result = run(rows)
    assert [(failure.row, failure.reason) for failure in result.failures] == [(1, "undecodable_text")]
    assert result.table["text_embedding"].is_valid().to_pylist() == [True, False, True]
    long = "word " * 20
    embedder = OpenClipEmbedder(CONFIG, columns=("text",))
    two = embedder.run(pa.table({"text": [long, long + "and " + "more" * 1_000_000]})).table["text_embedding"]
    assert two[0] == two[1]


def test_an_embedding_that_is_not_finite_fails(monkeypatch):
    encoder = load_encoder(CONFIG, "cpu")
    forward = encoder._forward

    def poisoned(*inputs):
        embeddings = forward(*inputs)
        embeddings["text"][2, 5] = np.nan
        return embeddings

    monkeypatch.setattr(encoder, "_forward", poisoned)
    result = run(table().slice(0, 4))
    assert [(failure.row, failure.reason) for failure in result.failures] == [(2, "non_finite_embedding")]
    assert result.table["image_embedding"].is_valid().to_pylist() == [True, True, False, True]


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_a_local_checkpoint_gives_the_same_embeddings(clean, tmp_path, kind):
    import torch
    from safetensors.torch import save_file

    state = {name: tensor.contiguous() for name, tensor in load_encoder(CONFIG, "cpu")._model.state_dict().items()}
    path = str(tmp_path / f"weights.{kind}")
    (save_file if kind == "safetensors" else torch.save)(state, path)
    assert run(table(), pretrained=path, seed=99).table.equals(clean)
    assert not run(table(), seed=99).table.equals(clean)


def test_a_checkpoint_that_is_code_is_refused(tmp_path):
    import pickle

    path = tmp_path / "weights.pt"
    path.write_bytes(pickle.dumps({"state_dict": threading.Thread}, protocol=2))
    with pytest.raises(pickle.UnpicklingError):
        run(table(), pretrained=str(path))


def test_random_weights_come_from_the_seed_and_leave_the_generator_alone():
    import torch

    before = torch.random.get_rng_state()
    load_encoder(CONFIG.model_copy(update={"seed": 5}), "cpu")
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close(clean, precision):
    result = run(table(), precision=precision)
    assert result.failures == []
    ours, exact = (unpack(t["image_embedding"]).astype(np.float32) for t in (result.table, clean))
    assert (ours * exact).sum(1).min() > 0.99


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "ViT-S-32-olt"}, "`model` is 'ViT-S-32-olt'.*ViT-S-32-alt"),
        ({"model": "vit-b-32"}, "ViT-B-32"),
        ({"model": "ViT-B-32", "pretrained": "laion2b_s34b_b97k"}, "`pretrained`.*laion2b_s34b_b79k"),
        ({"pretrained": "/nowhere/weights.pt"}, "`pretrained` is '/nowhere/weights.pt', neither a file nor a tag"),
        ({"model": "local-dir:/nowhere"}, "holds no open_clip_config.json"),
        ({"model": "hf-hub:a/b", "pretrained": "openai"}, "must be null"),
    ],
)
def test_unknown_names_are_refused_with_close_matches(changes, message):
    with pytest.raises(ValueError, match=message):
        load_encoder(CONFIG.model_copy(update=changes), "cpu")


def test_a_model_folder(clean, tmp_path):
    import json

    import open_clip
    from safetensors.torch import save_file

    model_cfg = open_clip.get_model_config("ViT-S-32-alt")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": {}}))
    with pytest.raises(RuntimeError, match="could not be loaded"):  # and not random weights
        run(table(), model=f"local-dir:{tmp_path}")
    state = {name: tensor.contiguous() for name, tensor in load_encoder(CONFIG, "cpu")._model.state_dict().items()}
    save_file(state, tmp_path / "open_clip_model.safetensors")
    assert run(table(), model=f"local-dir:{tmp_path}").table.equals(clean)


def test_what_the_bytes_depend_on(tmp_path):
    facts = OpenClipEmbedder(CONFIG).depends_on()
    assert facts == {"device": "cpu", "batch_size": 4, "weights": None}
    path = tmp_path / "weights.pt"
    digests = []
    for content in (b"one", b"two", b"one"):
        path.write_bytes(content)
        digests.append(OpenClipEmbedder(CONFIG.model_copy(update={"pretrained": str(path)})).depends_on()["weights"])
    assert digests[0] == digests[2] != digests[1]
    assert load(METHODS, CONFIG, columns=("text",)).provides == ("text_embedding",)


def test_check_names_what_is_wrong():
    OpenClipEmbedder(CONFIG).check()
    with pytest.raises(ValueError, match="`model` is 'nothing'"):
        OpenClipEmbedder(CONFIG.model_copy(update={"model": "nothing"})).check()


def test_batch_size_by_device():
    assert resolved_batch_size(CONFIG, "cpu") == 4
    unset = CONFIG.model_copy(update={"batch_size": 0})
    assert (resolved_batch_size(unset, "cpu"), resolved_batch_size(unset, "cuda")) == (64, 512)


def test_other_users_of_torch_keep_their_threads():
    import torch

    torch.set_num_threads(2)
    load_encoder(CONFIG.model_copy(update={"cpu_threads": 3}), "cpu")
    seen = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert torch.get_num_threads() == 2 and seen == [2]


def test_an_error_while_reading_reaches_the_caller():
    def slices():
        yield table()
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        OpenClipEmbedder(CONFIG).run(slices())
