"""Rows that mean harm, or that no one meant: refused at once, in little memory, and nothing else in their batch touched."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pictures import LIMIT, encode, heic, hostile, odd_pictures, webp_canvas, with_claim
from PIL import Image

from configs.methods.embed import OpenClip
from tasks.annotate.captions import CaptionAnnotator, Captions
from tasks.embed.decode import decode
from tasks.embed.encoder import THIN, WORD_CHARACTERS_PER_TOKEN, load_encoder
from tasks.embed.open_clip import OpenClipEmbedder
from tasks.embed.reasons import REASONS, BadImage
from tasks.embed.texts import read_texts

CONFIG = OpenClip(model="ViT-S-32-alt", image_size=64, context_length=16, device="cpu", batch_size=16)
MEMORY_MB = 48
"""What refusing a file may cost beyond the file itself."""

hostile = cache(hostile)

MEASURE = """
import gc, json, sys, time
from pictures import LIMIT, encode, hostile, odd_pictures
from tasks.embed.decode import decode
from tasks.embed.reasons import BadImage

def peak():
    found = dict(line.split(":") for line in open("/proc/self/status") if line.startswith(("VmHWM", "VmRSS")))
    return [int(found[name].split()[0]) / 1024 for name in ("VmHWM", "VmRSS")]

for odd in odd_pictures().values():
    decode(odd.data, LIMIT)  # load the libraries
measured = {}
for name, (data, _) in hostile().items():
    gc.collect()
    open("/proc/self/clear_refs", "w").write("5")  # forget the peak
    before, start, outcome = peak()[1], time.perf_counter(), "embedded"
    try:
        decode(data, LIMIT)
    except BadImage as error:
        outcome = error.reason
    measured[name] = outcome, 1000 * (time.perf_counter() - start), peak()[0] - before
json.dump(measured, sys.stdout)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from Linux's /proc")
def test_hostile_files_are_refused_in_no_time_and_no_memory():
    path = str(Path(__file__).parents[2])
    code = f"import sys; sys.path.insert(0, {path!r})\n{MEASURE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=120)
    measured = json.loads(done.stdout)
    assert {name: outcome for name, (outcome, _, _) in measured.items()} == {
        name: reason for name, (_, reason) in hostile().items()
    }
    assert {name: memory for name, (_, _, memory) in measured.items() if memory > MEMORY_MB} == {}
    assert {name: time for name, (_, time, _) in measured.items() if time > 10_000} == {}  # a guard against hangs


def test_containers_that_lie_about_what_is_coded_inside():
    large = encode(Image.new("RGB", (2100, 2100)), "AVIF")
    for width, height in ((10, 10), (100, 7), (500, 500)):
        with pytest.raises(BadImage, match="inside") as caught:
            decode(with_claim(large, width, height), LIMIT)
        assert caught.value.reason == "image_bomb"
    with pytest.raises(BadImage, match="2100 x 2100 pixels"):
        decode(with_claim(large, 500, 500), 1_000_000)
    assert decode(large, LIMIT).size == (2100, 2100)


@pytest.mark.parametrize(
    ("size", "reasons"),
    [((0, 0), {"undecodable_image"}), ((3_000, 3_000), {"image_bomb"}), ((9_000, 9_000), {"too_many_pixels"})]
    + [((60_000, 60_000), {"too_many_pixels"}), ((2**31, 2**31), {"too_many_pixels", "undecodable_image"})],
)
@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_small_files_that_claim_much(kind, size, reasons):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif")
    image = Image.new("RGB", (64, 64), (1, 200, 3))
    data = heic(image) if kind == "HEIF" else encode(image, kind)
    with pytest.raises(BadImage) as caught:
        decode(with_claim(data, *size), LIMIT)
    assert caught.value.reason in reasons


def test_heic_pictures_with_larger_ones_inside():
    pytest.importorskip("pillow_heif")
    data = heic(Image.new("RGB", (1000, 1000), (1, 200, 3)))
    with pytest.raises(BadImage) as caught:
        decode(with_claim(data, 10, 10), LIMIT)
    assert caught.value.reason == "image_bomb"


def test_many_frames_are_not_decoded():
    assert decode(webp_canvas(8, 8, frames=20_000), LIMIT).size == (8, 8)


# --------------------------------------------------------------------------------------------------- neighbours
def run(images, texts, **changes):
    rows = pa.table({"image": pa.array(images, pa.large_binary()), "text": pa.array(texts, pa.string())})
    return OpenClipEmbedder(CONFIG.model_copy(update=changes)).run(rows)


