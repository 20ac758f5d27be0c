"""The select `pools` in whole runs: few rows for a short training, many for a long one; the law, and what is told."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import corpora
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_lm import real_texts

from configs.errors import ColumnError, StageError
from flows.openmoji import write_openmoji
from storage import files
from tasks.mix import course
from tasks.mix.group_proxy import GroupProxy

IID = {"kind": "iid", "batch_size": 1}
BUCKETS, PICTURES = 5, 100
LAW = {
    "utilities": [-0.30, -0.24, -0.19, -0.15, -0.12],
    "half_lives": [1.5, 2.5, 4, 6, 8],
    "scale": 5e5 / PICTURES,
    "floor": 0.1,
}
SHAPE = {"kind": "language", "max_length": 16, "vocabulary": 400, "width": 16, "layers": 1, "heads": 2}
CURVES = {"proxy": SHAPE, "passes": 3, "train_rows": 48, "validation_rows": 32, "batch_size": 16}
CURVES |= {"learning_rate": 0.01, "device": "cpu"}


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    """Real pictures with their names, in two shards."""
    folder = tmp_path_factory.mktemp("emoji")
    write_openmoji(folder / "in", shards=2, size=32, limit=PICTURES)
    return folder


@pytest.fixture(scope="module")
def prose(tmp_path_factory):
    """Real sentences, two of three of them spoilt: letters of each word shuffled, or none of it language at all."""
    folder = tmp_path_factory.mktemp("prose")
    (folder / "in").mkdir()
    rng, words = np.random.default_rng(0), " ".join(real_texts()).split()
    lines = [" ".join(words[at : at + 10]) for at in range(0, 3600, 10)]
    shuffle = [" ".join("".join(rng.permutation(list(w))) for w in line.split()) for line in lines]
    noise = ["".join(chr(0x4E00 + i) for i in rng.integers(0, 5000, 12)) for _ in lines]
    kind = rng.integers(0, 3, len(lines))
    texts = [(line, other, bad)[k] for line, other, bad, k in zip(lines, shuffle, noise, kind)]
    quality = 1 - 0.4 * kind + 0.1 * rng.random(len(lines))
    for number, part in enumerate(np.array_split(np.arange(len(lines)), 3)):
        columns = {"text": [texts[i] for i in part], "quality": quality[part], "kind": kind[part]}
        pq.write_table(pa.table(columns), folder / "in" / f"{number}.parquet")
    return folder


def pictures(corpus, place, **select):
    """A run over pictures by the pocket model's alignment."""
    one = {"kind": "pools", "buckets": BUCKETS, **LAW, **select}
    embed = {"kind": "open_clip", "model": "pocket", "device": "cpu"}
    over = {"embed": embed, "annotate": None, "select": [one], "sample": IID}
    return corpora.config(corpus, over | places(corpus, place, {"key": None, "source": None}))


def texts(corpus, place, over=None, **select):
    """A run over texts by a column of the input."""
    one = {"kind": "pools", "score": "quality", "from_input": True, "buckets": 3, "samples_seen": 500, **select}
    whole = {"embed": None, "annotate": None, "score": [], "select": [one], "sample": IID, **(over or {})}
    return corpora.config(corpus, whole | places(corpus, place, {"image": None, "key": None, "source": None}))


def places(corpus, place, roles):
    """Store and mixes in a folder of the run's own."""
    where = {"store": f"{place}/store", "emit": {"out": f"{place}/out", "part_bytes": 200_000}}
    return where | {"input": {"path": f"{corpus}/in", **roles}}


def outcomes(mix):
    return Counter(pq.read_table(f"{mix.url}/ledger", columns=["reason"])["reason"].to_pylist())


@pytest.mark.nightly
def test_a_short_training_keeps_few_pictures_and_a_long_one_many(emoji, tmp_path):
    kept = {}
    for budget in (60, 400, 100_000):
        log: list[str] = []
        mix = corpora.run(pictures(emoji, tmp_path, samples_seen=budget), log)
        kept[budget] = mix.manifest["counts"]["kept"]
        told = [line for line in log if "the best pool" in line]
        assert len(told) == 1 and f"for {budget:,} samples seen" in told[0]
        assert outcomes(mix)["not_in_pool"] == PICTURES - kept[budget]
        table = pq.read_table(f"{mix.url}/ledger")
        scores = {name: [] for name in ("kept", "dropped")}
        for outcome, score in zip(table["outcome"].to_pylist(), table["score"].to_pylist()):
            scores[outcome].append(score)
        facts = files.read_json(f"{mix.url}/report/report.json")
        (select,) = facts["selects"]
        law = select["pools"]
        assert law["best"] * PICTURES // BUCKETS == kept[budget] and law["samples_seen"] == budget
        assert law["errors"][law["best"] - 1] == min(law["errors"]) and len(law["buckets"]) == BUCKETS
        page = Path(mix.url, "report/index.html").read_text()
        assert "Predicted error by pool" in page and f"Best pool for {budget:,} samples seen" in page
        assert select["met"] in page and page.count('class="line s') == BUCKETS
    assert list(kept.values()) == sorted(kept.values())
    assert kept[60] == 2 * PICTURES // BUCKETS and kept[100_000] == PICTURES
    assert len(set(kept.values())) == 3


