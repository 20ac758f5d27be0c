"""IID sampling: the first b rows of each superbatch, divided among the ranks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from configs.methods import sample as methods
from tasks import load
from tasks.sample import METHODS
from tasks.sample.iid import IidSampler


@pytest.mark.parametrize(("batch_size", "filter_ratio", "world_size"), [(12, 0.0, 1), (12, 0.5, 4), (3, 0.8, 3)])
def test_takes_the_first_rows_in_order(batch_size, filter_ratio, world_size):
    config = methods.Iid(batch_size=batch_size, filter_ratio=filter_ratio, world_size=world_size)
    sampler = load(METHODS, config, seed=5)
    assert isinstance(sampler, IidSampler) and sampler.needs == () and sampler.independent
    batch = sampler.pick(pa.table({}), 3)
    assert [picks.dtype for picks in batch] == [np.int64] * world_size
    assert [len(picks) for picks in batch] == [batch_size // world_size] * world_size
    assert np.concatenate(batch).tolist() == list(range(batch_size))
    assert batch_size <= config.superbatch
