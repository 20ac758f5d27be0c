"""Words for people: what is taken out, what stays, how numbers read."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.report import wording


def test_clean_leaves_one_line_without_what_is_not_seen():
    assert wording.clean("a\n\tb  c") == "a b c"
    assert wording.clean("x\u202ey\u2067z\u200fw") == "x\ufffdy\ufffdz\ufffdw"
    assert wording.clean("\x00\x1b[31m") == "\ufffd\ufffd[31m"
    assert wording.clean("\ud800 lone") == "\ufffd lone"
    for stays in ("👩\u200d🚀", "می\u200cخواهم", "e\u0301", "שלום", "🏴\U000e0067\U000e0062\U000e007f"):
        assert wording.clean(stays) == stays


@given(st.text(max_size=300), st.integers(2, 40))
def test_clean_always_gives_a_short_line_that_utf8_can_hold(text, most):
    line = wording.clean(text, most)
    assert len(line) <= most and not wording.HIDDEN.search(line.replace("\ufffd", ""))
    assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in line)
    line.encode()


def test_a_very_long_text_is_not_read_to_its_end():
    assert wording.clean("word " * 10_000_000, 20) == "word word word word…"


def test_cut_parts_no_mark_from_its_letter():
    assert wording.cut("abcdef", 6) == "abcdef"
    assert wording.cut("abcdefg", 6) == "abcde…"
    assert wording.cut("abcde\u0301fg", 6) == "abcd…"
    assert wording.cut("abc👩\u200d🚀 long", 6) == "abc…"
    assert wording.cut("e" + "\u0301" * 100, 10).startswith("e")


@pytest.mark.parametrize(
    ("part", "whole", "told"), [(0, 10, "0 %"), (1, 3, "33.3 %"), (1, 10**6, "< 0.1 %"), (1, 0, "–"), (3, 3, "100.0 %")]
)
def test_percent(part, whole, told):
    assert wording.percent(part, whole) == told


def test_numbers():
    assert [wording.size(n) for n in (None, 0, 999, 1500, 10**9, 5 * 10**15)] == [
        "–",
        "0 B",
        "999 B",
        "1.5 kB",
        "1.0 GB",
        "5,000.0 TB",
    ]
    assert [wording.duration(n) for n in (0.012, 14.2, 119, 600, 10**5)] == [
        "0.01 s",
        "14 s",
        "119 s",
        "10 min",
        "27.8 h",
    ]
    assert [wording.times(r) for r in (None, 0, 1, 3.86, 0.25, 1e-4)] == [
        "new",
        "gone",
        "× 1.0",
        "× 3.9",
        "÷ 4.0",
        "÷ 10,000",
    ]
    assert [wording.short(n) for n in (5, 99_999, 123_456, 4_981_477_845)] == ["5", "99,999", "123.46 k", "4.98 G"]
    assert wording.by_count({"b": 2, "a": 2, "c": 5, "d": 0}) == [("c", 5), ("a", 2), ("b", 2)]


def test_reasons_are_sentences():
    assert all(told[0].isupper() and told.endswith(".") for told in wording.REASONS.values())


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, "0"), (0.0123456, "0.01235"), (999.94, "999.9"), (1000, "1,000"), (-23373.4, "-23,373"), (2e9, "2e+09")],
)
def test_numbers_of_any_size(value, told):
    assert wording.number(value) == told
