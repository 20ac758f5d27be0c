"""What concept-aware samplers are held to account for."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import config, run

from configs.methods.sample import CabsDm, CabsFm
from flows import stages
from storage.steps import Step
from tasks import load
from tasks.sample import METHODS
from tasks.sample.coverage import CONCEPTS, STEPS, Account, leave, read_concepts, summed

ROWS = [["a"], ["a"], ["b", "b"], ["a", "c"], [], ["a"], ["d"], ["a"]]


def table(rows):
    return pa.table({"concepts": pa.array(rows, pa.list_(pa.string()))})


def test_account_by_hand():
    """IID takes the first two rows; in fewer than B / b = 4 rows are b, c and d."""
    for ranks, iid in ((1, 1), (2, 1)):
        sampler = load(METHODS, CabsDm(batch_size=2, filter_ratio=0.75, world_size=ranks), seed=0)
        picks, told = sampler.pick_and_account(table(ROWS), 0)
        assert sorted(np.concatenate(picks).tolist()) == [2, 6]
        assert told.step == {
            "rows": 2,
            "fill": 0,
            "bare": 0,
            "offered_bare": 1,
            "concepts": 2,
            "rare": 2,
            "iid_concepts": iid,
            "iid_rare": 0,
            "offered_concepts": 4,
            "offered_rare": 3,
        }
        assert told.concepts.schema == CONCEPTS and told.concepts.to_pydict() == {
            "concept": ["a", "b", "c", "d"],
            "offered": [5, 2, 1, 1],
            "wanted": [1.0] * 4,
            "achieved": [0, 2, 0, 1],
        }


def test_a_sampler_without_targets_says_so_and_one_without_concepts_has_nothing_to_tell():
    sampler = load(METHODS, CabsFm(batch_size=4, filter_ratio=0.5), seed=0)
    picks, told = sampler.pick_and_account(table(ROWS), 0)
    assert picks[0].tolist() == sampler.pick(table(ROWS), 0)[0].tolist() == [2, 3, 0, 1]
    assert told.concepts["wanted"].null_count == 4 and told.step["concepts"] == 3
    _, nothing = load(METHODS, CabsDm(batch_size=4), seed=0).pick_and_account(table([[]] * 20), 0)
    assert nothing.concepts.num_rows == 0 and nothing.step["fill"] == 4 and nothing.step["offered_concepts"] == 0


def test_rare_is_what_chance_is_expected_to_lose():
    """Of 8 rows 2 are kept: a concept of 4 rows is expected once in an IID batch, one of 3 is not."""
    rows = [["four", "three"]] * 3 + [["four"]] + [["five"]] * 4
    _, told = load(METHODS, CabsDm(batch_size=2, filter_ratio=0.75), seed=0).pick_and_account(table(rows), 0)
    assert told.step["offered_rare"] == 1 and told.step["offered_concepts"] == 3


def test_ranks_and_steps_draw_rows_without_concepts_each_in_an_order_of_its_own():
    sampler = load(METHODS, CabsDm(batch_size=20, filter_ratio=0.5, world_size=2, fill=False), seed=0)
    empty = table([[]] * 40)
    orders = {tuple((picks % 20).tolist()) for step in (0, 1) for picks in sampler.pick(empty, step)}
    assert len(orders) == 4 and all(len(order) == 10 for order in orders)


def test_sums_keep_null_apart_from_nothing():
    one = pa.table({"concept": ["b", "a"], "offered": [1, 2], "wanted": [None, 0.5], "achieved": [0, 1]}, CONCEPTS)
    assert summed([one, one]).to_pydict() == {
        "concept": ["a", "b"],
        "offered": [4, 2],
        "wanted": [1.0, None],
        "achieved": [2, 0],
    }
    assert summed([]).num_rows == 0


def test_parts_add_up(tmp_path):
    step = Step(str(tmp_path), "sample", "cabs_dm", "f")
    concepts = pa.table({"concept": ["a"], "offered": [3], "wanted": [1.0], "achieved": [2]}, CONCEPTS)
    told = Account(dict.fromkeys(STEPS.names[1:], 1), concepts)
    leave(step, 0, 0, [told, told])
    leave(step, 2, 7, [told])
    assert read_concepts(step, 3)["offered"].to_pylist() == [9]
    assert step.read("coverage/steps-00002")["step"].to_pylist() == [7]


@pytest.mark.parametrize("rows", [10**6, 64])
def test_the_flow_leaves_an_account_of_every_batch(corpus, monkeypatch, rows):
    monkeypatch.setattr(stages, "PARTITION_ROWS", rows)
    section = {"kind": "cabs_dm", "batch_size": 8, "filter_ratio": 0.5, "maximum": 1}
    mix = run(config(corpus, {"sample": section, "select": []}))
    made = next(s for s in mix.manifest["steps"] if s["stage"] == "sample")
    step = Step(mix.manifest["config"]["store"], "sample", "cabs_dm", made["fingerprint"])
    parts = len(list((corpus / "store/sample/cabs_dm" / made["fingerprint"]).glob("part-*.parquet")))
    assert (parts > 1) == (rows == 64)
    told = pa.concat_tables(step.read(f"coverage/steps-{part:05d}") for part in range(parts))
    assert told["step"].to_pylist() == list(range(mix.manifest["batches"]["steps"]))
    assert set(told["rows"].to_pylist()) == {8} and sum(told["fill"].to_pylist()) > 0, "a cap of one binds"
    data = [name for name in mix.manifest["files"] if name.startswith("data/")]
    used = sum(pq.read_metadata(f"{mix.url}/{name}").num_rows for name in data)
    assert sum(told["rows"].to_pylist()) == used
    assert (np.array(told["concepts"]) <= np.array(told["offered_concepts"])).all()
