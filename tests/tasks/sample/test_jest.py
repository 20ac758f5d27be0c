"""JEST: the worked example, a brute force of the definition, properties, and the sampler against explicit matrices."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import chisquare

from configs.methods import sample as methods
from tasks import load
from tasks.embed.encoder import single_threads
from tasks.embed.vectors import field, pack
from tasks.sample import METHODS, pairs
from tasks.sample.jest import Jest, select_joint

LEARNER = [[2, 0.5, 0.1, 0.2], [0.4, 1, 0.3, 0.1], [0, 0.2, 3, 0.6], [0.3, 0.1, 0.5, 0.4]]
REFERENCE = [[0.5, 0.1, 0.1, 0.1], [0.2, 0.9, 0.1, 0.1], [0, 0.1, 2.8, 0.2], [0.1, 0.1, 0.1, 0.1]]
SCALES = {"learner": (12.0, -4.0), "reference": (20.0, -7.0)}


def matrices(count, seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, count)), rng.standard_normal((count, count))


def logits_given(learner, reference, chosen, form):
    """The definition, row by row in plain Python."""
    own = [learner[i][i] - reference[i][i] for i in range(len(learner))]
    if not chosen:
        return own
    if form == "sigmoid":
        s = np.subtract(learner, reference)
        return [own[i] + sum(s[j][i] + s[i][j] for j in chosen) for i in range(len(own))]

    def against(m, i):
        return 0.5 * sum(np.log(sum(np.exp(x) for x in row)) for row in ([m[i][j] for j in chosen], m[chosen, i]))

    return [own[i] + against(learner, i) - against(reference, i) for i in range(len(own))]


def brute_force(learner, reference, batch_size, chunks, form):
    """Greedy picks, every logit anew before every chunk."""
    chosen: list[int] = []
    for chunk in range(chunks):
        size = batch_size // chunks if chunk < chunks - 1 else batch_size - len(chosen)
        logits = logits_given(np.asarray(learner), np.asarray(reference), chosen, form)
        left = [i for i in range(len(logits)) if i not in chosen]
        chosen += sorted(left, key=lambda i: (-logits[i], i))[:size]
    return chosen


# ---------------------------------------------------------------------------------------------------------- the function
def test_worked_example():
    assert select_joint(LEARNER, REFERENCE, 2, chunks=2, greedy=True).tolist() == [0, 1]
    assert select_joint(LEARNER, REFERENCE, 2, chunks=1, greedy=True).tolist() == [0, 3]  # RHO
    assert logits_given(LEARNER, REFERENCE, [0], "sigmoid")[1:] == pytest.approx([0.7, 0.2, 0.6])


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 30), st.data(), st.sampled_from(["sigmoid", "softmax"]))
def test_greedy_picks_are_the_brute_force(seed, count, data, form):
    batch_size = data.draw(st.integers(1, count))
    chunks = data.draw(st.integers(1, batch_size))
    learner, reference = matrices(count, seed)
    picks = select_joint(learner, reference, batch_size, form=form, chunks=chunks, greedy=True)
    assert picks.dtype == np.int64 and picks.tolist() == brute_force(learner, reference, batch_size, chunks, form)


@pytest.mark.parametrize("form", ["sigmoid", "softmax"])
def test_greedy_without_interaction_is_rho_for_every_number_of_chunks(form):
    rng = np.random.default_rng(1)
    diagonal = rng.permutation(np.repeat(np.arange(20.0), 2))  # with ties
    rho = np.argsort(-diagonal, kind="stable")[:17].tolist()
    shared = rng.standard_normal((40, 40))
    for chunks in range(1, 18):
        assert select_joint(np.diag(diagonal), np.zeros((40, 40)), 17, chunks=chunks, greedy=True).tolist() == rho
        # Whatever both models think of the pairs, as long as they agree on them.
        learner = shared.copy()
        np.fill_diagonal(learner, shared.diagonal() + diagonal)
        picks = select_joint(learner, shared, 17, form=form, chunks=chunks, greedy=True)
        assert sorted(diagonal[picks].tolist()) == sorted(diagonal[rho].tolist())


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 40), st.data(), st.sampled_from(["sigmoid", "softmax"]), st.booleans())
def test_no_row_twice_and_the_same_again(seed, count, data, form, greedy):
    batch_size = data.draw(st.integers(1, count))
    chunks = data.draw(st.integers(1, batch_size))
    picks, again = (
        select_joint(*matrices(count, seed), batch_size, form=form, chunks=chunks, greedy=greedy, seed=seed)
        for _ in range(2)
    )
    assert np.array_equal(picks, again)
    assert len(picks) == batch_size == len(set(picks.tolist())) and 0 <= picks.min() and picks.max() < count


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("form", ["sigmoid", "softmax"])
def test_a_constant_added_to_everything_changes_nothing(form, greedy):
    learner, reference = (np.round(m * 64) / 64 for m in matrices(60, 2))  # sums are exact
    options = {"form": form, "chunks": 7, "greedy": greedy, "seed": 3}
    picks = select_joint(learner, reference, 25, **options)
    assert np.array_equal(select_joint(learner + 8, reference, 25, **options), picks)
    assert np.array_equal(select_joint(learner, reference - 2.5, 25, **options), picks)


def test_equal_logits_go_by_index_and_the_remainder_to_the_last_chunk():
    zeros = np.zeros((9, 9))
    assert select_joint(zeros, zeros, 7, chunks=3, greedy=True).tolist() == list(range(7))
    # Rows 0 to 3 are good by themselves; 8 only beside row 0. Chunks of 2, 2, 3: it comes third, of 3, 3 fourth.
    learner = np.diag([9.0, 8, 7, 6, 0, 0, 0, 0, 0])
    learner[0, 8] = 100
    assert select_joint(learner, zeros, 7, chunks=3, greedy=True).tolist()[:4] == [0, 1, 8, 2]
    assert select_joint(learner, zeros, 7, chunks=2, greedy=True).tolist()[:4] == [0, 1, 2, 8]
    assert select_joint(learner.T, zeros, 7, chunks=2, greedy=True).tolist()[:4] == [0, 1, 2, 8]


@pytest.mark.parametrize("form", ["sigmoid", "softmax"])
def test_draws_have_the_probabilities_of_the_softmax(form):
    learner, reference = matrices(6, 5)
    first, second = np.zeros(6), np.zeros(6)
    draws = [select_joint(learner, reference, 2, form=form, chunks=2, seed=seed).tolist() for seed in range(6000)]
    own = np.array(logits_given(learner, reference, [], form))
    for one, two in draws:
        first[one] += 1
        second[two] += 1
    expected = np.exp(own) / np.exp(own).sum()
    assert chisquare(first, 6000 * expected).pvalue > 0.01
    conditional = np.zeros(6)
    for one in range(6):
        weights = np.exp(logits_given(learner, reference, [one], form))
        weights[one] = 0
        conditional += expected[one] * weights / weights.sum()
    assert chisquare(second, 6000 * conditional).pvalue > 0.01


def test_one_chunk_draws_without_replacement_one_after_the_other():
    """The chance of the ordered pair (i, j) is p_i p_j / (1 - p_i)."""
    own = np.log([0.5, 0.3, 0.2])
    draws = [select_joint(np.diag(own), np.zeros((3, 3)), 2, chunks=1, seed=seed).tolist() for seed in range(4000)]
    p = np.exp(own)
    ordered = [(i, j) for i in range(3) for j in range(3) if i != j]
    counts = [sum(draw == [i, j] for draw in draws) for i, j in ordered]
    assert chisquare(counts, [4000 * p[i] * p[j] / (1 - p[i]) for i, j in ordered]).pvalue > 0.01


def test_large_numbers_do_not_overflow():
    learner, reference = matrices(20, 6)
    picks = select_joint(1e4 * learner, 1e4 * reference, 9, form="softmax", chunks=4)
    assert len(set(picks.tolist())) == 9
    small = select_joint(learner.astype(np.float32), reference.astype(np.float32), 9, chunks=4, greedy=True)
    assert small.tolist() == brute_force(learner, reference, 9, 4, "sigmoid")


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        ((np.zeros((2, 3)), np.zeros((2, 3)), 1), {}, r"`learner_loss` is float64 of shape \(2, 3\); it must be a sq"),
        ((np.zeros((2, 2)), np.zeros(2), 1), {}, r"`reference_loss` is float64 of shape \(2,\)"),
        ((np.zeros((2, 2)), np.zeros((3, 3)), 1), {}, r"`reference_loss` is \(3, 3\); it must be as `learner_loss`"),
        (([["a"]], [[0]], 1), {}, r"`learner_loss` is <U1 of shape"),
        ((np.zeros((2, 2)), [[0, 0], [np.nan, 0]], 1), {}, r"`reference_loss` holds nan at \(1, 0\); every loss"),
        (([[0, np.inf], [0, 0]], np.zeros((2, 2)), 1), {}, r"`learner_loss` holds inf at \(0, 1\)"),
        ((LEARNER, REFERENCE, 5), {}, r"`batch_size` is 5; it must be a whole number in \[1, 4\]"),
        ((LEARNER, REFERENCE, 0), {}, "`batch_size` is 0"),
        ((LEARNER, REFERENCE, 2.0), {}, "`batch_size` is 2.0"),
        ((np.zeros((0, 0)), np.zeros((0, 0)), 1), {}, "`batch_size` is 1"),
        ((LEARNER, REFERENCE, 2), {"chunks": 0}, r"`chunks` is 0; it must be a whole number in \[1, 2\]"),
        ((LEARNER, REFERENCE, 2), {"chunks": 3}, "`chunks` is 3; .* 2 being `batch_size`"),
        ((LEARNER, REFERENCE, 2), {}, "`chunks` is 16"),
        (
            (LEARNER, REFERENCE, 2),
            {"chunks": 1, "form": "clip"},
            "`form` is 'clip'; it must be one of sigmoid, softmax",
        ),
        ((LEARNER, REFERENCE, 2), {"chunks": 1, "seed": -1}, "`seed` is -1; it must be an integer of at least 0"),
    ],
)
def test_refusals(arguments, options, says):
    with pytest.raises(ValueError, match=says):
        select_joint(*arguments, **options)


# ----------------------------------------------------------------------------------------------------------- the sampler
def unit(count, dim, seed):
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def related(count, dim, seed):
    """Images and texts, each pair more or less alike."""
    images, rng = unit(count, dim, seed), np.random.default_rng(seed + 1)
    texts = images + rng.uniform(0.1, 3, (count, 1)) * unit(count, dim, seed + 2)
    return images, (texts / np.linalg.norm(texts, axis=1, keepdims=True)).astype(np.float32)


def superbatch(count=200, seed=0, dim=24):
    """The columns as the stage passes them: sidecars of the learner, lists of the reference, of another width."""
    images, texts = related(count, dim, seed)
    valid = np.ones(count, bool)
    clean = related(count, dim // 2, seed + 10)
    columns = {"image_embedding": pack(images, valid), "text_embedding": pack(texts, valid)}
    columns |= {name: pa.array(list(3 * vectors)) for name, vectors in zip(("clean_image", "clean_text"), clean)}
    fields = [field("image_embedding", dim), field("text_embedding", dim)]
    fields += [pa.field(name, pa.list_(pa.float32())) for name in ("clean_image", "clean_text")]
    return pa.table(columns, schema=pa.schema(fields))


def config(**over):
    learner, reference = (dict(zip(("logit_scale", "logit_bias"), SCALES[name])) for name in ("learner", "reference"))
    reference |= {"image": "clean_image", "text": "clean_text"}
    if over.get("form") == "softmax":
        learner["logit_bias"] = reference["logit_bias"] = 0.0
    base = {"batch_size": 40, "filter_ratio": 0.8, "chunks": 5, "learner": learner, "reference": reference}
    return methods.Jest(**base | over)


def explicit(table, form):
    """The learner's and the reference's matrices in float64, from the table's own numbers."""
    found = []
    for name, columns in (
        ("learner", ("image_embedding", "text_embedding")),
        ("reference", ("clean_image", "clean_text")),
    ):
        vectors = []
        for column in columns:
            values = table[column].to_pylist()
            rows = [np.frombuffer(v, "<f2") if isinstance(v, bytes) else v for v in values]
            rows = np.array(rows, np.float64)
            vectors.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        cosines = vectors[0] @ vectors[1].T
        scale, bias = SCALES[name]
        if form == "sigmoid":
            found.append(np.logaddexp(0, -(2 * np.eye(len(rows)) - 1) * (scale * cosines + bias)))
        else:
            found.append(scale * np.where(np.eye(len(rows), dtype=bool), -cosines, cosines))
    return found


