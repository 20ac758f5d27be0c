import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.mix.permutation import SEED_BYTES, keys, keys_each, permute, unpermute


@given(st.integers(1, 3000), st.integers(0, 2**64))
def test_it_is_a_permutation_and_has_an_inverse(n, seed):
    values = np.arange(n)
    there = permute(values, n, seed)
    assert np.array_equal(np.sort(there), values)
    assert np.array_equal(unpermute(there, n, seed), values)


def test_a_position_does_not_depend_on_its_neighbours():
    whole = permute(np.arange(10**6), 10**6, 3)
    some = np.array([5, 999_999, 0])
    assert np.array_equal(permute(some, 10**6, 3), whole[some])


@pytest.mark.parametrize("n", [10, 1000, 4097])
def test_places_are_even_over_seeds(n):
    where = np.array([permute(np.array([0, 1]), n, seed) for seed in range(2000)])
    # Mean of a uniform place is (n - 1) / 2 with a standard error of n / sqrt(12 * 2000); five of them.
    assert np.all(np.abs(where.mean(axis=0) - (n - 1) / 2) < 5 * n / np.sqrt(12 * 2000))
    assert abs(np.corrcoef(where.T)[0, 1]) < 5 / np.sqrt(2000) + 2 / n


def test_neighbours_are_torn_apart():
    steps = np.diff(permute(np.arange(100_000), 100_000, 1))
    assert np.mean(np.abs(steps) < 1000) < 0.03


@given(st.lists(st.integers(0, 2**128 - 1) | st.sampled_from([0, 1, 2**32, 2**64 - 1, 2**128 - 1]), max_size=5))
def test_keys_of_many_seeds_are_those_of_each(seeds):
    """Also of seeds with fewer words than four: NumPy takes these by themselves."""
    found = keys_each(b"".join(seed.to_bytes(SEED_BYTES, "big") for seed in seeds))
    assert found.dtype == np.uint64 and found.tolist() == [keys(seed).tolist() for seed in seeds]


def test_keys_are_those_of_earlier_versions():
    """Draws that were made are found again by them, whatever NumPy's generators come to give."""
    expected = [
        5765488047046174021,
        8275336682942969162,
        7154437704795913393,
        2077169698657866657,
        2768545318656780450,
        8057108420966028186,
    ]
    assert keys_each(bytes(15) + bytes([7])).tolist() == [expected] and keys(7).tolist() == expected