def test_every_odd_picture_is_embedded():
    odd = odd_pictures()
    result = run([picture.data for picture in odd.values()], [*odd])
    assert result.failures == []
    assert result.table["width"].to_pylist() == [picture.pixels.shape[1] for picture in odd.values()]
    assert result.table["height"].to_pylist() == [picture.pixels.shape[0] for picture in odd.values()]
    assert not any(column.null_count for column in result.table.columns)


def test_neighbours_of_hostile_rows_keep_their_bytes():
    """Every second row is hostile in one run and harmless in the other: the rest is the same to the bit."""
    rng = np.random.default_rng(3)
    bad = list(hostile().values())
    good = [encode(Image.fromarray(rng.integers(0, 256, (40, 30, 3), np.uint8))) for _ in range(2 * len(bad))]
    mixed = [item for pair in zip(good[::2], (data for data, _ in bad)) for item in pair]
    texts = [f"row {row}" for row in range(len(good))]
    clean, hurt = run(good, texts), run(mixed, texts)
    assert [(failure.row, failure.reason) for failure in hurt.failures] == [
        (2 * place + 1, reason) for place, (_, reason) in enumerate(bad)
    ]
    even = np.arange(0, len(good), 2)
    assert clean.failures == [] and hurt.table.take(even).equals(clean.table.take(even))
    assert hurt.table.take(even + 1).column("alignment").null_count == len(bad)


def test_details_are_the_same_in_every_run():
    bad = [data for data, _ in hostile().values() if len(data) < 1_000_000]
    first, second = (run(bad, [""] * len(bad), decode_threads=threads).failures for threads in (1, 4))
    assert first == second and len(first) == len(bad)


def test_reasons_of_the_table_are_those_in_use():
    used = {reason for _, reason in hostile().values()}
    assert used | {"missing_image", "missing_text", "undecodable_text", "non_finite_embedding"} == set(REASONS)


# ---------------------------------------------------------------------------------------------------- thin ones
@pytest.mark.parametrize("size", [(2, 5 * THIN), (7 * THIN, 3), (1, 600), (2_001, 1), (THIN, 1), (1, THIN + 1)])
def test_the_middle_of_a_thin_picture_is_what_the_transform_gives(size):
    encoder = load_encoder(CONFIG, "cpu")
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (size[1], size[0], 3), np.uint8))
    whole = picture
    for step in encoder._resize:
        whole = step(whole)
    off = np.abs(encoder.pixels(picture).astype(int) - np.asarray(whole))
    assert off.mean() < 2 and off.max() <= 8  # the long side of the whole was rounded to whole pixels
    giant = Image.new("RGB", (60_000, 1), (200, 0, 0))  # as a whole, 60,000 x 64 x 64 pixels
    assert (encoder.pixels(giant) == (200, 0, 0)).all()


@pytest.mark.parametrize("mode", ["longest", "squash"])
def test_other_ways_of_resizing_take_thin_pictures_too(mode, monkeypatch):
    import open_clip

    encoder = load_encoder(CONFIG, "cpu")
    transform = open_clip.image_transform(64, is_train=False, resize_mode=mode)
    monkeypatch.setattr(encoder, "_resize", transform.transforms[:-2])
    monkeypatch.setattr(encoder, "_resize_mode", mode)
    for size in ((1, 5_000), (5_000, 3), (1, 1), (64, 1), (65, 1)):
        assert encoder.pixels(Image.new("RGB", size, (200, 0, 0))).max() == 200


# --------------------------------------------------------------------------------------------------------- text
LONG = "a cat on a mat, " * 40_000
ODD_TEXTS = {
    "blank": "  \t\n ",
    "nothing": "",
    "NUL": "a\0cat",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x85 cat",
    "right to left": "\u202e\u05e9\u05dc\u05d5\u05dd cat \u200f",
    "joined emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "piled accents": "e" + "\u0301" * 50_000,
    "noncharacters": "\ufeff\ufffe\uffff cat \U0010ffff",
    "half a megabyte": LONG,
    "one word of a megabyte": "more" * 250_000,
    "one random word": "".join(np.random.default_rng(0).choice(list("abcdefghijklmnopqrstuvwxyz"), 200_000)),
    "words without blanks": "\u732b" * 100_000,
    "entities": "&amp;" * 20_000,
    "script": "<script>alert(1)</script>" * 100,
}
BROKEN_TEXTS = {
    "Latin-1": "caf\xe9".encode("latin-1"),
    "half a character": "\u732b".encode()[:2],
    "a lone surrogate": b"\xed\xa0\x80",
    "a pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "overlong": b"\xc0\x80",
    "UTF-16": "cat".encode("utf-16"),
}


