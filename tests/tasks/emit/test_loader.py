"""MixBatches over small mixes whose row groups and parts cut through the batches."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections import Counter

import fsspec
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from small_mixes import COLUMNS, build, draws, units
from workers import loader

from tasks.emit.loader import MixBatches
from tasks.emit.opening import find_mix


@pytest.mark.parametrize("mix_ranks", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("statistics", [True, False])
def test_ranks_are_disjoint_ordered_and_complete(tmp_path, mix_ranks, world_size, statistics):
    expected = units(build(tmp_path, ranks=mix_ranks, statistics=statistics), mix_ranks)
    count = len(expected) // world_size
    for rank in range(world_size):
        mix = MixBatches(tmp_path, rank=rank, world_size=world_size, columns=COLUMNS)
        assert len(mix) == count
        assert draws(mix) == expected[rank : count * world_size : world_size]


def test_own_rank_when_world_sizes_agree(tmp_path):
    build(tmp_path, ranks=2)
    for rank in range(2):
        for step, batch in enumerate(MixBatches(tmp_path, rank=rank, world_size=2, columns=["mix_step", "mix_rank"])):
            assert set(batch["mix_step"].tolist()) == {step}
            assert set(batch["mix_rank"].tolist()) == {rank}


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_data_loader_workers_keep_the_order(tmp_path, world_size, workers):
    expected = units(build(tmp_path, ranks=2), 2)
    count = len(expected) // world_size
    for rank in range(world_size):
        mix = MixBatches(tmp_path, rank=rank, world_size=world_size, columns=COLUMNS, start=1)
        loaded = loader(mix, workers)
        assert len(loaded) == count - 1
        assert draws(loaded) == expected[rank : count * world_size : world_size][1:]


def test_uneven_tail_is_left_out_for_every_rank(tmp_path):
    expected = units(build(tmp_path, steps=7, ranks=1), 1)
    seen = [draws(MixBatches(tmp_path, rank=rank, world_size=3, columns=COLUMNS)) for rank in range(3)]
    assert [len(batches) for batches in seen] == [2, 2, 2]
    assert Counter(tuple(batch) for batches in seen for batch in batches) == Counter(map(tuple, expected[:6]))


@pytest.mark.parametrize("world_size", [1, 2])
def test_resume_at_every_position(tmp_path, world_size):
    build(tmp_path, ranks=2)
    whole = draws(MixBatches(tmp_path, rank=0, world_size=world_size, columns=COLUMNS))
    for position in range(len(whole) + 1):
        resumed = MixBatches(tmp_path, rank=0, world_size=world_size, columns=COLUMNS, start=position)
        assert draws(resumed) == whole[position:]
        assert draws(resumed) == whole[position:]  # `start` holds for every pass

        first = MixBatches(tmp_path, rank=0, world_size=world_size, columns=COLUMNS)
        stream = iter(first)
        taken = draws(next(stream) for _ in range(position))
        second = MixBatches(tmp_path, rank=0, world_size=world_size, columns=COLUMNS)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert taken + draws(second) == whole
        assert draws(second) == whole  # a loaded state holds for one pass


@pytest.mark.parametrize("world_size", [1, 2])
def test_each_row_group_is_read_once_and_only_if_needed(tmp_path, monkeypatch, world_size):
    table = build(tmp_path, steps=6, ranks=2)
    reads: Counter = Counter()
    original = pq.ParquetFile.read_row_group

    def counting(self, group, columns=None, **options):
        if columns is None or "text" in columns:
            first = original(self, group, columns=["mix_draw"])["mix_draw"][0].as_py()
            reads[first] += 1
        return original(self, group, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    list(MixBatches(tmp_path, rank=0, world_size=world_size, columns=COLUMNS))
    assert set(reads.values()) == {1}
    groups = [(b, min(b + 5, p + 23, len(table))) for p in range(0, len(table), 23) for b in range(p, p + 23, 5)]
    ranks = table["mix_rank"].to_numpy()
    needed = {b for b, e in groups if b < e and (world_size == 1 or (ranks[b:e] == 0).any())}
    assert set(reads) == needed


def test_memory_url_and_latest(tmp_path):
    root = f"memory://{tmp_path.name}/mixes/demo"
    expected = units(build(f"{root}/v1", ranks=2), 2)
    fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/mixes/demo/latest.json", b'{"version": "v1", "rows": 3}')
    for url in (root, f"{root}/", f"{root}/v1"):
        assert find_mix(url)[0] == f"{root}/v1"
        assert draws(MixBatches(url, columns=COLUMNS)) == expected


PROGRAM = """
import json, sys
from torch.utils.data import DataLoader
from tasks.emit.loader import MixBatches
mix = MixBatches(sys.argv[1], columns=["text", "mix_draw"])
next(iter(mix))
loaded = DataLoader(mix, batch_size=None, num_workers=1, multiprocessing_context=sys.argv[2])
if __name__ == "__main__":
    print(json.dumps([batch["mix_draw"].tolist() for batch in loaded]))
