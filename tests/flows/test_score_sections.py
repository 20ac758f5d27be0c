"""Scores that are listed, that selects and samplers want: one section a column, or an error that names the setting."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import StageError
from configs.loading import validate
from flows.pipeline import plan_per_shard
from flows.planning import score_sections
from storage.shards import Shard

LM = {"kind": "causal_lm", "model": "nobody/no-model"}
TEXT = {"input": {"path": "x", "image": None, "text": "t"}}
PAIRS = {"input": {"path": "x"}, "embed": {"kind": "columns", "image": "i", "text": "e"}}


def sections(**settings):
    return [(section.kind, who) for section, who in score_sections(validate(TEXT | settings))]


def trajectories(**proxy):
    return {"kind": "trajectories", "target_fraction": 0.5, "proxy": {"proxy": {"kind": "language"}, **proxy}}


def test_what_is_wanted_is_made_once():
    assert sections(sample={"kind": "uds", "logits": LM}) == [("uds", "sample: uds")]
    listed = {"kind": "uds", "logits": LM, "seed": 3}
    assert sections(score=[listed], sample={"kind": "uds", "logits": LM}) == [("uds", "score: uds")]
    assert sections(score=[listed], sample={"kind": "uds"}) == [("uds", "score: uds")]
    rho = {"kind": "rho_loss", "logits": LM, "reference": {"model": "nobody/another"}}
    assert sections(sample=rho) == [("losses", "sample: rho_loss")] * 2
    assert sections(select=[trajectories(epochs=2), trajectories(epochs=2)]) == [("trajectory", "select: trajectories")]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (
            {"score": [{"kind": "uds", "logits": LM}], "sample": {"kind": "uds", "logits": LM | {"max_length": 9}}},
            "logits",
        ),
        (
            {
                "score": [{"kind": "uds", "logits": LM}],
                "sample": {"kind": "uds", "logits": LM, "positions": "response"},
            },
            "positions",
        ),
        (
            {
                "score": [{"kind": "gradients", "logits": LM, "validation": "a"}],
                "sample": {"kind": "greats", "logits": LM, "validation": "b"},
            },
            "validation",
        ),
        ({"select": [trajectories(epochs=9), trajectories()]}, "epochs"),
    ],
)
def test_two_settings_of_one_column_are_refused(settings, named):
    with pytest.raises(StageError, match=f"two settings of `{named}`"):
        sections(**settings)


def test_a_proxy_that_learns_from_other_rows_is_another_step():
    trajectory, other = {"kind": "trajectory"}, {"kind": "image_hash"}
    steps = []
    for before in ([], [other]):
        planned, _ = plan_per_shard(validate(PAIRS | {"score": [*before, trajectory]}), None, [])
        steps.append(planned[-1].step.url)
    assert steps[0] != steps[1]


def test_a_fit_that_reads_no_rows_is_the_same_step_when_rows_come(tmp_path):
    """A graph of a reference's skills, by their names: a new shard changes nothing of it."""
    pq.write_table(pa.table({"skills": [["a", "b"]]}), tmp_path / "reference.parquet")
    graph = {"kind": "skill_graph", "reference": str(tmp_path / "reference.parquet"), "against": "image"}
    by_names = {"vectors": "names", "encoder": {"kind": "open_clip", "model": "pocket", "device": "cpu"}}
    given = {"score": [graph | by_names, graph | {"name": "by_rows", "skills": "s"}]}
    known = [Shard(i, f"{i}.parquet", f"x/{i}.parquet", str(i) * 32, 4) for i in range(2)]
    urls = []
    for every in (known[:1], known):
        planned, _ = plan_per_shard(validate(PAIRS | given), None, every)
        urls.append([one.step.url for one in planned if one.step.stage == "score"])
    assert urls[0][0] == urls[1][0] and urls[0][1] != urls[1][1]