def test_rows_that_stay_do_not_depend_on_shards_or_workers(emoji, tmp_path):
    table = pa.concat_tables(pq.read_table(path) for path in sorted((emoji / "in").glob("*.parquet")))
    other = tmp_path / "cut"
    (other / "in").mkdir(parents=True)
    for at in range(0, table.num_rows, 40):
        pq.write_table(table.slice(at, 40), other / "in" / f"{at:03d}.parquet")
    kept = []
    for corpus, workers in ((emoji, 1), (other, 3)):
        settings = pictures(corpus, tmp_path / corpus.name, samples_seen=300)
        mix = corpora.run(
            settings.model_copy(update={"runner": settings.runner.model_copy(update={"workers": workers})})
        )
        kept.append(sorted(pq.read_table(f"{mix.url}/data")["text"].to_pylist()))
    assert kept[0] == kept[1] and 0 < len(kept[0]) < PICTURES


@pytest.mark.nightly
def test_utilities_are_measured_and_noise_goes_first(prose, tmp_path, monkeypatch):
    settings = texts(prose, tmp_path, curves=CURVES)
    mix = corpora.run(settings)
    data = pq.read_table(f"{mix.url}/data")
    assert Counter(data["kind"].to_pylist()).most_common(1)[0][0] in (0, 1)  # language, its letters at least
    (select,) = files.read_json(f"{mix.url}/report/report.json")["selects"]
    measured = select["pools"]["measured"]
    assert measured["samples"] == [96, 144] and len(measured["errors"]) == 3
    lowest = [min(curve) for curve in measured["errors"]]
    assert lowest[2] > max(lowest[:2])  # noise teaches least
    assert not select["pools"]["buckets"][2]["kept"]
    assert "fitted to what a proxy measured" in Path(mix.url, "report/index.html").read_text()
    assert corpora.run(settings).task_runs == 0

    # Broken off in the middle of the second bucket it goes on from there, to the same state.
    monkeypatch.setattr(course, "SAVE_SECONDS", 0)
    monkeypatch.setattr(course, "SAVE_SHARE", float("inf"))
    train, steps = GroupProxy.train, []

    def broken(self, shares, count, **more):
        if len(steps) == 3:
            raise KeyboardInterrupt
        steps.append(self.step)
        return train(self, shares, count, **more)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(GroupProxy, "train", broken)
        corpora.run(texts(prose, tmp_path / "again", curves=CURVES))
    assert list((tmp_path / "again").rglob("checkpoint.npz"))
    corpora.run(texts(prose, tmp_path / "again", curves=CURVES))
    found = [{n: d for n, d in corpora.sidecars(p / "store").items()} for p in (tmp_path, tmp_path / "again")]
    assert found[0] == found[1] and any(name.endswith("state.npz") for name in found[0])


@pytest.mark.parametrize(
    ("select", "error", "told"),
    [
        ({"curves": CURVES | {"proxy": SHAPE | {"text": "words"}}}, ColumnError, "no column 'words'"),
        ({"curves": CURVES | {"proxy": SHAPE | {"text": "quality"}}}, ColumnError, "'quality' is double"),
        ({"score": "text", "curves": CURVES}, ColumnError, "'text', which is string"),
        ({"score": "alignment", "from_input": False, "curves": CURVES}, StageError, "needs the column 'alignment'"),
        ({"curves": CURVES | {"proxy": {"kind": "pairs"}}}, StageError, "needs the column 'image_embedding'"),
    ],
)
def test_what_is_missing_is_refused_before_work(prose, tmp_path, select, error, told):
    with pytest.raises(error, match=told):
        corpora.run(texts(prose, tmp_path, **select))
    assert not corpora.sidecars(tmp_path / "store")
