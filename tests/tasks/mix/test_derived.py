"""Derived and static mixes: worked examples, properties, and what is refused or said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.loading import merged, validate
from configs.methods import mix as configs
from tasks import load, mix
from tasks.mix import Group
from tasks.mix.balance import entry_probabilities, p_to_t
from tasks.mix.derived import balance_shares, natural_shares, temperature_shares, uniform_shares

GROUPS = [Group("art", 10), Group("books", 30), Group("web", 60)]
ROWS = st.lists(st.integers(0, 10**9), min_size=1, max_size=12).filter(any).map(np.array)


def planned(config, groups=GROUPS, draws=100):
    return load(mix.METHODS, config, seed=0).plan(groups, draws, None)


@pytest.mark.parametrize(
    ("config", "shares"),
    [
        (configs.Natural(), [0.1, 0.3, 0.6]),
        (configs.Uniform(), [1 / 3] * 3),
        (configs.Unimax(), [1 / 3] * 3),
        (configs.Temperature(temperature=1), [0.1, 0.3, 0.6]),
        (configs.Temperature(temperature=2), np.sqrt([10, 30, 60]) / np.sqrt([10, 30, 60]).sum()),
        (configs.Balance(threshold=20), [0.2, 0.4, 0.4]),
        (configs.Balance(threshold=1), [1 / 3] * 3),
        (configs.Balance(threshold=60), [0.1, 0.3, 0.6]),
        (configs.Balance(tail_share=0.4), [1 / 7, 3 / 7, 3 / 7]),  # 10 and 30 of 100 rows are 0.4 of them: t = 30
    ],
)
def test_worked_examples(config, shares):
    found = planned(config)
    assert found.rounds.shape == (1, 3) and found.rounds[0] == pytest.approx(np.asarray(shares))


def test_balance_tells_its_t():
    assert planned(configs.Balance(tail_share=0.4)).notes == [
        "balance: t = 30 (tail share 0.10): 1 of 3 groups are thinned to t"
    ]


@given(ROWS, st.floats(0.01, 100), st.floats(1e-3, 1e9))
def test_every_law_gives_shares_that_sum_to_one_and_none_to_groups_without_rows(rows, temperature, threshold):
    for shares in (
        natural_shares(rows),
        uniform_shares(rows),
        temperature_shares(rows, temperature),
        balance_shares(rows, threshold),
    ):
        assert shares.sum() == pytest.approx(1) and (shares >= 0).all() and (shares[rows == 0] == 0).all()
        order = np.argsort(rows)
        assert (np.diff(shares[order]) >= -1e-12).all()  # more rows, no smaller a share


@given(ROWS)
def test_temperature_leads_from_natural_to_uniform(rows):
    assert temperature_shares(rows, 1) == pytest.approx(natural_shares(rows))
    assert temperature_shares(rows, 1e9) == pytest.approx(uniform_shares(rows), abs=1e-6)
    tops = [temperature_shares(rows, t).max() for t in (0.5, 1, 2, 5, 50)]
    assert (np.diff(tops) <= 1e-12).all()


@given(ROWS, st.floats(0.5, 1e9))
def test_balance_is_metaclips_on_groups(rows, threshold):
    """Rows of a group that its probability t / max(rows, t) leaves, on average."""
    assert balance_shares(rows, threshold) == pytest.approx(
        natural_shares(rows)
        * entry_probabilities(rows, threshold)
        / (natural_shares(rows) * entry_probabilities(rows, threshold)).sum()
    )


@given(ROWS, st.floats(0.01, 0.99))
def test_a_tail_share_is_its_t(rows, share):
    groups = [Group(f"{i:02}", int(n)) for i, n in enumerate(rows) if n]
    found = planned(configs.Balance(tail_share=share), groups).rounds[0]
    kept = np.array([group.rows for group in groups])
    assert found == pytest.approx(balance_shares(kept, p_to_t(kept, share)))


@given(ROWS, st.randoms())
def test_the_order_of_groups_changes_nothing_but_order(rows, random):
    order = np.array(random.sample(range(len(rows)), len(rows)))
    for law in (natural_shares, uniform_shares, lambda r: temperature_shares(r, 3.3), lambda r: balance_shares(r, 40)):
        assert law(rows[order]) == pytest.approx(law(rows)[order])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: natural_shares(np.array([3, -1])), "`rows` holds -1; each must be at least 0"),
        (lambda: uniform_shares(np.array([0, 0])), "`rows` is 0 in every group; one must have rows"),
        (lambda: temperature_shares(np.array([1]), 0), "`temperature` is 0; it must be above 0"),
        (lambda: temperature_shares(np.array([1]), np.nan), "`temperature` is nan"),
        (lambda: balance_shares(np.array([1]), 0), "`threshold` is 0; it must be above 0"),
    ],
)
def test_bad_arguments_are_named_with_value_and_rule(call, said):
    with pytest.raises(ValueError, match=said):
        call()


# -------------------------------------------------------------------------------------------------------------- static
def test_static_proportions_of_every_round_are_normalised_and_that_is_said():
    found = planned(configs.Static(proportions=[{"art": 1, "web": 1}, {"web": 0.5, "books": 0.5}, {"books": 3}]))
    assert found.rounds.tolist() == [[0.5, 0, 0.5], [0, 0.5, 0.5], [0, 1, 0]]
    assert found.notes == [
        "`mix.proportions.0` sums to 2; it is normalised to one",
        "`mix.proportions.2` sums to 3; it is normalised to one",
    ]
    many = planned(configs.Static(proportions=[{"art": 2, "web": 2, "books": 1}] * 9)).notes
    assert len(many) == 3 and many[2] == (
        "`mix.proportions.2` sums to 5; it is normalised to one, as are 6 more rounds"
    )


def test_shares_that_sum_to_one_are_taken_without_a_word():
    found = planned(configs.Static(proportions={"art": 0.1, "books": 0.2, "web": 0.7}))
    assert found.rounds[0] == pytest.approx([0.1, 0.2, 0.7]) and found.notes == []
    assert planned(configs.Static()).rounds.tolist() == [[0.1, 0.3, 0.6]]


def test_huge_and_tiny_shares_are_shares():
    assert planned(configs.Static(proportions={"art": 1e308, "books": 1e308})).rounds.tolist() == [[0.5, 0.5, 0]]
    assert planned(configs.Static(proportions={"art": 5e-324, "books": 0})).rounds.tolist() == [[1, 0, 0]]


def test_rows_of_groups_without_an_entry_are_not_drawn_and_that_is_said():
    found = planned(configs.Static(proportions={"web": 1, "art": 0}))
    assert found.rounds.tolist() == [[0, 0, 1]]
    assert found.notes == ["`mix.proportions` has no entry for books: 30 rows are not drawn"]


@pytest.mark.parametrize(
    ("proportions", "said"),
    [
        (
            {"art": 1, "map": 1},
            "`mix.proportions` names 'map', but no row of that group survived selection; "
            "the groups are art, books, web",
        ),
        ([{"art": 1}, {"map": 1}], r"`mix.proportions.1` names 'map'"),
        ({"art": 0}, r"`mix.proportions` is \{'art': 0.0\}; one of the groups needs a share above 0"),
        ([{"art": 1}, {}], r"`mix.proportions.1` is \{\}; one of the groups needs a share above 0"),
    ],
)
def test_static_proportions_that_cannot_be_drawn_are_refused(proportions, said):
    with pytest.raises(ConfigError, match=said):
        planned(configs.Static(proportions=proportions))


def test_a_share_of_zero_may_name_what_is_not_there():
    assert planned(configs.Static(proportions={"art": 1, "map": 0})).rounds.tolist() == [[1, 0, 0]]


@pytest.mark.parametrize(
    ("given_", "where"),
    [
        ({"kind": "static", "proportions": {"web": -1}}, r"`mix\.proportions\.web` is -1"),
        ({"kind": "static", "proportions": [{"web": 1}, {"art": -0.5}]}, r"art` is -0.5"),
    ],
)
def test_a_negative_share_is_refused_in_one_plain_sentence(given_, where):
    base = {
        "name": "m",
        "store": "s",
        "input": {"path": "i"},
        "emit": {"out": "o"},
        "sample": {"kind": "iid", "batch_size": 8},
    }
    with pytest.raises(ConfigError, match=where) as error:
        validate(merged(base, {"mix": given_}))
    assert "greater than or equal to 0" in str(error.value) and "\n" not in str(error.value)


def test_one_group_has_it_all():
    for section in (configs.Natural, configs.Uniform, configs.Temperature, configs.Unimax, configs.Static):
        assert planned(section(), [Group("all", 5)]).rounds.tolist() == [[1.0]]
    assert planned(configs.Balance(threshold=2), [Group("all", 5)]).rounds.tolist() == [[1.0]]
