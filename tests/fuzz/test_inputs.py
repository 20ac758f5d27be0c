"""Mutated Parquet files, tars, JSON lines and configurations: no crash, no hang, no spike of memory, no row lost."""

from collections import Counter

import pytest
from fuzz import inputs
from fuzz.survival import survive

JOBS = {
    inputs.parquet: {"read", "damaged", "refused"},
    inputs.tar: {"read", "damaged", "empty"},
    inputs.lines: {"read", "damaged", "empty"},
    inputs.config: {"taken", "refused"},
}
MEMORY_MB = 600


def check(job, seeds):
    results = survive(job, (), seeds)
    assert len(results) == len(seeds)
    assert [result for result in results if result.failed] == []
    assert [result for result in results if result.memory > MEMORY_MB] == []
    counts = Counter(result.outcome for result in results)
    print(job.__name__, dict(counts), "slowest", max(result.seconds for result in results))
    assert set(counts) <= JOBS[job] and len(counts) > 1


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.__name__)
def test_some_cases(job):
    check(job, range(60))


@pytest.mark.nightly
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.__name__)
def test_hundreds_of_cases(job):
    check(job, range(1_000, 1_600))