@pytest.mark.parametrize("world_size", [1, 4])
@pytest.mark.parametrize("form", ["sigmoid", "softmax"])
@pytest.mark.parametrize("criterion", ["learnability", "easy_reference", "hard_learner"])
def test_greedy_picks_are_those_of_the_explicit_matrices(form, criterion, world_size):
    table = superbatch()
    settled = config(form=form, criterion=criterion, world_size=world_size, greedy=True)
    found = load(METHODS, settled, seed=5).pick(table, 3)
    share = 200 // world_size
    for rank, picks in enumerate(found):
        learner, reference = explicit(table.slice(rank * share, share), form)
        learner = 0 * learner if criterion == "easy_reference" else learner
        reference = 0 * reference if criterion == "hard_learner" else reference
        expected = select_joint(learner, reference, 40 // world_size, form=form, chunks=5, greedy=True)
        assert picks.dtype == np.int64 and (picks - rank * share).tolist() == expected.tolist()


def test_draws_follow_seed_step_and_rank_and_nothing_else():
    table = superbatch()
    first = load(METHODS, config(), seed=5).pick(table, 3)[0]
    assert np.array_equal(first, load(METHODS, config(), seed=5).pick(table, 3)[0])
    sampler = load(METHODS, config(), seed=5)
    others = [load(METHODS, config(), seed=6).pick(table, 3)[0], sampler.pick(table, 4)[0]]
    assert np.array_equal(sampler.pick(table, 3)[0], first) and sampler.independent
    assert all(not np.array_equal(first, other) for other in others)
    twice = pa.concat_tables([table.slice(0, 100), table.slice(0, 100)])
    one, two = load(METHODS, config(world_size=2, chunks=2), seed=5).pick(twice, 0)
    assert not np.array_equal(one, two - 100)


@pytest.mark.parametrize("form", ["sigmoid", "softmax"])
def test_draws_are_those_of_the_explicit_matrices(form, monkeypatch):
    table, make = superbatch(), np.random.default_rng
    picks = load(METHODS, config(form=form), seed=5).pick(table, 3)[0]
    matrices_of_it = explicit(table, form)
    monkeypatch.setattr(np.random, "default_rng", lambda seed: make([5, 3, 0]))
    assert np.array_equal(picks, select_joint(*matrices_of_it, 40, form=form, chunks=5))


@pytest.mark.parametrize("form", ["sigmoid", "softmax"])
def test_neither_blocks_nor_threads_nor_chunks_of_columns_change_the_picks(form, monkeypatch):
    table = superbatch(400)
    settled = config(batch_size=80, form=form)
    whole = Jest(settled, seed=1).pick(table, 0)[0]
    cut = pa.concat_tables([table.slice(0, 1), table.slice(1, 250), table.slice(251)])
    assert np.array_equal(Jest(settled, seed=1).pick(cut, 0)[0], whole)
    monkeypatch.setattr(pairs, "BLOCK_ROWS", 64)
    assert np.array_equal(Jest(settled, seed=1).pick(table, 0)[0], whole)
    both = [pairs.Pairs(unit(400, 48, 1), unit(400, 48, 2), methods.Towers(image="", text="", logit_scale=9), form)]
    new, bytes_ = np.arange(30), []
    for workers in (1, 3):
        pool = single_threads(workers)
        monkeypatch.setattr(pairs, "_threads", lambda pool=pool: pool)
        bytes_.append(pairs.given(both, new).tobytes())
    assert bytes_[0] == bytes_[1]


def broken(table, name, rows):
    """The table with other values in some rows of a column."""
    values = table[name].to_pylist()
    for row, value in rows.items():
        values[row] = value
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(name), pa.array(values, table.schema.field(name).type))


