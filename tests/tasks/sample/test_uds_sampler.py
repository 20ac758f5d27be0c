"""The sampler UDS: the worked example, a plain loop over the memory buffer, properties, bad columns, its state."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ColumnError
from configs.methods import scored as methods
from storage import states
from storage.packed import pack
from tasks import load
from tasks.sample import METHODS
from tasks.sample.micro_batches import best
from tasks.sample.uds import Uds, distances, select_in_order
from tasks.score.uds import LogitSketch, MemoryBuffer, nuclear_norm, top_k, utility_diversity

TOLD = {"max_length": "4", "vocab_size": "4", "orthonormal": "true"}


def superbatch(intra, sketches, valid=None, metadata=None):
    packed = pack(np.asarray(sketches, np.float32), valid)
    fields = [pa.field("intra", pa.float32()), pa.field("sketch", packed.type, metadata=metadata)]
    return pa.table([pa.array(np.asarray(intra, np.float32)), packed], schema=pa.schema(fields))


def sampler(micro_batch, taken, *, count=1, world_size=1, **over):
    """Of `count` micro-batches a rank."""
    size = micro_batch * count * world_size
    sizes = {"superbatch_size": size, "filter_ratio": 1 - taken / micro_batch, "world_size": world_size}
    return Uds(methods.Uds(micro_batch=micro_batch, **sizes | over))


def rows(count, seed=0, dim=12, offset=0.0):
    rng = np.random.default_rng(seed)
    sketches = rng.standard_normal((count, dim)) * rng.choice([0.1, 1, 10], (count, 1)) + offset
    return rng.random(count).astype(np.float32), sketches.astype(np.float32)


def by_loop(buffer, intra, sketches, alpha, size, count):
    """UDS as it is written down: micro-batch by micro-batch through the functions that a trainer calls."""
    picks, totals = [], []
    for first in range(0, len(intra), size):
        ours = slice(first, first + size)
        totals.append(utility_diversity(intra[ours], buffer.mean_distance(sketches[ours]), alpha))
        picks.append(first + top_k(totals[-1], count))
        buffer.push(sketches[picks[-1]])
    return np.concatenate(picks), np.concatenate(totals)


# ------------------------------------------------------------------------------------------------------- worked example
def worked_example():
    """Intra scores and sketches of A, B and C, of the specification's section 9."""
    logits = np.zeros((3, 4, 4))
    logits[0, 0, 0] = logits[0, 1, 1] = 1
    logits[1, :2, :2] = 1
    logits[2, 0, 2], logits[2, 1, 3], logits[2, 2, 0] = 2, 1, 1
    sketch = LogitSketch.from_parts(
        np.array([1, -1, 1, 1]), np.array([1, 1, -1, 1]), np.array([1, 3]), np.array([0, 2])
    )
    return nuclear_norm(logits), sketch.project(logits)


def test_worked_example():
    intra, z = worked_example()
    method = sampler(3, 1, alpha=0.1)
    # The buffer holds z_A: a batch is picked in which no other row is anything.
    method.pick(superbatch([2, 0, 0], z[[0, 0, 0]]), 0)
    picks, told = method.pick_and_value(superbatch(intra, z), 1)
    assert [p.tolist() for p in picks] == [[2]]
    assert told["intra"] == pytest.approx([2, 2, 4]) and told["inter"] == pytest.approx([0, 4, 16])
    assert told["total"] == pytest.approx([2.0, 2.4, 5.6])
    told = method.pick_and_value(superbatch(intra, z), 2)[1]  # against z_A and z_C
    assert told["inter"] == pytest.approx([8, 10.246211251235323, 8])
    assert all(told[name].dtype == np.float32 for name in method.values)


def test_the_worked_example_in_one_superbatch_of_three_micro_batches():
    intra, z = worked_example()
    method = sampler(3, 1, count=3, alpha=0.1)
    three = superbatch([2, 0, 0, *intra, *intra], np.concatenate([z[[0, 0, 0]], z, z]))
    picks, told = method.pick_and_value(three, 0)
    assert picks[0].tolist()[:2] == [0, 5]
    assert told["inter"] == pytest.approx([0, 0, 0, 0, 4, 16, 8, 10.246211251235323, 8])


