"""The mutation engine."""

import numpy as np
import pytest
from fuzz.mutations import LONGEST, MUTATIONS, mutated

DATA = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()


def test_the_same_seed_gives_the_same_bytes_and_others_differ():
    made = [mutated(DATA, np.random.default_rng(seed), [DATA[::-1]]) for seed in range(300)]
    assert made == [mutated(DATA, np.random.default_rng(seed), [DATA[::-1]]) for seed in range(300)]
    assert len(set(made)) > 295 and made.count(DATA) == 0


@pytest.mark.parametrize("mutation", dict.fromkeys(MUTATIONS))
@pytest.mark.parametrize("size", [1, 2, 9, 5000])
def test_every_mutation_takes_files_of_any_size(mutation, size):
    for seed in range(50):
        out = mutation(DATA[:size], np.random.default_rng(seed), [DATA, b"x", b""] if seed % 2 else [])
        assert isinstance(out, bytes) and len(out) <= LONGEST + 2 * len(DATA)


def test_nothing_becomes_something():
    assert mutated(b"", np.random.default_rng(0))
