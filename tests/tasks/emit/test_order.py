"""The order of an epoch against what its docstring promises."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasks.emit.order import Order, share

ORDERS = st.builds(Order, st.integers(1, 30), st.integers(1, 4), st.integers(0, 12), st.integers(0, 5))


def whole(order: Order, epoch: int) -> list[int]:
    return [unit for units in order.stretches(range(order.units), epoch) for unit in units]


@given(ORDERS, st.integers(0, 3))
def test_an_epoch_is_a_permutation_of_whole_steps_within_windows(order, epoch):
    units = whole(order, epoch)
    assert sorted(units) == list(range(order.units))
    steps = [unit // order.mix_ranks for unit in units]
    window = max(1, order.window)
    assert [step // window for step in steps] == [i // order.mix_ranks // window for i in range(order.units)]
    assert [unit % order.mix_ranks for unit in units] == [i % order.mix_ranks for i in range(order.units)]
    assert all(len(set(steps[i : i + order.mix_ranks])) == 1 for i in range(0, order.units, order.mix_ranks))
    if window == 1:
        assert units == list(range(order.units))


@given(ORDERS, st.integers(0, 3), st.data())
def test_any_positions_give_what_the_whole_epoch_has_there_and_begin_again_after_its_end(order, epoch, data):
    units = whole(order, epoch)
    first = data.draw(st.integers(0, 2 * order.units))
    positions = range(first, 3 * order.units + 2, data.draw(st.integers(1, 9)))
    stretches = list(order.stretches(positions, epoch))
    assert [unit for stretch in stretches for unit in stretch] == [units[p % order.units] for p in positions]
    assert all(len({unit // order.mix_ranks // max(1, order.window) for unit in s}) == 1 for s in stretches)


def test_epochs_and_seeds_differ():
    order = Order(steps=50, mix_ranks=1, window=25, seed=0)
    assert len({tuple(whole(o, e)) for o in (order, order._replace(seed=1)) for e in range(3)}) == 6
    assert whole(order, 2) == whole(order, 2)


@given(st.integers(0, 50), st.integers(0, 60), st.integers(1, 9))
def test_shares_leave_out_or_fill_up_less_than_one_batch_a_rank(units, consumed, world_size):
    left = max(0, units - consumed)
    assert 0 <= left - share(units, consumed, world_size, True) * world_size < world_size
    assert 0 <= share(units, consumed, world_size, False) * world_size - left < world_size