# ---------------------------------------------------------------------------------------------------- against the plain
@settings(max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from([(3, 1), (8, 2), (5, 5), (300, 70)]), st.integers(1, 40))
def test_picks_are_those_of_the_plain_loop(seed, share, capacity):
    size = share[0]
    intra, z = rows(size * {3: 100, 8: 40, 5: 60, 300: 2}[size], seed)
    z[size // 2] = z[0]  # equal sketches
    alpha = [0.0, 0.05, 5.0][seed % 3]
    buffers = [MemoryBuffer(capacity, 12) for _ in range(2)]
    for _ in range(2):  # the second time with a buffer that is full or about to be
        picks, inter, total = select_in_order(buffers[0], intra, z, alpha, share)
        expected, totals = by_loop(buffers[1], intra, z, alpha, *share)
        np.testing.assert_array_equal(picks, expected)
        np.testing.assert_allclose(total, totals, rtol=1e-6)
        np.testing.assert_allclose(total, intra + alpha * inter.astype(np.float64), rtol=1e-6)
    one, other = (buffer.state_dict() for buffer in buffers)
    assert {*map(bytes, one["vectors"])} == {*map(bytes, other["vectors"])}
    np.testing.assert_array_equal(buffers[0].mean_distance(z), buffers[1].mean_distance(z))


def test_large_vectors_that_differ_little_have_exact_distances():
    _, z = rows(40, offset=1e8)
    z[7] = z[5]
    exact = np.linalg.norm(z[:, None].astype(np.float64) - z[None], axis=2)
    found = distances(z, z)
    np.testing.assert_allclose(found, exact, rtol=1e-6)
    assert not found.diagonal().any() and found[5, 7] == 0
    assert exact[exact > 0].min() < 50 and found.shape == (40, 40)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 3), st.sampled_from([(4, 1), (6, 3), (2, 2)]), st.integers(1, 4))
