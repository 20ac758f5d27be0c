"""The flow that embeds ahead: what it does, what it leaves to the curation, how it fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from corpora import config, digests, run, sidecars, write_corpus

from flows.embed import embed

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server")]


def press(folder: Path, over: dict | None = None, **fields):
    """Run the flow as the form would."""
    settings = config(folder, over).model_dump(mode="json")
    return embed(**{"preset": "plain", "overrides": yaml.safe_dump(settings)} | fields, return_state=True)


def test_a_curation_finds_the_shards_embedded_and_makes_the_same(tmp_path):
    folder, other = (write_corpus(tmp_path / name / "in", shards=2).parent for name in ("ahead", "plain"))
    state = press(folder)
    assert state.is_completed()
    assert state.message == f"2 of 2 shards embedded, the others were before: 120 rows in {folder}/store"
    assert {name.split("/")[0] for name in sidecars(folder / "store")} == {"ingest", "embed"}
    assert not (folder / "out").exists() or not list((folder / "out").iterdir())
    log: list[str] = []
    mix = run(config(folder), log)
    assert [line for line in log if line.startswith("embed")] == ["embed: all 2 shards are done"], log
    assert digests(Path(mix.url), "data", "ledger") == digests(Path(run(config(other)).url), "data", "ledger")


def test_only_new_shards_are_embedded(corpus):
    (corpus / "in" / "00006.parquet").rename(corpus / "later")
    assert press(corpus).message.startswith("6 of 6 shards embedded")
    (corpus / "later").rename(corpus / "in" / "00006.parquet")
    assert press(corpus).message.startswith("1 of 7 shards embedded")


def test_a_failed_shard_fails_the_run_in_one_sentence(corpus):
    (corpus / "in" / "00003.parquet").unlink()
    (corpus / "in" / "00003.parquet").symlink_to("gone.parquet")
    state = press(corpus)
    assert state.is_failed()
    assert state.message.startswith("1 of 7 shards failed; rerun to retry only those. First: 00003")


def test_a_configuration_without_an_embedder_is_refused(corpus):
    state = press(corpus, {"embed": None, "score": [], "select": []})
    assert state.is_failed() and "no section `embed`" in state.message
    assert not (corpus / "store").exists()
