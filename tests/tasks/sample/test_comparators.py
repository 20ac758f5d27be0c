"""The samplers that UDS is compared with: brute force over micro-batches, ties, rows without a score, seeds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import chisquare

from configs.errors import ColumnError
from configs.methods import sample as configs
from configs.methods import scored as methods
from tasks import load
from tasks.sample import METHODS
from tasks.sample.micro_batches import best

LM = {"kind": "causal_lm", "model": "models/small"}
SCORED = {
    methods.MaxLoss: ("lm_loss", "loss"),
    methods.MaxEntropy: ("lm_entropy", "entropy"),
    methods.GradientNorm: ("lm_gradient_norm", "gradient_norm"),
}


def built(kind, seed=0, **over):
    """Two ranks with three micro-batches of four, of each of which two are taken."""
    sizes = {"superbatch_size": 24, "filter_ratio": 0.5, "world_size": 2, "micro_batch": 4}
    return load(METHODS, kind(**sizes | over), seed=seed)


def by_hand(scores, size, count):
    """The best of each micro-batch in plain Python; None and what is not finite is the worst, in order."""
    picks = []
    for first in range(0, len(scores), size):
        group = list(range(first, first + size))
        sound = [i for i in group if scores[i] is not None and np.isfinite(scores[i])]
        ranked = sorted(sound, key=lambda i: (-scores[i], i)) + [i for i in group if i not in sound]
        picks += ranked[:count]
    return picks


# ----------------------------------------------------------------------------------------------------------- by a score
@given(st.lists(st.sampled_from([None, -1.5, 0.0, 2.0, 2.5, float("nan"), float("inf"), -float("inf")]), min_size=24))
def test_picks_are_the_brute_force(scores):
    scores = scores[:24]
    table = pa.table({"lm_loss": pa.array(scores, pa.float64())})
    picks, told = built(methods.MaxLoss).pick_and_value(table, 0)
    assert np.concatenate(picks).tolist() == by_hand(scores, 4, 2) and [len(p) for p in picks] == [6, 6]
    sound = [score is not None and np.isfinite(score) for score in scores]
    assert np.isfinite(told["loss"]).tolist() == sound


@pytest.mark.parametrize("kind", SCORED)
def test_each_goes_by_its_own_column_or_by_the_one_that_is_named(kind):
    made, value = SCORED[kind]
    scores = np.random.default_rng(1).random(24, np.float32)
    method = built(kind)
    assert method.needs == (made,) and method.independent and method.values == (value,)
    picks, told = method.pick_and_value(pa.table({made: scores}), 0)
    assert np.concatenate(picks).tolist() == by_hand(scores.tolist(), 4, 2)
    assert told[value].dtype == np.float32 and told[value].tolist() == scores.tolist()
    named = built(kind, column="mine", from_input=True)
    assert named.needs == named.input_columns == ("mine",)
    whole = pa.table({"mine": pa.array(range(24), pa.int16())})
    assert np.concatenate(named.pick(whole, 0)).tolist() == by_hand(list(range(24)), 4, 2)


def test_rho_loss_goes_by_the_loss_above_the_references():
    rng = np.random.default_rng(2)
    loss, reference = rng.random((2, 24)).astype(np.float32)
    loss[3], reference[5] = np.nan, np.inf
    method = built(methods.RhoLoss, reference=LM)
    assert method.needs == ("lm_loss", "reference_loss")
    picks, told = method.pick_and_value(pa.table({"lm_loss": loss, "reference_loss": reference}), 0)
    excess = [None if i in (3, 5) else float(loss[i]) - float(reference[i]) for i in range(24)]
    assert np.concatenate(picks).tolist() == by_hand(excess, 4, 2)
    assert method.values[-1] == "excess_loss" and np.flatnonzero(np.isnan(told["excess_loss"])).tolist() == [3, 5]
    other = built(methods.RhoLoss, column="a", reference_column="b")
    assert other.needs == ("a", "b") and other.input_columns == ()


def test_a_constant_reference_leaves_max_loss():
    loss = np.random.default_rng(3).random(24)
    table = pa.table({"lm_loss": loss, "reference_loss": np.full(24, 0.25)})
    rho, highest = built(methods.RhoLoss, reference=LM).pick(table, 0), built(methods.MaxLoss).pick(table, 0)
    assert [p.tolist() for p in rho] == [p.tolist() for p in highest]


def test_all_are_kept_if_nothing_is_filtered():
    table = pa.table({"lm_loss": np.random.default_rng(4).random(24)})
    picks = np.concatenate(built(methods.MaxLoss, filter_ratio=0).pick(table, 0))
    assert sorted(picks.tolist()) == list(range(24))


def test_a_micro_batch_is_the_ranks_share_if_none_is_given():
    scores = np.arange(24.0)
    picks = built(methods.MaxLoss, micro_batch=None).pick(pa.table({"lm_loss": scores}), 0)
    assert [p.tolist() for p in picks] == [[11, 10, 9, 8, 7, 6], [23, 22, 21, 20, 19, 18]]


# --------------------------------------------------------------------------------------------------------------- random
def test_random_picks_by_seed_step_and_rank():
    table = pa.table({"": pa.nulls(24)}).select([])
    method = built(methods.Random, seed=5)
    assert method.needs == () and method.independent and not hasattr(method, "pick_and_value")
    picks = method.pick(table, 7)
    for rank, ours in enumerate(picks):
        assert (ours // 4).tolist() == [3 * rank + i // 2 for i in range(6)] and len(set(ours.tolist())) == 6
    again = built(methods.Random, seed=5).pick(table, 7)
    assert all(np.array_equal(one, other) for one, other in zip(picks, again, strict=True))
    assert (picks[0] % 4).tolist() != (picks[1] % 4).tolist()
    for other in (built(methods.Random, seed=6).pick(table, 7), method.pick(table, 8)):
        assert np.concatenate(other).tolist() != np.concatenate(picks).tolist()


def test_random_picks_every_row_as_often():
    method, table = built(methods.Random), pa.table({"": pa.nulls(24)}).select([])
    counts = np.bincount(np.concatenate([p for step in range(500) for p in method.pick(table, step)]), minlength=24)
    assert counts.sum() == 6000 and chisquare(counts).pvalue > 0.01


# ------------------------------------------------------------------------------------------------------------- refusals
def test_columns_without_numbers_are_refused():
    method = built(methods.MaxLoss, column="mine", from_input=True)
    schema = pa.schema([("mine", pa.list_(pa.float32()))])
    with pytest.raises(ColumnError, match="`mine` is a column of list<.*a score must be a number: name another column"):
        method.check_columns(schema)
    with pytest.raises(ValueError, match="`superbatch` has 4 rows; it must have 24"):
        method.pick(pa.table({"mine": [1.0] * 4}), 0)


def test_the_remedy_names_what_to_set():
    for kind, words in ((methods.MaxLoss, "sample.column"), (methods.RhoLoss, "sample.reference_column")):
        over = {"reference": LM} if kind is methods.RhoLoss else {}
        remedy = built(kind, **over).remedy
        assert words in remedy and "sample.logits" in remedy and "`sample.from_input: true`" in remedy


def test_sections_that_contradict_themselves_are_refused():
    with pytest.raises(ValidationError, match="`from_input` takes the scores from the input, `logits` and `reference`"):
        methods.MaxLoss(from_input=True, logits=LM)
    with pytest.raises(ValidationError, match="`rho_loss` compares with a model trained on held-out data; give"):
        methods.RhoLoss()
    assert methods.RhoLoss(from_input=True).prepares() == []
    with pytest.raises(
        ValidationError, match="`micro_batch` is 5; it must divide the 24 draws.* one of 2, 4, 6, 8, 12, 24"
    ):
        built(methods.MaxLoss, micro_batch=5, world_size=1)


@pytest.mark.parametrize(("size", "count"), [(5, 1), (0, 1), (4, 0), (4, 5)])
def test_best_names_what_is_wrong(size, count):
    with pytest.raises(ValueError, match=f"`(size|count)` is ({size}|{count}); it must"):
        best(np.zeros(8), size, count)


def test_one_word_compares_them():
    shared = {"logits": LM, "reference": LM, "validation": "held_out.parquet", "micro_batch": 8, "alpha": 0.1}
    for kind in ("uds", "random", "max_loss", "max_entropy", "gradient_norm", "rho_loss", "greats"):
        section = next(m for m in vars(configs).values() if getattr(m, "model_fields", {}).get("kind") is not None
                       and m.model_fields["kind"].default == kind)  # fmt: skip
        method = load(METHODS, section(**shared, superbatch_size=16), seed=0)
        made = {name for score in section(**shared, superbatch_size=16).prepares() for name in (score.kind,)}
        assert bool(method.needs) == bool(made) == (kind != "random")
