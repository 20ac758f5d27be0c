"""The harness itself: it must notice what it is there for."""

import fuzz.misbehaviour as jobs
import pytest
from fuzz import survival
from fuzz.survival import survive


def test_a_crash_a_hang_and_an_error_are_results_of_their_case(monkeypatch):
    monkeypatch.setattr(survival, "PATIENCE", 1.0)
    results = {result.seed: result for result in survive(jobs.misbehave, (), range(12))}
    assert sorted(results) == list(range(12))
    assert {seed for seed, result in results.items() if result.failed} == {3, 5, 7}
    assert results[3].outcome == "crashed with exit code -11"
    assert results[5].outcome == "hung"
    assert "ZeroDivisionError" in results[7].outcome
    assert results[9].printed == 1000 and not results[8].printed


@pytest.mark.skipif(not survival._memory("VmHWM"), reason="peaks of memory are read from Linux's /proc")
def test_memory_is_counted_for_each_case():
    results = survive(jobs.hoard, (), [100, 1], workers=1)
    assert [round(result.memory, -1) for result in sorted(results)] == [0, 100]