@pytest.mark.parametrize("greedy", [True, False])
def test_rows_without_a_sound_vector_come_last_and_count_for_no_other(greedy):
    table, unsound = superbatch(50), [0, 7, 20, 21, 33, 49]
    for name, rows in (
        ("clean_image", {7: None, 20: [0.0] * 12, 49: [1.0]}),
        ("clean_text", {0: [np.nan] * 12, 21: [1.0] * 11 + [None]}),
        ("image_embedding", {33: None}),
    ):
        table = broken(table, name, rows)
    sound = [row for row in range(50) if row not in unsound]
    picks = Jest(config(batch_size=10, greedy=greedy)).pick(table, 0)[0]
    assert not set(picks.tolist()) & set(unsound)
    if greedy:
        learner, reference = explicit(table.take(sound), "sigmoid")
        expected = select_joint(learner, reference, 10, chunks=5, greedy=True)
        assert picks.tolist() == np.array(sound)[expected].tolist()
    everything = Jest(config(batch_size=50, filter_ratio=0.0, greedy=greedy)).pick(table, 0)[0]
    assert sorted(everything.tolist()) == list(range(50)) and everything[-6:].tolist() == unsound


def test_nothing_but_broken_rows_and_a_stray_width_at_the_head():
    table = superbatch(50)
    nothing = broken(table, "clean_text", dict.fromkeys(range(50)))
    assert Jest(config(batch_size=10)).pick(nothing, 0)[0].tolist() == list(range(10))
    stray = broken(table, "clean_text", {0: [1.0, 2.0], 1: []})
    picks = Jest(config(batch_size=50, filter_ratio=0.0)).pick(stray, 0)[0]
    assert picks[-2:].tolist() == [0, 1] and picks[:48].tolist() != list(range(2, 50))


