"""Two real corpora, whole: Tux Paint's stamps (grey with alpha, palettes, captions in many languages), OpenClipart."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from corpora import run
from PIL import Image

from configs.catalogue import all_reasons
from configs.loading import validate
from storage import manifests

STAMPS = Path(os.environ.get("TUXPAINT_STAMPS", "/usr/share/tuxpaint/stamps"))
CLIPART = Path(os.environ.get("OPENCLIPART", "/usr/share/openclipart/png"))
MAX_PIXELS = 64_000_000


def curated(folder: Path, tmp_path: Path, **over):
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: install Debian's tuxpaint-stamps-default and openclipart-png")
    values = {
        "name": "real",
        "store": f"{tmp_path}/store",
        "input": {"kind": "image_folder", "path": str(folder)} | over.pop("input", {}),
        "embed": {"kind": "open_clip", "model": "pocket", "max_pixels": MAX_PIXELS},
        "select": [{"kind": "exact_duplicates"}, {"kind": "near_duplicates", "threshold": 0.995, "keep_by": None}],
        "sample": {"kind": "iid", "batch_size": 32},
        "emit": {"out": f"{tmp_path}/out"},
    }
    mix = run(validate(values | over))
    ledger = pq.read_table(f"{mix.url}/ledger")
    told = Counter(zip(ledger["outcome"].to_pylist(), ledger["reason"].to_pylist(), strict=True))
    print(folder.name, dict(told), {stage: round(seconds, 1) for stage, seconds in mix.seconds.items()})
    assert list(manifests.discrepancies(mix.url)) == []
    assert {reason for _, reason in told if reason} <= set(all_reasons())
    return mix, ledger


def pixels(path: Path) -> int:
    """What the header claims."""
    with Image.open(path) as picture:
        return picture.width * picture.height


@pytest.mark.nightly
def test_the_stamps_lose_only_those_without_a_caption(tmp_path):
    mix, ledger = curated(
        STAMPS,
        tmp_path,
        input={"caption": "first_line"},
        annotate={"kind": "captions", "min_count": 3},
        score=[{"kind": "alignment"}],
    )
    pictures = {str(path.relative_to(STAMPS)): path for path in STAMPS.rglob("*.png")}
    modes = Counter(Image.open(path).mode for path in pictures.values())
    assert (
        modes["LA"] > 100
        and modes["P"] > 10
        and ledger.num_rows == len(pictures) == len(set(ledger["key"].to_pylist()))
    )
    bare = {name for name, path in pictures.items() if not path.with_suffix(".txt").exists()}
    lost = {row["key"]: row["reason"] for row in ledger.to_pylist() if row["outcome"] == "quarantined"}
    assert set(lost) == bare and set(lost.values()) == {"text_null"}
    assert mix.emitted > 700


@pytest.mark.nightly
def test_openclipart_loses_only_what_is_over_the_limit(tmp_path):
    Image.MAX_IMAGE_PIXELS, before = None, Image.MAX_IMAGE_PIXELS
    try:
        pictures = {str(path.relative_to(CLIPART)): path for path in CLIPART.rglob("*.png")}
        large = {name for name, path in pictures.items() if path.is_file() and pixels(path) > MAX_PIXELS}
    finally:
        Image.MAX_IMAGE_PIXELS = before
    _, ledger = curated(CLIPART, tmp_path, input={"text": None})
    assert ledger.num_rows == len(pictures) and len(large) > 3
    lost = {row["key"]: row["reason"] for row in ledger.to_pylist() if row["outcome"] == "quarantined"}
    assert set(lost) == large and set(lost.values()) == {"too_many_pixels"}
