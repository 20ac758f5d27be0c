"""MixBatches goes on where training stopped, on other numbers of ranks and workers, in any epoch."""

from __future__ import annotations

import json
import pickle
from itertools import islice
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_mixes import build, draws, units
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader
from workers import clean

from tasks.emit import loader, passes
from tasks.emit.loader import MixBatches
from tasks.emit.order import Order

STEPS, RANKS = 13, 2
COLUMNS = ["mix_draw"]


@pytest.fixture(scope="module")
def mix(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mix")
    return folder, units(build(folder, STEPS, RANKS), RANKS)


def expected(batches, window, seed, epoch):
    order = Order(STEPS, RANKS, window, seed)
    return [batches[unit] for units in order.stretches(range(len(batches)), epoch) for unit in units]


def interleaved(ranks):
    """What the ranks consumed, in lockstep."""
    assert len({len(batches) for batches in ranks}) == 1
    return [batch for together in zip(*ranks, strict=True) for batch in together]


@settings(max_examples=30)
@given(
    hops=st.lists(st.tuples(st.integers(1, 8), st.integers(0, 4)), min_size=1, max_size=4),
    window=st.sampled_from([0, 4, 100]),
    epoch=st.integers(0, 2),
    drop_last=st.booleans(),
)
def test_ranks_come_and_go_and_no_batch_is_lost_or_twice(mix, hops, window, epoch, drop_last):
    folder, batches = mix
    options = {"columns": COLUMNS, "shuffle_window": window, "seed": 3, "drop_last": drop_last}
    whole = expected(batches, window, 3, epoch)
    state, consumed = None, []
    for world_size, count in [*hops, (1, None)]:
        loaders = [MixBatches(folder, rank=r, world_size=world_size, **options) for r in range(world_size)]
        seen = []
        for each in loaders:
            if state:
                each.load_state_dict(json.loads(json.dumps(state)))
            else:
                each.set_epoch(epoch)
            seen.append(draws(islice(each, count)))
        left = max(0, len(whole) - len(consumed))
        full = left // world_size if drop_last else -(-left // world_size)
        assert len(seen[0]) == (full if count is None else min(count, full))
        consumed += interleaved(seen)
        states = [each.state_dict() for each in loaders]
        assert all(other == states[0] for other in states), "any rank's state is all ranks' state"
        assert states[0] == loaders[0].state_after(len(seen[0]))
        state = states[0]
    assert consumed[: len(whole)] == whole
    assert consumed[len(whole) :] == whole[: len(consumed) - len(whole)], "a filled up end repeats the beginning"


def test_eight_ranks_then_three_five_and_one(mix):
    folder, batches = mix
    state, consumed = None, []
    for world_size, count in [(8, 1), (3, 2), (5, 1), (1, 99)]:
        seen = []
        for rank in range(world_size):
            each = MixBatches(folder, rank=rank, world_size=world_size, columns=COLUMNS)
            if state:
                each.load_state_dict(state)
            seen.append(draws(islice(each, count)))
            after = each.state_after(len(seen[-1]))
        consumed, state = consumed + interleaved(seen), after
    assert consumed == batches


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("world_size", [1, 3, 4, 30])
def test_a_remainder_is_left_out_or_filled_up_with_the_beginning(mix, world_size, drop_last):
    folder, batches = mix
    loaders = [
        MixBatches(folder, rank=r, world_size=world_size, columns=COLUMNS, drop_last=drop_last)
        for r in range(world_size)
    ]
    seen = [draws(each) for each in loaders]
    count = 26 // world_size if drop_last else -(-26 // world_size)
    assert [len(each) for each in loaders] == [count] * world_size == [len(batches) for batches in seen]
    assert interleaved(seen) == (batches * 2)[: count * world_size]


def test_epochs_have_orders_of_their_own_and_a_state_belongs_to_one(mix):
    folder, batches = mix
    each = MixBatches(folder, columns=COLUMNS, shuffle_window=5, seed=1)
    orders = [expected(batches, 5, 1, epoch) for epoch in range(3)]
    assert orders[0] != orders[1] != batches
    for epoch in range(3):
        each.set_epoch(epoch)
        assert draws(each) == orders[epoch]
    each.set_epoch(1)
    stream = iter(each)
    for _ in range(7):  # in the middle of a window
        next(stream)
    state = each.state_dict()

    other = MixBatches(folder, columns=COLUMNS, shuffle_window=5, seed=1)
    other.load_state_dict(state)
    other.set_epoch(1)  # as a training loop does that goes on at this epoch
    assert other.state_dict() == state
    assert draws(other) == orders[1][7:]
    other.set_epoch(2)
    assert draws(other) == orders[2]

    other.load_state_dict(state)
    other.set_epoch(2)
    assert other.state_dict()["consumed"] == 0
    assert draws(other) == orders[2], "what was loaded was for another epoch"


def test_the_end_of_an_epoch(mix):
    folder, batches = mix
    each = MixBatches(folder, rank=0, world_size=4, columns=COLUMNS)
    assert len(draws(each)) == 6
    state = each.state_dict()
    assert state["consumed"] == 24
    same = MixBatches(folder, rank=0, world_size=4, columns=COLUMNS)
    same.load_state_dict(state)
    assert draws(same) == []
    assert draws(same) == batches[:24:4]
    alone = MixBatches(folder, columns=COLUMNS)
    alone.load_state_dict(state)
    assert draws(alone) == batches[24:], "what four ranks had to leave out"


def test_a_state_is_refused_where_the_batches_would_be_others(mix, tmp_path):
    folder, _ = mix
    state = MixBatches(folder, columns=COLUMNS).state_dict()
    MixBatches(folder, seed=1).load_state_dict(state)  # nothing is shuffled
    shuffled = MixBatches(folder, shuffle_window=9).state_dict()
    with pytest.raises(ValueError, match="saved with seed 0; this loader has 1"):
        MixBatches(folder, seed=1, shuffle_window=9).load_state_dict(shuffled)
    with pytest.raises(ValueError, match="saved with shuffle_window 9; this loader has 0"):
        MixBatches(folder).load_state_dict(shuffled)
    with pytest.raises(ValueError, match="saved with shuffle_window 0; this loader has 9"):
        MixBatches(folder, shuffle_window=9).load_state_dict(state)
    with pytest.raises(ValueError, match="saved with version 'an-older-one'; this loader has ''"):
        MixBatches(folder).load_state_dict(state | {"version": "an-older-one"})
    worker = {"done": 1, "workers": 2, "world_size": 3}
    with pytest.raises(ValueError, match=r"one of 2 workers on 3 ranks; here are 1 on 1: save `state_after\(count\)`"):
        MixBatches(folder).load_state_dict(state | worker)
    with pytest.raises(ValueError, match="`epoch` is -1"):
        MixBatches(folder).set_epoch(-1)
    with pytest.raises(ValueError, match="`shuffle_window` is -2"):
        MixBatches(folder, shuffle_window=-2)


def in_worker(monkeypatch, id, workers, base=1000):
    info = None if workers == 0 else SimpleNamespace(id=id, num_workers=workers, seed=base + id)
    for module in (loader, passes):
        monkeypatch.setattr(module, "get_worker_info", lambda: info)


def test_each_pass_in_workers_takes_up_a_loaded_state_once(mix, monkeypatch):
    """Workers that one after the other begin passes, as a plain DataLoader's do, each time on a fresh copy."""
    folder, batches = mix
    main = MixBatches(folder, columns=COLUMNS)
    main.load_state_dict(main.state_after(5))
    for base, begins in [(1000, 5), (2000, 0), (3000, 0)]:
        for worker in range(2):
            in_worker(monkeypatch, worker, 2, base)
            copy = pickle.loads(pickle.dumps(main))
            copy._passes._told = main._passes._told  # shared, as between processes
            assert draws(copy) == batches[begins:][worker::2]
        in_worker(monkeypatch, 0, 0)
        assert main.state_after(3)["consumed"] == begins + 3
    with pytest.raises(ValueError, match="runs in 2 workers, which read ahead"):
        main.state_dict()


@pytest.mark.parametrize("taken", [0, 5, 13])
def test_stateful_data_loader_with_workers(mix, taken):
    """Saved while workers have read ahead; the rest comes, in order, then whole passes."""
    folder, batches = mix
    whole = expected(batches, 4, 0, 1)[1::2]

    def make():
        each = MixBatches(folder, rank=1, world_size=2, columns=COLUMNS, shuffle_window=4)
        options = {"num_workers": 2, "multiprocessing_context": clean(2), "persistent_workers": True}
        return each, StatefulDataLoader(each, batch_size=None, **options)

    first, saved = make()
    first.set_epoch(1)
    stream = iter(saved)
    assert draws(next(stream) for _ in range(taken)) == whole[:taken]
    state = saved.state_dict()
    elastic = first.state_after(taken)
    del stream
    second, resumed = make()
    resumed.load_state_dict(state)
    second.set_epoch(1)
    assert draws(resumed) == whole[taken:]
    second.set_epoch(2)
    assert draws(resumed) == expected(batches, 4, 0, 2)[1::2]

    fewer = MixBatches(folder, columns=COLUMNS, shuffle_window=4)
    fewer.load_state_dict(elastic)
    assert draws(fewer) == expected(batches, 4, 0, 1)[2 * taken :]


@pytest.mark.parametrize("persistent", [False, True])
def test_plain_data_loader_resumes_once_and_hears_of_epochs(mix, persistent):
    folder, batches = mix
    each = MixBatches(folder, columns=COLUMNS, shuffle_window=6)
    loaded = DataLoader(
        each, batch_size=None, num_workers=2, multiprocessing_context=clean(2), persistent_workers=persistent
    )
    state = each.state_after(4)
    each.load_state_dict(state)
    orders = [expected(batches, 6, 0, epoch) for epoch in range(2)]
    assert draws(loaded) == orders[0][4:]
    assert draws(loaded) == orders[0]
    each.set_epoch(1)
    stream = iter(loaded)
    assert draws(next(stream) for _ in range(3)) == orders[1][:3]
    assert each.state_after(3) == {"version": "", "shuffle_window": 6, "seed": 0, "epoch": 1, "consumed": 3}
    del stream
    each.load_state_dict(state)
    assert draws(loaded) == orders[0][4:]


@pytest.mark.parametrize("taken", [0, 4, 26])
def test_stateful_data_loader_in_this_process(mix, taken):
    folder, batches = mix
    saved = StatefulDataLoader(MixBatches(folder, columns=COLUMNS), batch_size=None)
    stream = iter(saved)
    assert draws(next(stream) for _ in range(taken)) == batches[:taken]
    state = saved.state_dict()
    resumed = StatefulDataLoader(MixBatches(folder, columns=COLUMNS), batch_size=None)
    resumed.load_state_dict(state)
    assert draws(resumed) == batches[taken:]
    assert draws(resumed) == batches