def test_what_it_reads_depends_on_the_criterion():
    four = ("image_embedding", "text_embedding", "clean_image", "clean_text")
    assert Jest(config()).needs == four and Jest(config()).input_columns == four[2:]
    assert Jest(config(criterion="easy_reference", learner=None)).needs == four[2:]
    hard = Jest(config(criterion="hard_learner", reference=None))
    assert hard.needs == four[:2] and hard.input_columns == ()
    swapped = config(learner={"image": "a", "text": "a", "logit_scale": 1}, reference=config().learner.model_dump())
    assert Jest(swapped).needs == ("a", *four[:2]) and Jest(swapped).input_columns == ("a",)


def test_columns_that_do_not_fit_are_refused():
    table = superbatch(50)
    with pytest.raises(ValueError, match="`superbatch` has 49 rows; it must have 50"):
        Jest(config(batch_size=10)).pick(table.slice(1), 0)
    mixed = config(batch_size=10, learner={"image": "image_embedding", "text": "clean_text", "logit_scale": 1})
    with pytest.raises(
        ValueError, match="`image_embedding` has 24 numbers and `clean_text` 12; the two columns of one"
    ):
        Jest(mixed).pick(table, 0)
    words = table.set_column(2, "clean_image", pa.array(["a"] * 50))
    with pytest.raises(ValueError, match="`clean_image` is a column of string; embeddings must be lists of numbers"):
        Jest(config(batch_size=10)).pick(words, 0)


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ({"reference": None}, "`reference` is missing, which `criterion` learnability compares"),
        ({"learner": None}, "`learner` is missing"),
        ({"learner": None, "criterion": "hard_learner"}, "`learner` is missing, which `criterion` hard_learner"),
        ({"learner": {"logit_scale": 0}}, "logit_scale"),
        ({"learner": {}}, "logit_scale"),
        ({"reference": {"logit_scale": 3}}, "image"),
        ({"chunks": 41}, "`chunks` is 41; it must be at most the rows of a batch on one rank, which are 40"),
        ({"chunks": 11, "world_size": 4}, "`chunks` is 11; .* which are 10"),
        (
            {"form": "softmax", "learner": {"logit_scale": 9, "logit_bias": -3}},
            "`learner.logit_bias` is -3.0, which on",
        ),
        ({"reference": methods.LearnerTowers(logit_scale=12, logit_bias=-4).model_dump()}, "are the same: every row"),
    ],
)
def test_refusals_of_the_configuration(over, says):
    with pytest.raises(ValidationError, match=says):
        config(**over)