def test_every_pick_is_counted_once_and_of_its_rank_and_micro_batch(seed, world_size, share, count):
    size, taken = share
    method = sampler(size, taken, count=count, world_size=world_size, alpha=0.3, buffer=5)
    intra, z = rows(size * count * world_size, seed)
    intra[np.random.default_rng(seed).random(len(intra)) < 0.3] = np.nan
    picks, told = method.pick_and_value(superbatch(intra, z), 0)
    assert len(picks) == world_size and all(p.dtype == np.int64 for p in picks)
    for rank, ours in enumerate(picks):
        of = (rank * count + np.arange(count)).repeat(taken)
        np.testing.assert_array_equal(ours // size, of)
        assert len(np.unique(ours)) == len(ours) == taken * count
        for micro in range(count):
            group = np.arange(size) + (rank * count + micro) * size
            mine = ours[micro * taken : (micro + 1) * taken]
            others = np.setdiff1d(group, mine)
            worst = np.nan_to_num(told["total"][mine], nan=-np.inf).min()
            assert not len(others) or worst >= np.nan_to_num(told["total"][others], nan=-np.inf).max()


def test_without_alpha_the_rows_with_the_highest_nuclear_norm_are_picked():
    intra, z = rows(64)
    picks = sampler(8, 3, count=8, alpha=0).pick(superbatch(intra, z), 0)[0]
    np.testing.assert_array_equal(picks, best(intra, 8, 3).ravel())


def test_the_first_micro_batch_is_ranked_by_nuclear_norm_alone():
    intra, z = rows(16)
    picks, told = sampler(16, 4, alpha=9).pick_and_value(superbatch(intra, z), 0)
    assert not told["inter"].any() and picks[0].tolist() == np.argsort(-intra)[:4].tolist()


def test_all_of_a_micro_batch_are_kept_and_remembered():
    intra, z = rows(24)
    method = sampler(4, 4, count=6, alpha=0.1, buffer=100)
    assert sorted(method.pick(superbatch(intra, z), 0)[0].tolist()) == list(range(24))
    assert len(method.state_dict()["0_vectors"]) == 24


def test_equal_rows_are_picked_in_the_order_of_draws_and_may_both_be():
    _, z = rows(1)
    method = sampler(6, 2, count=50, alpha=1.0)
    same = superbatch(np.ones(300), np.repeat(z, 300, axis=0))
    for _ in range(2):
        picks, told = method.pick_and_value(same, 0)
        assert picks[0].tolist() == [6 * (i // 2) + i % 2 for i in range(100)]
        assert not told["inter"].any()


# ------------------------------------------------------------------------------------------------------- rows and ranks
def test_rows_without_a_score_come_last_in_order_and_are_not_remembered():
    intra, z = rows(8)
    intra[[0, 2]], z[3, 5] = [np.nan, np.inf], np.nan
    valid = np.arange(8) != 6
    method = sampler(8, 6, alpha=0.1)
    picks, told = method.pick_and_value(superbatch(intra, z, valid), 0)
    scored = [1, 4, 5, 7]
    assert picks[0].tolist() == [*sorted(scored, key=lambda i: -intra[i]), 0, 2]
    for name in method.values:
        assert np.flatnonzero(np.isnan(told[name])).tolist() == [0, 2, 3, 6]
    assert len(method.state_dict()["0_vectors"]) == 4
    nothing = superbatch(np.full(8, np.nan), z, np.zeros(8, bool))
    assert method.pick(nothing, 1)[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert len(method.state_dict()["0_vectors"]) == 4


def test_ranks_remember_their_own_rows():
    intra, z = rows(32)
    both = sampler(4, 1, count=4, world_size=2, alpha=0.4)
    alone = [sampler(4, 1, count=4, alpha=0.4) for _ in range(2)]
    for step in range(3):
        picks = both.pick(superbatch(intra, z), step)
        for rank, one in enumerate(alone):
            ours = slice(16 * rank, 16 * rank + 16)
            assert (picks[rank] - 16 * rank).tolist() == one.pick(superbatch(intra[ours], z[ours]), step)[0].tolist()


def test_the_state_carries_all_that_later_picks_depend_on(tmp_path):
    tables = [superbatch(*rows(48, seed)) for seed in range(5)]
    build = {"count": 4, "world_size": 2, "alpha": 0.5, "buffer": 7}
    whole, url = sampler(6, 2, **build), str(tmp_path / "state.npz")
    states.save(url, sampler(6, 2, **build).state_dict())  # nothing was picked
    for step, table in enumerate(tables):
        method = sampler(6, 2, **build)
        method.load_state_dict(states.load(url))
        found, expected = method.pick_and_value(table, step), whole.pick_and_value(table, step)
        assert [p.tolist() for p in found[0]] == [p.tolist() for p in expected[0]]
        assert all(np.array_equal(found[1][name], expected[1][name]) for name in whole.values)
        states.save(url, method.state_dict())


def test_sketches_may_be_lists_of_the_input():
    intra, z = rows(16)
    packed = sampler(8, 2, count=2, alpha=0.2).pick(superbatch(intra, z), 0)
    for kind in (pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 12)):
        lists = pa.table({"intra": intra.astype(np.float64), "sketch": pa.array(list(z), kind)})
        assert sampler(8, 2, count=2, alpha=0.2).pick(lists, 0)[0].tolist() == packed[0].tolist()
    stray = [*list(z[:3]), None, [1.0], [], *list(z[6:])]
    told = sampler(16, 4).pick_and_value(pa.table({"intra": intra, "sketch": pa.array(stray)}), 0)[1]
    assert np.flatnonzero(np.isnan(told["total"])).tolist() == [3, 4, 5]


# ----------------------------------------------------------------------------------------------------------------- alpha
def test_alpha_is_scaled_where_sketches_are_orthonormal():
    intra, z = rows(40, 3)
    released = sampler(4, 1, count=10, alpha=0.3).pick_and_value(superbatch(intra, z), 0)
    told = superbatch(intra, z / 2, metadata=TOLD)  # sqrt(4 * 4) / 2
    found = sampler(4, 1, count=10, alpha=0.3, orthonormal=True).pick_and_value(told, 0)
    assert found[0][0].tolist() == released[0][0].tolist()
    np.testing.assert_allclose(found[1]["total"], released[1]["total"], rtol=1e-6)
    # What the column tells counts for more than the setting.
    found = sampler(4, 1, count=10, alpha=0.3).pick_and_value(told, 0)
    np.testing.assert_allclose(found[1]["total"], released[1]["total"], rtol=1e-6)
    as_released = superbatch(intra, z, metadata=TOLD | {"orthonormal": "false"})
    found = sampler(4, 1, count=10, alpha=0.3, orthonormal=True).pick_and_value(as_released, 0)
    np.testing.assert_allclose(found[1]["total"], released[1]["total"], rtol=1e-6)


def test_orthonormal_sketches_that_do_not_tell_their_sizes_are_refused():
    with pytest.raises(ColumnError, match=r"`sketch` does not tell T and V.*give `alpha` times sqrt\(T V\) / 2"):
        sampler(4, 1, orthonormal=True).pick(superbatch(*rows(4)), 0)


# ------------------------------------------------------------------------------------------------------------ bad columns
def test_sketches_of_another_width_are_refused():
    method = sampler(4, 1)
    method.pick(superbatch(*rows(4)), 0)
    with pytest.raises(ColumnError, match="`sketch` has vectors of 8 numbers, those before it 12; all rows must be"):
        method.pick(superbatch(*rows(4, dim=8)), 1)


@pytest.mark.parametrize(
    ("intra", "sketch", "match"),
    [
        (pa.array(["a"] * 4), pa.array([[1.0]] * 4), "`intra` is a column of string; a score must be a number"),
        (pa.array([1.0] * 4), pa.array([b"abcde"] * 4, pa.binary(5)), "`sketch` has 5 bytes a row, which are no float"),
        (pa.array([1.0] * 4), pa.array([1.0] * 4), "`sketch` is a column of double; sketches are fixed_size_binary"),
        (pa.array([1.0] * 4), pa.array([["a"]] * 4), "`sketch` is a column of list<"),
    ],
)
def test_columns_of_wrong_types_are_refused_before_and_while_picking(intra, sketch, match):
    table = pa.table({"intra": intra, "sketch": sketch})
    with pytest.raises(ColumnError, match=match):
        sampler(4, 1).pick(table, 0)
    with pytest.raises(ColumnError, match=match):
        sampler(4, 1).check_columns(table.schema)


def test_it_is_registered_with_all_that_the_flow_reads():
    method = load(METHODS, methods.Uds(superbatch_size=8), seed=3)
    assert method.needs == ("intra", "sketch") and method.values == ("intra", "inter", "total")
    assert not method.independent and method.part_rows * 4096 <= 1 << 27 and method.input_columns == ()
    assert load(METHODS, methods.Uds(superbatch_size=8, from_input=True), seed=3).input_columns == method.needs
    with pytest.raises(ValueError, match="`superbatch` has 4 rows; it must have 8"):
        method.pick(superbatch(*rows(4)), 0)