def raw_texts(items):
    """An Arrow string array of bytes that nobody checked, as Parquet files may hold; None is null."""
    binary = pa.array(items, pa.binary())
    offsets = np.cumsum([0, *(len(item or b"") for item in items)]).astype(np.int32)
    content = pa.py_buffer(b"".join(item or b"" for item in items))
    return pa.StringArray.from_buffers(len(items), pa.py_buffer(offsets), content, binary.buffers()[0])


def test_odd_texts_are_embedded_and_change_no_other():
    embedder = OpenClipEmbedder(CONFIG, columns=("text",))
    texts = ["a cat", *ODD_TEXTS.values(), "a dog"]
    result = embedder.run(pa.table({"text": texts}))
    assert result.failures == [] and not result.table["text_embedding"].null_count
    alone = embedder.run(pa.table({"text": ["a cat"] + ["x"] * len(ODD_TEXTS) + ["a dog"]}))
    assert [result.table["text_embedding"][row] for row in (0, -1)] == [
        alone.table["text_embedding"][row] for row in (0, -1)
    ]
    found = dict(zip(ODD_TEXTS, result.table["text_embedding"].to_pylist()[1:-1]))
    assert found["blank"] == found["nothing"]  # no caption is the empty one: embedded, and of no use
    start = embedder.run(pa.table({"text": [LONG[:500]]})).table["text_embedding"][0].as_py()
    assert found["half a megabyte"] == start


def test_words_are_cut_far_beyond_what_is_read_of_them():
    encoder = load_encoder(CONFIG, "cpu")
    limit = WORD_CHARACTERS_PER_TOKEN * 16
    word = "".join(np.random.default_rng(0).choice(list("abcdefghijklmnopqrstuvwxyz"), 4 * limit))
    ours = encoder.tokens([word, f"one {word} two", word[:limit]])
    theirs = encoder._tokenizer([word, f"one {word} two", word])
    assert ours.equal(theirs)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_texts_that_are_not_utf8_fail_alone(kind):
    items = [b"a cat", *BROKEN_TEXTS.values(), None, b"", "\u732b".encode()]
    texts, broken = read_texts(raw_texts(items).cast(kind))
    assert list(broken) == list(range(1, len(BROKEN_TEXTS) + 1)) and all(broken.values())
    assert texts == ["a cat", *[None] * (len(BROKEN_TEXTS) + 1), "", "\u732b"]


def test_images_whose_text_is_missing_or_broken_fail_with_a_reason_and_rows_without_either_silently():
    image = encode(Image.new("RGB", (8, 8)))
    items = [b"a cat", None, b"", b"\xff", None, *BROKEN_TEXTS.values()]
    images = [image, image, image, image, None] + [image] * len(BROKEN_TEXTS)
    rows = pa.table({"image": pa.array(images, pa.binary()), "text": raw_texts(items)})
    result = OpenClipEmbedder(CONFIG).run(rows)
    assert [(failure.row, failure.reason) for failure in result.failures] == [
        (1, "missing_text"),
        *((row, "undecodable_text") for row in (3, *range(5, len(items)))),
    ]
    assert result.table["text_embedding"].is_valid().to_numpy().nonzero()[0].tolist() == [0, 2]


def test_captions_of_any_kind_are_annotated():
    annotator = CaptionAnnotator(Captions(min_count=1), CaptionAnnotator(Captions()).from_text("cat\n\u732b"))
    items = [text.encode() for text in ODD_TEXTS.values()] + list(BROKEN_TEXTS.values()) + [None, b"the cat"]
    rows = pa.table({"text": raw_texts(items)})
    result = annotator.run(rows)
    assert [(failure.row, failure.reason) for failure in result.failures] == [
        (row, "undecodable_text") for row in range(len(ODD_TEXTS), len(ODD_TEXTS) + len(BROKEN_TEXTS))
    ]
    found = dict(zip(ODD_TEXTS, result.table["concepts"].to_pylist()))
    assert found["half a megabyte"] == found["right to left"] == ["cat"] and found["blank"] == found["entities"] == []
    assert len(annotator.summarise(rows)) > 0
