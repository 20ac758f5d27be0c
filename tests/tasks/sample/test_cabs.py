"""CABS: worked examples, a brute force of the definition, and properties."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.methods import sample as methods
from tasks import load
from tasks.sample import METHODS, cabs
from tasks.sample.cabs import CabsDm, CabsFm, encode, select_diverse, select_frequent, target_counts

EIGHT = [["dog"], ["dog", "person"], ["person", "person", "car"], ["cat"], ["dog", "cat"], ["zebra"], ["person"], []]
SEVEN = [["a", "b"], ["a"], ["a"], ["b"], ["c"], ["a", "c"], ["b", "c"]]


def brute_force(rows, batch_size, *, maximum=10, variant="released", targets=None, frequencies=None, fill=False):
    """Every score anew before every pick, in plain Python; rows without concepts in order after the rest."""
    if variant == "printed":
        rows = [list(dict.fromkeys(row)) for row in rows]
    names = sorted({c for row in rows for c in row})
    if targets is None:
        targets = dict(zip(names, target_counts(len(names), batch_size, maximum=maximum).tolist(), strict=True))
    if frequencies is None:
        frequencies = {c: sum(c in row for row in rows) for c in names}
    met = 0.0 if variant == "printed" else -0.5
    counts = dict.fromkeys(names, 0)
    left = {i for i, row in enumerate(rows) if row}
    picks = []
    while len(picks) < batch_size:
        best = None
        for i in sorted(left):
            total, full = 0.0, 0
            for c in rows[i]:
                t, n = targets[c], counts[c]
                total += (t - n) / max(1, t) + 1 / max(1, frequencies[c]) if n < t else met
                full += variant == "released" and n >= maximum
            score = total / len(rows[i]) - 3.0 * full
            if (fill or not full) and (best is None or score > best[0]):
                best = score, i
        if best is None:
            break
        picks.append(best[1])
        left.remove(best[1])
        for c in rows[best[1]]:
            counts[c] += 1
    empty = [i for i, row in enumerate(rows) if not row]
    return picks + empty[: batch_size - len(picks)]


def zipf_rows(rng, num_rows, num_concepts, mean=2.0, least=1):
    """Rows of `least` + Poisson draws with replacement, concept i drawn in proportion to 1 / (i + 1)."""
    p = 1 / np.arange(1, num_concepts + 1)
    return [rng.choice(num_concepts, least + rng.poisson(mean), p=p / p.sum()).tolist() for _ in range(num_rows)]


def boxes(rows, picks, num_concepts):
    return np.bincount([c for i in picks for c in rows[i]], minlength=num_concepts)


# --------------------------------------------------------------------------------------------------- worked examples
def test_worked_example_of_eight_rows():
    assert select_diverse(EIGHT, 4).tolist() == [5, 2, 3, 0]
    assert select_diverse(EIGHT, 8).tolist() == [5, 2, 3, 0, 4, 1, 6, 7]
    assert select_diverse(EIGHT, 8, fill=True).tolist() == [5, 2, 3, 0, 4, 1, 6, 7]
    assert select_diverse(EIGHT, 4, variant="printed").tolist() == [5, 2, 3, 0]
    assert select_frequent(EIGHT, 4).tolist() == [2, 1, 4, 0]


def test_worked_example_where_the_cap_binds():
    assert select_diverse(SEVEN, 5, maximum=2).tolist() == [3, 4, 1, 0]
    # Left are 2 [a], 5 [a, c] and 6 [b, c], at a 2, b 2, c 1: one full label each; 5 and 6 tie at a mean of -0.5
    # with 2, so the lowest index comes first.
    assert select_diverse(SEVEN, 5, maximum=2, fill=True).tolist() == [3, 4, 1, 0, 2]


def test_worked_example_with_two_workers():
    rows = [["abc".index(c) for c in row] for row in SEVEN]
    shared = {"maximum": 2, "targets": [2, 1, 1], "frequencies": np.float32([4, 3, 3])}
    assert target_counts(3, 4, maximum=2).tolist() == [2, 1, 1]
    assert select_diverse(rows[:4], 2, **shared).tolist() == [3, 1]
    assert select_diverse(rows[4:], 2, **shared).tolist() == [0, 2]


def test_worked_example_of_a_round_robin():
    rows = [[c] for c in "abc" * 4]
    assert target_counts(3, 7).tolist() == [3, 2, 2]
    assert select_diverse(rows, 7).tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_worked_example_of_coverage():
    rows = zipf_rows(np.random.default_rng(1), 2000, 3000)
    diverse, frequent = boxes(rows, select_diverse(rows, 400), 3000), boxes(rows, select_frequent(rows, 400), 3000)
    iid = boxes(rows, np.random.default_rng(0).permutation(2000)[:400], 3000)
    distinct = [int((n > 0).sum()) for n in (boxes(rows, range(2000), 3000), diverse, frequent, iid)]
    assert distinct == [1378, 807, 733, 497]
    assert diverse.max() == 10
    assert [diverse.sum() / 400, iid.sum() / 400, frequent.sum() / 400] == [2.48, 3.0825, 5.29]


@pytest.mark.parametrize(
    ("num_concepts", "expected"),
    [(100, {10: 100}), (409, {10: 409}), (410, {10: 406, 9: 4}), (3234, {2: 862, 1: 2372}), (5000, {1: 5000}), (0, {})],
)
def test_target_counts(num_concepts, expected):
    targets = target_counts(num_concepts, 4096)
    assert targets.dtype == np.int64
    assert dict(zip(*(x.tolist() for x in np.unique(targets, return_counts=True)), strict=True)) == expected
    assert (np.diff(targets) <= 0).all(), "the remainder goes to the first concepts"


def test_target_counts_bounds():
    assert target_counts(5, 4).tolist() == [1] * 5
    assert target_counts(4, 6, minimum=2, maximum=3).tolist() == [1, 1, 1, 1], "2 * 6 // 8"
    assert target_counts(2, 100, minimum=4, maximum=4).tolist() == [4, 4]


# ------------------------------------------------------------------------------------------------------- brute force
@pytest.mark.parametrize("variant", ["released", "printed"])
@pytest.mark.parametrize("fill", [False, True])
def test_picks_are_those_of_brute_force(variant, fill):
    rng = np.random.default_rng([variant == "printed", fill])
    short = 0
    for _ in range(250):
        num_rows, num_concepts = rng.integers(1, 45), rng.integers(1, 25)
        rows = zipf_rows(rng, num_rows, num_concepts, mean=rng.uniform(0, 3), least=int(rng.integers(0, 2)))
        options = {"maximum": int(rng.integers(1, 6)), "variant": variant, "fill": fill}
        if rng.random() < 0.3:
            options |= {"targets": rng.integers(0, 6, num_concepts), "frequencies": rng.integers(0, 6, num_concepts)}
        b = int(rng.integers(1, num_rows + 3))
        picks = select_diverse(rows, b, seed=3, **options).tolist()
        expected = brute_force(rows, b, **options)
        if not fill and variant == "released":  # rows without concepts come in random order
            greedy = [i for i in expected if rows[i]]
            assert picks[: len(greedy)] == greedy
            assert len(picks) == len(expected) and all(not rows[i] for i in picks[len(greedy) :])
        else:
            assert picks == expected
        short += len(picks) < min(b, num_rows)
    assert (short > 20) == (variant == "released" and not fill)


def test_picks_are_those_of_brute_force_on_more_rows():
    rows = zipf_rows(np.random.default_rng(5), 600, 900)
    assert select_diverse(rows, 200, fill=True).tolist() == brute_force(rows, 200, fill=True)
    assert select_diverse(rows, 200, variant="printed").tolist() == brute_force(rows, 200, variant="printed")


def test_default_targets_count_the_concepts_that_occur():
    rows, shared = [[5], [2], [5], [2]], np.array([0, 0, 2, 0, 0, 2])
    assert select_diverse(rows, 3, frequencies=shared).tolist() == select_diverse(rows, 3).tolist()


# -------------------------------------------------------------------------------------------------------- properties
some_rows = st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=25)


@settings(max_examples=150, deadline=None)
@given(some_rows, st.integers(1, 30), st.integers(1, 5), st.sampled_from(["released", "printed"]), st.booleans())
def test_diverse_indices_are_valid_and_bounded(rows, b, maximum, variant, fill):
    picks = select_diverse(rows, b, maximum=maximum, variant=variant, fill=fill)
    assert picks.dtype == np.int64
    assert len(set(picks.tolist())) == len(picks) <= min(b, len(rows))
    assert all(0 <= i < len(rows) for i in picks)
    assert picks.tolist() == select_diverse(rows, b, maximum=maximum, variant=variant, fill=fill).tolist()
    if fill or variant == "printed":
        assert len(picks) == min(b, len(rows))
    elif len(picks):
        most = max((row.count(c) for row in rows for c in row), default=0)
        assert boxes(rows, picks, 10).max() <= maximum - 1 + most
    lengths = [len(rows[i]) for i in picks]
    if fill or variant == "printed":
        assert 0 not in lengths[: sum(1 for row in rows if row)], "rows without concepts come last"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), max_size=25), st.integers(1, 30))
def test_fill_goes_on_where_the_greedy_loop_stops(rows, b):
    without, filled = select_diverse(rows, b, maximum=2), select_diverse(rows, b, maximum=2, fill=True)
    assert filled[: len(without)].tolist() == without.tolist()


@settings(max_examples=100, deadline=None)
@given(some_rows, st.integers(1, 30))
def test_frequent_keeps_the_longest(rows, b):
    picks = select_frequent(rows, b)
    lengths = np.array([len(row) for row in rows], dtype=int)
    assert picks.dtype == np.int64 and len(set(picks.tolist())) == len(picks) == min(b, len(rows))
    assert lengths[picks].tolist() == sorted(lengths, reverse=True)[:b]
    assert picks.tolist() == sorted(range(len(rows)), key=lambda i: -lengths[i])[:b]


def test_frequent_with_equal_lengths_keeps_the_first():
    assert select_frequent([["x", "y"]] * 9, 5).tolist() == [0, 1, 2, 3, 4]


@settings(max_examples=100)
@given(some_rows, st.integers(1, 25), st.integers(1, 4), st.sampled_from(["released", "printed"]))
def test_gains_lie_in_bounds_and_never_rise(rows, b, maximum, variant):
    """The bounds that the kernel stands on, by the formula itself along its picks."""
    sets = [list(dict.fromkeys(row)) for row in rows] if variant == "printed" else rows
    names = sorted({c for row in rows for c in row})
    targets = dict(zip(names, target_counts(len(names), b, maximum=maximum).tolist(), strict=True))
    frequency = {c: sum(c in row for row in rows) for c in names}
    met, counts = 0.0 if variant == "printed" else -0.5, dict.fromkeys(names, 0)

    def gains():
        worth = {
            c: (targets[c] - n) / targets[c] + 1 / frequency[c] if n < targets[c] else met for c, n in counts.items()
        }
        return np.array([sum(worth[c] for c in row) / len(row) if row else met for row in sets])

    before = gains()
    for pick in select_diverse(rows, b, maximum=maximum, variant=variant):
        for c in sets[pick]:
            counts[c] += 1
        now = gains()
        assert (now <= before).all() and (now >= -0.5).all() and (before <= 2).all()
        before = now


def test_a_unique_concept_is_worth_two_the_most_there_is():
    rows = [["a"], ["a", "b"], ["b"], ["only"], ["a", "b"]]
    assert select_diverse(rows, 3)[0] == 3
    assert select_diverse([["a", "only"], ["rare"], ["a"]], 1).tolist() == [1], "1.75 and 2"


@settings(max_examples=60)
@given(st.integers(2, 6), st.integers(1, 8), st.data())
def test_singletons_of_equal_frequency_take_turns(concepts, each, data):
    rows = data.draw(st.permutations([[c] for c in range(concepts) for _ in range(each)]))
    b = data.draw(st.integers(1, concepts * each))
    t = target_counts(concepts, b)
    counts = np.zeros(concepts, int)
    for pick in select_diverse(rows, b):
        if (counts < t).all():
            assert counts.max() - counts.min() <= 1
        counts[rows[pick][0]] += 1


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=4, unique=True), min_size=1, max_size=20))
def test_a_cap_of_one_is_greedy_set_packing(rows):
    frequency = {c: sum(c in row for row in rows) for row in rows for c in row}
    left, expected = list(range(len(rows))), []
    while left:
        best = max(left, key=lambda i: (sum(1 + 1 / frequency[c] for c in rows[i]) / len(rows[i]), -i))
        expected.append(best)
        left = [i for i in left if not set(rows[i]) & set(rows[best])]
    assert select_diverse(rows, len(rows), maximum=1).tolist() == expected


def test_rows_without_concepts_come_after_every_row_that_is_chosen_or_void():
    rows = [[], ["a"], [], ["a"], ["a", "b"], []]
    picks = select_diverse(rows, 5, maximum=1).tolist()
    assert picks[0] == 4 and sorted(picks[1:]) == [0, 2, 5], "rows 1 and 3 are void"
    assert select_diverse(rows, 6, maximum=1, fill=True).tolist() == [4, 1, 3, 0, 2, 5]


def test_first_pick_has_the_rarest_concepts_whatever_the_targets():
    rows = zipf_rows(np.random.default_rng(2), 300, 200)
    frequency = {c: sum(c in row for row in rows) for c in range(200)}
    expected = int(np.argmax([sum(1 + 1 / frequency[c] for c in row) / len(row) for row in rows]))
    assert {int(select_diverse(rows, b)[0]) for b in (1, 50, 300)} == {expected}


def test_singletons_with_targets_of_one_cover_rarest_first():
    rng = np.random.default_rng(3)
    rows = [[int(c)] for c in rng.zipf(1.5, 400).clip(max=60)]
    frequency = np.bincount([row[0] for row in rows])
    picks = select_diverse(rows, 400, targets=np.ones(61, int), maximum=400)
    concepts = [rows[i][0] for i in picks]
    distinct = len(set(concepts))
    assert len(set(concepts[:distinct])) == distinct
    assert frequency[concepts[:distinct]].tolist() == sorted(frequency[concepts[:distinct]])


def test_order_of_rows_and_names_of_concepts_do_not_matter():
    rng = np.random.default_rng(4)
    rows = [rng.choice(40, rng.integers(1, 5)).tolist() for _ in range(60)]
    # Targets out of reach and frequencies with nothing in common: only rows of equal concepts tie.
    shared = {"targets": np.full(40, 30), "frequencies": rng.choice(10_000, 40, replace=False) + 1, "maximum": 6}
    picks = [rows[i] for i in select_diverse(rows, 40, **shared)]
    shuffled = [rows[i] for i in rng.permutation(60)]
    assert [shuffled[i] for i in select_diverse(shuffled, 40, **shared)] == picks
    rename = rng.permutation(40)
    renamed = shared | {"frequencies": shared["frequencies"][np.argsort(rename)]}
    assert [rows[i] for i in select_diverse([rename[row].tolist() for row in rows], 40, **renamed)] == picks


def test_a_concept_in_every_row_voids_all_at_its_cap():
    rows = [["x", str(i)] for i in range(50)]
    assert len(select_diverse(rows, 30)) == 10
    assert len(select_diverse(rows, 30, fill=True)) == len(select_diverse(rows, 30, variant="printed")) == 30


def test_fill_prefers_rows_that_still_add_coverage():
    rows = [["x"]] * 30 + [["x", str(i)] for i in range(10)]
    picks = select_diverse(rows, 15, maximum=2, fill=True)
    assert len({c for i in picks for c in rows[i]}) == 11


def test_nothing_filtered_keeps_everything():
    rows = zipf_rows(np.random.default_rng(6), 64, 500)
    assert sorted(select_diverse(rows, 64, maximum=64)) == list(range(64))


def test_rows_without_concepts_fill_at_random_by_seed():
    rows = [["x"]] + [[]] * 40
    picks = [select_diverse(rows, 20, seed=seed).tolist() for seed in (0, 0, 1)]
    assert picks[0] == picks[1] != picks[2]
    assert all(p[0] == 0 and len(set(p)) == 20 for p in picks)
    assert select_diverse(rows, 20, seed=5, fill=True).tolist() == list(range(20))


# ------------------------------------------------------------------------------------------------------- input forms
NAMES = ["Zebra", "a", "b", "hot dog", "é", "ﬀ", "🦓"]  # by code point; UTF-16 units would put the last before "ﬀ"


@pytest.mark.parametrize(
    "text", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
def test_input_forms_agree(text, kind):
    assert sorted(NAMES) == NAMES
    rng = np.random.default_rng(7)
    ids = [rng.integers(0, len(NAMES), rng.integers(0, 4)).tolist() for _ in range(60)]
    ids[0] = list(range(len(NAMES)))
    rows = [[NAMES[c] for c in row] or None for row in ids]
    type_ = kind(text)
    pieces = [pa.array(part, type_) for part in (rows[:1], [], rows[1:20][::-1][::-1], rows[20:])]
    padded = pa.array([["unused", None], None, *rows, ["more"]], type_).slice(2, 60)
    forms = [ids, rows, [np.array(row, dtype=np.int16) for row in ids], pa.array(ids, kind(pa.int32()))]
    forms += [pa.array(rows, type_), pa.chunked_array(pieces, type_), padded]
    for b in (3, 17, 60):
        diverse = {tuple(select_diverse(form, b, maximum=4, fill=True).tolist()) for form in forms}
        frequent = {tuple(select_frequent(form, b).tolist()) for form in forms}
        assert len(diverse) == len(frequent) == 1
    for form in forms:
        labels = encode(form)
        assert labels.ids.tolist() == [c for row in ids for c in row] and labels.size == len(NAMES)
        assert np.diff(labels.offsets).tolist() == [len(row) for row in ids]


def test_a_dictionary_may_repeat_itself_and_hold_more_than_occurs():
    words = pa.DictionaryArray.from_arrays(pa.array([3, 0, 2, 1], pa.int32()), pa.array(["b", "c", "b", "a", "unused"]))
    labels = encode(pa.ListArray.from_arrays(pa.array([0, 2, 4], pa.int32()), words))
    assert (labels.ids.tolist(), labels.size) == ([0, 1, 1, 2], 3)


def test_no_rows_and_no_concepts():
    for nothing in ([], pa.array([], pa.list_(pa.string())), pa.chunked_array([], pa.list_(pa.int64()))):
        assert select_diverse(nothing, 3, fill=True).tolist() == select_frequent(nothing, 3).tolist() == []
    for blank in ([[], None], pa.array([[], None]), pa.array([[], None], pa.list_(pa.string()))):
        assert sorted(select_diverse(blank, 3).tolist()) == [0, 1]
        assert select_frequent(blank, 3).tolist() == [0, 1]


# ----------------------------------------------------------------------------------------------------- bad arguments
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: target_counts(-1, 4), "`num_concepts` is -1; it must be an integer of at least 0"),
        (lambda: target_counts(3, 0), "`batch_size` is 0; it must be an integer of at least 1"),
        (lambda: target_counts(3, 2.5), "`batch_size` is 2.5; it must be"),
        (lambda: target_counts(3, 4, maximum=0), "`maximum` is 0; it must be"),
        (lambda: target_counts(3, 4, minimum=-1), "`minimum` is -1; it must be"),
        (lambda: target_counts(3, 4, minimum=5, maximum=4), "`minimum` is 5; it must be at most `maximum`, which is 4"),
        (lambda: select_diverse(EIGHT, 0), "`batch_size` is 0; it must be"),
        (lambda: select_diverse(EIGHT, True), "`batch_size` is True; it must be"),
        (lambda: select_diverse(EIGHT, 4, maximum=0), "`maximum` is 0; it must be"),
        (lambda: select_diverse(EIGHT, 4, seed=-1), "`seed` is -1; it must be"),
        (lambda: select_diverse(EIGHT, 4, variant="best"), "`variant` is 'best'; it must be 'released' or 'printed'"),
        (lambda: select_diverse(EIGHT, 4, targets=[1, 1]), "`concepts` holds 5 distinct strings; it must hold 2"),
        (lambda: select_diverse([[0], [2]], 4, targets=[1, 1]), "`concepts` holds 2; it must be below 2"),
        (lambda: select_diverse([[0]], 4, targets=[[1]]), r"`targets` is int64 of shape \(1, 1\); it must be"),
        (lambda: select_diverse([[0]], 4, targets=[-1]), "`targets` holds -1; each must be"),
        (lambda: select_diverse([[0]], 4, frequencies=[0.5]), "`frequencies` holds 0.5; each must be"),
        (lambda: select_diverse([[0]], 4, frequencies=[np.nan]), "`frequencies` holds nan; each must be"),
        (
            lambda: select_diverse([[0]], 4, targets=[1], frequencies=[1, 2]),
            "`frequencies` has length 2; it must match",
        ),
        (lambda: select_diverse([[0, -3]], 4), "`concepts` holds -3; an id must be at least 0"),
        (lambda: select_diverse([["a", 1]], 4), "`concepts` holds 'a'; concepts must be all strings or all integers"),
        (lambda: select_diverse([[1.5]], 4), "`concepts` holds 1.5; concepts must be"),
        (lambda: select_diverse([["a", None]], 4), "`concepts` holds 'a'; concepts must be"),
        (lambda: select_diverse(["dog"], 4), "`concepts` holds the row 'dog'; each row must be a list"),
        (lambda: select_diverse(pa.array(["dog"]), 4), "`concepts` is Arrow string; it must be a list"),
        (lambda: select_diverse(pa.array([[1.5]]), 4), "`concepts` is a list of .*double.*; it must be a list"),
        (lambda: select_diverse(pa.array([["a", None]]), 4), "`concepts` holds a null concept; a row may be null"),
        (lambda: select_frequent(EIGHT, -2), "`batch_size` is -2; it must be"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---------------------------------------------------------------------------------------------------------- samplers
def superbatch_of(rows):
    """A table in two chunks, dictionary-encoded as Parquet hands it over."""
    type_ = pa.list_(pa.dictionary(pa.int32(), pa.string()))
    half = len(rows) // 3
    chunks = [pa.array([[f"c{c:03}" for c in row] for row in part], type_) for part in (rows[:half], rows[half:])]
    return pa.table({"concepts": pa.chunked_array(chunks, type_)})


@pytest.mark.parametrize("variant", ["released", "printed"])
@pytest.mark.parametrize("world_size", [1, 4])
def test_diverse_sampler_shares_targets_and_frequencies_among_ranks(variant, world_size):
    rows = zipf_rows(np.random.default_rng(8), 200, 120, least=0)
    config = methods.CabsDm(batch_size=80, filter_ratio=0.6, world_size=world_size, variant=variant, maximum=2)
    sampler = load(METHODS, config, seed=1)
    assert isinstance(sampler, CabsDm) and sampler.needs == ("concepts",) and sampler.independent
    batch, told = sampler.pick_and_account(superbatch_of(rows), 0)

    names = sorted({c for row in rows for c in row})
    targets = dict(zip(names, target_counts(len(names), 80, maximum=2).tolist(), strict=True))
    frequencies = {c: sum(c in row for row in rows) for c in names}
    share, quota = 200 // world_size, 80 // world_size
    filled = 0
    for rank, picks in enumerate(batch):
        own = rows[rank * share : (rank + 1) * share]
        rule = {"maximum": 2, "variant": variant, "targets": targets, "frequencies": frequencies}
        assert (picks - rank * share).tolist() == brute_force(own, quota, fill=True, **rule)
        greedy = [i for i in brute_force(own, quota, **rule) if own[i]]
        filled += quota - len(greedy)
    assert told.step["fill"] == filled and told.step["rows"] == 80
    assert (filled > 0) == (variant == "released"), "the cap of 2 binds"
    assert [p.tolist() for p in sampler.pick(superbatch_of(rows), 7)] == [p.tolist() for p in batch]


def test_ranks_picked_at_once_are_those_picked_one_by_one(monkeypatch):
    rows = superbatch_of(zipf_rows(np.random.default_rng(10), 200, 120, least=0))
    sampler = load(METHODS, methods.CabsDm(batch_size=40, filter_ratio=0.8, world_size=8, fill=False), seed=1)
    found = []
    for least in (1, 10**6):
        monkeypatch.setattr(cabs, "WORTH_THREADS", least)
        found.append([picks.tolist() for picks in sampler.pick(rows, 3)])
    assert found[0] == found[1] == [sampler.pick_rank(rows, 3, rank).tolist() for rank in range(8)]


@pytest.mark.parametrize("world_size", [1, 4])
def test_frequent_sampler_keeps_the_longest_of_each_rank(world_size):
    rows = zipf_rows(np.random.default_rng(9), 100, 30, least=0)
    config = methods.CabsFm(batch_size=20, filter_ratio=0.8, world_size=world_size)
    sampler = load(METHODS, config, seed=1)
    assert isinstance(sampler, CabsFm) and sampler.needs == ("concepts",) and sampler.independent
    share = 100 // world_size
    for rank, picks in enumerate(sampler.pick(superbatch_of(rows), 0)):
        expected = select_frequent(rows[rank * share : (rank + 1) * share], 20 // world_size) + rank * share
        assert picks.dtype == np.int64 and picks.tolist() == expected.tolist()


def test_samplers_refuse_a_superbatch_of_another_size():
    for config in (methods.CabsDm(batch_size=4, filter_ratio=0.5), methods.CabsFm(batch_size=4, filter_ratio=0.5)):
        with pytest.raises(ValueError, match="`superbatch` has 7 rows; it must have 8"):
            load(METHODS, config, seed=0).pick(superbatch_of(zipf_rows(np.random.default_rng(0), 7, 5)), 0)


def test_diverse_sampler_refuses_crossed_bounds():
    with pytest.raises(ValueError, match="`minimum` is 5; it must not exceed `maximum`, which is 4"):
        methods.CabsDm(batch_size=4, minimum=5, maximum=4)
