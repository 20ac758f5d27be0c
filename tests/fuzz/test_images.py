"""Mutated pictures, 500 here and 8,000 at night: no crash, no hang, no spike of memory, no row lost."""

from collections import Counter

import pyarrow as pa
import pytest
from fuzz import images
from fuzz.survival import survive

from configs.methods.embed import OpenClip
from tasks.embed.open_clip import OpenClipEmbedder
from tasks.embed.reasons import REASONS

BATCH = 16
CONFIG = OpenClip(
    model="ViT-S-32-alt", image_size=32, context_length=8, device="cpu", batch_size=BATCH, max_pixels=images.MAX_PIXELS
)
MEMORY_MB = 400
"""A picture of 4 megapixels takes up to 64, the structures of an odd JPEG 2000 up to 200."""
PRINTED = 10_000
"""Bytes that libtiff may write to standard error about one file."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    assert images.write_seeds(folder, real=False) > 60
    return str(folder)


@pytest.fixture(scope="module")
def real_corpus(tmp_path_factory):
    pytest.importorskip("resvg_py")
    folder = tmp_path_factory.mktemp("real")
    images.write_seeds(folder, real=True)
    return str(folder)


def check(results, cases):
    """That every case came to a proper end; returns how often each outcome was met."""
    assert len(results) == cases
    assert [result for result in results if result.failed] == []
    assert [result for result in results if result.memory > MEMORY_MB] == []
    assert [result for result in results if result.printed > PRINTED] == []
    counts = Counter(result.outcome for result in results)
    assert set(counts) <= {"embedded", *REASONS}
    return counts


def embed(folder, seeds, embedder, survivors):
    """Whole batches, a good picture between every two cases: what survived alone comes to the same in a batch."""
    good = images._seeds(folder)[0]
    for first in range(0, len(seeds), BATCH // 2):
        group = seeds[first : first + BATCH // 2]
        rows = [item for seed in group for item in (good, images.case(folder, seed))]
        result = embedder.run(pa.table({"image": pa.array(rows, pa.large_binary())}))
        failed = {failure.row: failure.reason for failure in result.failures}
        assert [failed.get(row, "embedded") for row in range(1, len(rows), 2)] == [survivors[seed] for seed in group]
        kept = result.table["image_embedding"].is_valid().to_pylist()
        assert kept == [row not in failed for row in range(len(rows))] and not any(row % 2 == 0 for row in failed)
        assert len({result.table["image_embedding"][row].as_py() for row in range(0, len(rows), 2)}) == 1


def test_a_few_hundred_cases(corpus):
    results = survive(images.decoded, (corpus,), range(500))
    counts = check(results, 500)
    assert counts["embedded"] > 30 and len(counts) >= 6
    survivors = {result.seed: result.outcome for result in results}
    embed(corpus, list(range(64)), OpenClipEmbedder(CONFIG, columns=("image",)), survivors)


def test_cases_are_the_same_in_every_run(corpus):
    assert len({images.case(corpus, seed) for seed in range(200)}) > 190
    assert all(images.case(corpus, seed) == images.case(corpus, seed) for seed in range(50))


@pytest.mark.nightly
def test_thousands_of_cases(real_corpus):
    results = survive(images.decoded, (real_corpus,), range(10_000, 18_000))
    counts = check(results, 8_000)
    assert counts["embedded"] > 500 and set(counts) >= {"truncated_image", "undecodable_image", "image_bomb"}
    survivors = {result.seed: result.outcome for result in results}
    embed(real_corpus, list(range(10_000, 11_000)), OpenClipEmbedder(CONFIG, columns=("image",)), survivors)
