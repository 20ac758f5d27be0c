"""Cleaning of concept names: the plain quadratic loop, and what the rules say."""

from difflib import SequenceMatcher

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.annotate import cleaning
from tasks.annotate.cleaning import REASONS, clean, normalise


def initials(name):
    return "".join(word[0] for word in name.split())


def brute_force(names):
    """The rule as it is written: each name against all earlier concepts, in order."""
    concepts, concept_of = [], []
    for raw in names:
        name = " ".join(raw.lower().replace("_", " ").split())
        place = -1 if not name else next((i for i, one in enumerate(concepts) if same(name, one)), None)
        if place is None:
            place = len(concepts)
            concepts.append(name)
        concept_of.append(place)
    return concepts, concept_of


def same(name, concept):
    if name == concept:
        return True
    several = " " in name, " " in concept
    if (several == (False, True) and initials(concept) == name) or (
        several == (True, False) and initials(name) == concept
    ):
        return True
    long = len(name) > 4 and len(concept) > 4
    return long and SequenceMatcher(None, name, concept).ratio() > 0.92


def test_spelling_is_made_one():
    assert normalise(" Hot__Dog\t stand ") == "hot dog stand"
    cleaned = clean(["Hot_Dog", "hot dog", "cat", "Hot_Dog", "CAT", "_", "cat", " "], merge=False)
    assert cleaned.concepts == ["hot dog", "cat"]
    assert cleaned.concept_of.tolist() == [0, 0, 1, 0, 1, -1, 1, -1]
    assert cleaned.why == ["spelling", "", "", "repeated", "spelling", "empty", "repeated", "empty"]
    assert cleaned.concept_of.dtype == np.int64 and set(cleaned.why) <= set(REASONS)


def test_abbreviations_join_whichever_comes_first():
    assert clean(["ups", "uninterruptible power supply", "Uniform Post Service"]).concepts == ["ups"]
    cleaned = clean(["uniform post service", "uninterruptible power supply", "ups", "up"])
    assert cleaned.concepts == ["uniform post service", "uninterruptible power supply", "up"]
    assert cleaned.concept_of.tolist() == [0, 1, 0, 2] and cleaned.why == ["", "", "abbreviation", ""]
    assert len(clean(["a", "apple"]).concepts) == 2  # both are single


def test_alike_is_more_than_092_of_more_than_4_characters():
    # 2 * 12 / 25 = 0.96; 2 * 4 / 9 = 0.89; 2 * 5 / 11 = 0.909; 2 * 6 / 13 = 0.923
    names = ["skateboards", "skateboard", "cars", "car", "horse", "horses", "donkey", "donkeys"]
    cleaned = clean(names)
    assert cleaned.concepts == ["skateboards", "cars", "car", "horse", "horses", "donkey"]
    assert cleaned.why == ["", "alike", "", "", "", "", "", "alike"]
    exactly = "x" * 23 + "yy", "x" * 23 + "zz"  # 46 / 50 = 0.92 is not above
    assert SequenceMatcher(None, *exactly).ratio() == 0.92 and len(clean(exactly).concepts) == 2


def test_a_name_joins_concepts_only_and_the_earliest_of_them():
    a, b, c = "abcdefghijklmnopqrst", "abcdefghijklmnopqrst12", "abcdefghijklmnopqrst1234"
    assert SequenceMatcher(None, c, b).ratio() > 0.92 > SequenceMatcher(None, c, a).ratio()
    assert clean([a, b, c]).concepts == [a, c]  # b became a, so that c finds no concept like it
    assert clean([c, a, b]).concept_of.tolist() == [0, 1, 0]


def test_nothing_is_cleaned_to_nothing():
    assert clean([]).concepts == [] and clean([]).concept_of.tolist() == []
    assert clean(["_", "  "]).concept_of.tolist() == [-1, -1]


@given(st.lists(st.text("abA_ ", max_size=9) | st.text("ab", min_size=12, max_size=16), max_size=14))
def test_names_of_few_letters_are_cleaned_as_the_loop_does(names):
    expected = brute_force(names)
    for chunk in (1, 3, 2048):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cleaning, "CHUNK", chunk)
            cleaned = clean(names)
        assert (cleaned.concepts, cleaned.concept_of.tolist()) == expected


@pytest.mark.parametrize(("chunk", "block"), [(50, 7), (2048, 64)])
def test_real_names_are_cleaned_as_the_loop_does(monkeypatch, chunk, block):
    emoji = pytest.importorskip("emoji")
    monkeypatch.setattr(cleaning, "CHUNK", chunk)
    monkeypatch.setattr(cleaning, "BLOCK", block)
    names = [entry["en"].strip(":").title() for entry in list(emoji.EMOJI_DATA.values())[::25]]
    names += [f"{name}s" for name in names[:30]] + ["x" * 220 + "y", "x" * 221, names[0]]
    names = np.random.default_rng(0).permutation(names).tolist()
    cleaned = clean(names)
    assert {"alike", "repeated", "spelling"} <= set(cleaned.why)
    assert (cleaned.concepts, cleaned.concept_of.tolist()) == brute_force(names)


def test_of_two_rules_the_earlier_concept_counts():
    short, spelled, alike = "abcdefghijklmn", " ".join("abcdefghijklmn"), "abcdefghijklmno"
    assert clean([spelled, alike, short]).why[2] == "abbreviation"
    assert clean([alike, spelled, short]).why[2] == "alike"
