"""Variants of one emoji stay together, whatever they vary by."""

import numpy as np
import pytest

from flows.openmoji import pictures
from tasks.train.bases import base, hold_out, plainest


@pytest.fixture(scope="module")
def corpus():
    return pictures()


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("1F44D", "1F44D"),
        ("1F44D-1F3FD", "1F44D"),
        ("1F3C3-1F3FB-200D-2640-FE0F-200D-27A1-FE0F", "1F3C3"),  # woman running facing right: light skin tone
        ("1F468-1F3FE-200D-1F9B0", "1F9D1"),  # man: red hair
        ("1F471-200D-2642-FE0F", "1F9D1"),  # man: blond hair
        ("1F469-1F3FF-200D-1F52C", "1F9D1-200D-1F52C"),  # woman scientist
        ("1F469-1F3FB-200D-2764-FE0F-200D-1F48B-200D-1F468-1F3FD", "1F48F"),  # kiss
        ("1F46D-1F3FB", "1F9D1-200D-1F91D-200D-1F9D1"),
        ("1F468-200D-1F469-200D-1F467-200D-1F466", "1F46A"),  # family
        ("1F9D1-200D-1F9D2", "1F46A"),
        ("1F9B0", "1F9B0"),  # red hair by itself
        ("1F3FB", "1F3FB"),  # a skin tone by itself
        ("0031-FE0F-20E3", "0031-20E3"),
        ("1F1E9-1F1EA", "1F1E9-1F1EA"),
        ("1F3F4-200D-2620-FE0F", "1F3F4-200D-2620"),
    ],
)
def test_the_base_of(key, expected):
    assert base(key) == expected == base(expected)


def test_captions_agree(corpus):
    """Pictures whose captions differ by a tone have one base."""
    texts, keys = [p.text for p in corpus], [p.key for p in corpus]
    bases = {text: base(key) for text, key in zip(texts, keys)}
    toned = [text for text in texts if text.endswith(" skin tone") and text.partition(":")[0] in bases]
    assert len(toned) > 1500
    assert [text for text in toned if bases[text] != bases[text.partition(":")[0]]] == []


def test_no_base_is_on_both_sides(corpus):
    bases = [base(p.key) for p in corpus]
    held = hold_out(bases, 0.1, 0)
    inside, outside = ({b for b, h in zip(bases, held) if h is np.bool_(side)} for side in (True, False))
    assert len(inside) == round(0.1 * len(set(bases))) and not inside & outside
    assert np.array_equal(held, hold_out(bases, 0.1, 0)) and not np.array_equal(held, hold_out(bases, 0.1, 1))
    order = np.random.default_rng(0).permutation(len(bases))
    assert np.array_equal(held[order], hold_out([bases[i] for i in order], 0.1, 0))


def test_the_plainest():
    keys = ["1F44D-1F3FD", "1F44D", "1F468-200D-1F9B0", "1F468", "2764"]
    bases = [base(key) for key in keys]
    assert plainest(keys, bases, np.ones(5, bool)).tolist() == [1, 3, 4]
    assert plainest(keys, bases, np.array([True, False, True, False, False])).tolist() == [0, 2]
