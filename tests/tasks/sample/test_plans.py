"""The sample stage around its methods: parts, whole superbatches, samplers with a state."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import config, run, write_corpus
from stateful_sampler import Stateful

from flows import stages
from tasks import sample

IID = {"sample": {"kind": "iid", "batch_size": 8, "filter_ratio": 0.5}, "select": []}


def plan_of(mix):
    step = next(s for s in mix.manifest["steps"] if s["stage"] == "sample")
    folder = f"{mix.manifest['config']['store']}/sample/{step['kind']}/{step['fingerprint']}"
    return pa.concat_tables(pq.read_table(f"{folder}/{name}") for name in sorted_parts(folder))


def sorted_parts(folder):
    from storage import files

    return [name for name in files.names(folder) if name.endswith(".parquet")]


@pytest.mark.parametrize("rows", [64, 100])
def test_parts_do_not_matter(corpus, tmp_path_factory, monkeypatch, rows):
    whole = plan_of(run(config(corpus, IID)))
    other = write_corpus(tmp_path_factory.mktemp("o") / "in").parent
    monkeypatch.setattr(stages, "PARTITION_ROWS", rows)
    parts = plan_of(run(config(other, IID)))
    assert parts.drop_columns(["shard"]).equals(whole.drop_columns(["shard"])) and whole.num_rows > 100


def test_picks_are_the_first_half_of_each_superbatch_in_draw_order(corpus):
    plan = plan_of(run(config(corpus, IID)))
    assert plan["draw"].to_pylist() == [16 * (i // 8) + i % 8 for i in range(plan.num_rows)]
    assert plan["slot"].to_pylist() == [i % 8 for i in range(plan.num_rows)]
    assert plan["step"].to_pylist() == [i // 8 for i in range(plan.num_rows)]


def test_a_sampler_with_a_state_goes_through_all_parts_in_order(corpus, tmp_path_factory, monkeypatch):
    monkeypatch.setitem(sample.METHODS, "iid", "stateful_sampler:Stateful")
    whole = plan_of(run(config(corpus, IID)))
    other = write_corpus(tmp_path_factory.mktemp("o") / "in").parent
    monkeypatch.setattr(stages, "PARTITION_ROWS", 64)
    parts = plan_of(run(config(other, IID)))
    assert parts["draw"].equals(whole["draw"])
    assert whole["draw"].to_pylist() != [16 * (i // 8) + i % 8 for i in range(whole.num_rows)]


def test_a_sampler_with_a_state_goes_on_after_a_crash(corpus, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(stages, "PARTITION_ROWS", 64)
    monkeypatch.setitem(sample.METHODS, "iid", "stateful_sampler:Stateful")
    wanted = plan_of(run(config(corpus, IID)))
    other = write_corpus(tmp_path_factory.mktemp("o") / "in").parent
    calls, original = [], Stateful.pick

    def failing(self, superbatch, step):
        calls.append(step)
        if len(calls) == 10:
            raise RuntimeError("power cut")
        return original(self, superbatch, step)

    monkeypatch.setattr(Stateful, "pick", failing)
    with pytest.raises(Exception, match="power cut"):
        run(config(other, IID))
    assert plan_of(run(config(other, IID)))["draw"].equals(wanted["draw"])
    assert calls.count(0) == 1  # finished parts were not picked again
