"""Concepts per batch on real corpora: IID, CABS-DM, CABS-FM on OpenMoji, Tux Paint's stamps and OpenClipart.

Run: python tests/benchmarks/bench_coverage.py [--stamps FOLDER] [--clipart FOLDER]

Concepts are mined from the captions (of OpenClipart, which has none, from folder and file names) as the `captions`
annotator does it. A fifth of each superbatch is kept. Over the superbatches of one epoch and ten seeds it prints the
mean number of distinct concepts in a batch and of those in the rarer half of the vocabulary, with 95 % intervals over
the seeds. More concepts in a batch is what DM is for; whether that trains a better model is not measured here.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from configs.methods.annotate import Captions
from configs.methods.sample import Batches, CabsDm, CabsFm, Iid
from flows.openmoji import pictures
from tasks.annotate.captions import CaptionAnnotator
from tasks.sample.concepts import Labels, encode, row_frequencies
from tasks.sample.online import ConceptBatchSampler

SEEDS = 10
SAMPLERS: list[tuple[str, Callable[..., Batches], dict]] = [
    ("IID", Iid, {}),
    ("DM, released", CabsDm, {}),
    ("DM, printed", CabsDm, {"variant": "printed"}),
    ("DM, natural^0.5", CabsDm, {"targets": {"kind": "natural", "exponent": 0.5}}),
    ("FM", CabsFm, {}),
]


def stamps(folder: Path) -> list[str]:
    """The English captions of Tux Paint's stamps."""
    return [
        path.with_suffix(".txt").read_text(encoding="utf-8").split("\n")[0]
        for path in sorted(folder.rglob("*.png"))
        if path.with_suffix(".txt").exists()
    ]


def clipart(folder: Path) -> list[str]:
    """Folder and file names of OpenClipart as captions."""
    paths = (path.relative_to(folder).with_suffix("") for path in sorted(folder.rglob("*.png")))
    return [re.sub(r"[^a-z]+", " ", str(path).lower()) for path in paths]


def annotated(captions: list[str]) -> Labels:
    """Concepts of the captions, mined from them."""
    rows = pa.table({"text": pa.array(captions)})
    config = Captions(min_count=3)
    state = CaptionAnnotator(config).fit([CaptionAnnotator(config).summarise(rows)])
    return encode(CaptionAnnotator(config, state).run(rows).table["concepts"])


def coverage(labels: Labels, config: Batches) -> np.ndarray:
    """Mean distinct concepts and mean distinct rare concepts of a batch by seed, `(SEEDS, 2)`."""
    rows = row_frequencies(labels.offsets, labels.ids, labels.size)
    rare = np.zeros(labels.size, bool)
    rare[np.argsort(rows, kind="stable")[: labels.size // 2]] = True
    found = []
    for seed in range(SEEDS):
        batches = []
        for batch in ConceptBatchSampler(labels, config, seed=seed):
            held = np.unique(
                np.concatenate([labels.ids[labels.offsets[i] : labels.offsets[i + 1]] for i in batch] or [[]])
            )
            batches.append((len(held), int(rare[held.astype(int)].sum())))
        found.append(np.mean(batches, axis=0))
    return np.array(found)


def interval(values: np.ndarray) -> str:
    """Mean and half the width of its 95 % interval (Student's t, nine degrees of freedom)."""
    return f"{values.mean():8.1f} ± {2.262 * values.std(ddof=1) / np.sqrt(len(values)):.1f}"


def main() -> None:
    """Prints a table a corpus."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--stamps", type=Path, default=Path("/usr/share/tuxpaint/stamps"))
    parser.add_argument("--clipart", type=Path, default=Path("/usr/share/openclipart/png"))
    places = parser.parse_args()
    emoji = [picture.text for picture in pictures()]
    for name, captions, size in (
        ("OpenMoji", emoji, 128),
        ("Tux Paint", stamps(places.stamps), 32),
        ("OpenClipart", clipart(places.clipart), 256),
    ):
        if not captions:
            print(f"{name}: not there\n")
            continue
        labels = annotated(captions)
        print(
            f"{name}: {len(captions):,} rows, {labels.size:,} concepts, {len(labels.ids) / len(captions):.1f} a row; "
            f"superbatch {5 * size:,}, batch {size:,}"
        )
        print(f"{'':20}{'distinct concepts':>20}{'of the rarer half':>22}")
        for title, section, options in SAMPLERS:
            got = coverage(labels, section(**{"batch_size": size, "filter_ratio": 0.8} | options))
            print(f"{title:20}{interval(got[:, 0]):>20}{interval(got[:, 1]):>22}")
        print()


if __name__ == "__main__":
    main()
