"""The flows that look after a mix: their states and messages under a real server."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpora import config, run, write_corpus

from flows.mixes import report, verify

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server")]


@pytest.fixture(scope="module")
def mix(tmp_path_factory):
    """A small mix, which its tests leave as it was."""
    folder = write_corpus(tmp_path_factory.mktemp("mixes") / "in", shards=2).parent
    return run(config(folder))


def test_a_whole_mix_is_verified(mix):
    state = verify(mix=str(Path(mix.url).parent), return_state=True)
    assert state.is_completed() and state.message.endswith(f"rows emitted; every digest fits: {mix.url}")
    assert f" {mix.emitted:,} rows" in state.message


def test_the_first_discrepancy_fails_the_run(mix):
    part = Path(mix.url, "data", "part-00000.parquet")
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        state = verify(mix=mix.url, return_state=True)
    finally:
        part.write_bytes(whole)
    assert state.is_failed() and state.message.startswith(f"{mix.url}: data/part-00000.parquet has another content")


def test_a_report_is_drawn_again(mix):
    page = Path(mix.url, "report", "index.html")
    page.unlink()
    state = report(mix=mix.url, overrides="top_concepts: 5", return_state=True)
    assert state.is_completed() and state.message == str(page) == state.result() and page.stat().st_size > 1_000


@pytest.mark.parametrize("flow", (report, verify), ids=lambda one: one.name)
def test_refusals_are_one_sentence(flow, mix, tmp_path):
    state = flow(mix=str(tmp_path), return_state=True)
    assert state.is_failed() and state.message.startswith(f"{tmp_path} is not a mix")
    state = flow(mix=mix.url, config=str(tmp_path / "none.yaml"), return_state=True)
    assert state.is_failed() and "none.yaml is not a file" in state.message


def test_a_setting_of_the_report_that_is_none_is_refused_before_anything_is_drawn(mix):
    page = Path(mix.url, "report", "index.html")
    before = page.stat().st_mtime_ns
    state = report(mix=mix.url, overrides="{top_concepts: 0, topp: 1}", return_state=True)
    assert state.is_failed() and "`top_concepts` is 0" in state.message and "`topp` is no setting" in state.message
    assert page.stat().st_mtime_ns == before