"""


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_pickles_and_survives_both_start_methods(tmp_path, context):
    expected = units(build(tmp_path / "mix", ranks=1), 1)
    assert draws(pickle.loads(pickle.dumps(MixBatches(tmp_path / "mix", columns=COLUMNS)))) == expected
    (tmp_path / "train.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "train.py"), str(tmp_path / "mix"), context]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == expected, told.stderr


def test_columns_and_types(tmp_path):
    build(tmp_path, ranks=1)
    batches = list(MixBatches(tmp_path, columns=["text", "tags", "count", "score", "mix_step", "mix_uid"]))
    assert list(batches[0]) == ["text", "tags", "count", "score", "mix_step", "mix_uid"]
    assert batches[0]["count"][0] is None and isinstance(batches[0]["count"], list)
    assert batches[1]["count"].dtype == torch.int32
    assert batches[0]["score"].dtype == torch.float32 and batches[0]["score"][0].isnan()
    assert batches[1]["mix_step"].dtype == torch.int64
    assert all(isinstance(text, str) for batch in batches for text in batch["text"])
    assert all(isinstance(tags, list) for tags in batches[1]["tags"])


def shade(image: Image.Image) -> torch.Tensor:
    return torch.tensor(image.getpixel((0, 0)))


def test_images(tmp_path):
    build(tmp_path, ranks=1)
    batches = list(MixBatches(tmp_path, columns=["image", "mix_draw"]))
    for batch in batches:
        for draw, image in zip(batch["mix_draw"].tolist(), batch["image"], strict=True):
            if draw == 1:
                assert image is None
            else:
                assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (4, 3), (draw % 256, 0, 0))
    last = list(MixBatches(tmp_path, columns=["image", "mix_draw"], transform=shade))[-1]
    assert last["image"].shape == (len(last["mix_draw"]), 3)
    assert last["image"][:, 0].tolist() == [draw % 256 for draw in last["mix_draw"].tolist()]


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a mix: no mix.json"):
        MixBatches(tmp_path)
    build(tmp_path, steps=3, ranks=1)
    with pytest.raises(ValueError, match=r"`rank` is 2; it must be in \[0, 2\)"):
        MixBatches(tmp_path, rank=2, world_size=2)
    with pytest.raises(ValueError, match=r"`start` is 4; it must be in \[0, 3\]"):
        MixBatches(tmp_path, start=4)
    with pytest.raises(ValueError, match=r"`columns` has \['nope'\]; this mix has"):
        MixBatches(tmp_path, columns=["text", "nope"])
    for part in (tmp_path / "data").iterdir():
        part.unlink()
    with pytest.raises(FileNotFoundError, match="it is empty, or was copied in part"):
        MixBatches(tmp_path)


def test_a_missing_part_is_an_error_and_not_a_short_epoch(tmp_path):
    build(tmp_path, ranks=1, part_rows=8)
    sorted((tmp_path / "data").iterdir())[1].unlink()
    with pytest.raises(ValueError, match="the mix is damaged"):
        list(MixBatches(tmp_path, columns=COLUMNS))
