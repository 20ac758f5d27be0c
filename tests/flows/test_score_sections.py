"""Scores that are listed, that selects and samplers want: one section a column, or an error that names the setting."""

from __future__ import annotations

import pytest

from configs.errors import StageError
from configs.loading import validate
from flows.pipeline import plan_per_shard
from flows.planning import score_sections

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
