"""Concepts in captions: the spacing rule, and mining a vocabulary."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.methods.annotate import Captions
from tasks.annotate import mining
from tasks.annotate.captions import CaptionAnnotator, match, space
from tasks.annotate.entries import decode_vocabulary, encode_vocabulary, parse_vocabulary
from tasks.annotate.mining import count_phrases, frequent_phrases, phrases


def brute_force(texts, vocabulary):
    """The rule as it is written: blank + entry + blank is a substring of the spaced text."""
    found = []
    for text in texts:
        spaced = text
        for mark in ",.;:?!`":
            spaced = spaced.replace(mark, f" {mark} ")
        for blank in "\t\n\r":
            spaced = spaced.replace(blank, " ")
        found.append([index for index, entry in enumerate(vocabulary) if f" {entry} " in f" {spaced} "])
    return found


def table(*texts):
    return pa.table({"text": pa.array(texts, pa.string())})


def annotator(*vocabulary, **config):
    return CaptionAnnotator(Captions(vocabulary="words.txt", **config), {"vocabulary": encode_vocabulary(vocabulary)})


def test_worked_example_of_metaclip():
    texts = ["a dog on grass", "dog, cat.", "zebra", "hotdog stand", "a dog", "cat and dog", "nothing here", "my cat"]
    texts += ["Cat", "cat!"]
    found = match(texts, ["dog", "cat", "zebra", "dog on"])
    assert found == [[0, 3], [0, 1], [2], [], [0], [0, 1], [], [1], [], [1]]
    counts = np.bincount(np.concatenate(found).astype(int))
    assert counts.tolist() == [4, 4, 1, 1]


def test_neighbours_share_a_blank_and_nested_entries_all_match():
    vocabulary = ["red", "car", "red car", "red car park", "car park", "park"]
    assert match(["red car park"], vocabulary) == [[0, 1, 2, 3, 4, 5]]
    assert match(["red red red", None, ""], vocabulary) == [[0], [], []]


def test_hyphens_apostrophes_and_quotes_are_untouched():
    assert match(['a t-shirt, the dog\'s "dog"'], ["t", "shirt", "dog", "t-shirt", "dog's", '"dog"']) == [[3, 4, 5]]
    assert space("a,b\tc\nd") == " a , b c d "


@given(
    st.lists(st.text("ab ,.!\n'é字", max_size=12), max_size=5),
    st.lists(st.text("ab ,é字", min_size=1, max_size=4), unique=True, min_size=1, max_size=8),
)
def test_match_is_the_rule(texts, vocabulary):
    assert match(texts, vocabulary) == brute_force(texts, vocabulary)


def test_an_empty_entry_is_refused_and_an_empty_vocabulary_matches_nothing():
    with pytest.raises(ValueError, match="empty entry at 1"):
        match(["a"], ["a", ""])
    assert match(["a"], []) == [[]]


def test_vocabulary_files():
    text = "\ufeffdog\r\n  cat \n\n dog\nhot dog\n\t\nétoile"
    assert parse_vocabulary(text) == ["dog", "cat", "hot dog", "étoile"]
    for vocabulary in (parse_vocabulary(text), [], ["a"]):
        encoded = encode_vocabulary(vocabulary)
        assert encoded.dtype == np.uint8 and decode_vocabulary(encoded) == vocabulary


def test_sidecar_with_nulls_and_without_concepts():
    result = annotator("dog", "cat").run(table("a dog and a cat", None, "nothing", "Cat!"))
    assert result.failures == []
    assert result.table["concepts"].to_pylist() == [["dog", "cat"], None, [], ["cat"]]
    assert result.table["confidences"].to_pylist() == [None] * 4
    assert result.table.schema.types == [pa.list_(pa.string()), pa.list_(pa.float32())]
    assert annotator("dog").run(table()).table.num_rows == 0


def test_case_is_folded_on_both_sides_or_on_none():
    texts = table("A DOG", "a dog")
    assert annotator("Dog", "dog", "DOG").run(texts).table["concepts"].to_pylist() == [["dog"], ["dog"]]
    exact = annotator("DOG", "dog", lowercase=False).run(texts).table["concepts"].to_pylist()
    assert exact == [["DOG"], ["dog"]]


def test_a_caption_that_is_not_utf8_fails_alone():
    offsets = pa.py_buffer(np.array([0, 3, 5, 8], np.int32))
    texts = pa.StringArray.from_buffers(3, offsets, pa.py_buffer(b"dog\xff\xfecat"))
    result = annotator("dog", "cat").run(pa.table({"text": texts}))
    assert [(failure.row, failure.reason) for failure in result.failures] == [(1, "undecodable_text")]
    assert result.table["concepts"].to_pylist() == [["dog"], None, ["cat"]]


def test_without_a_vocabulary_there_is_nothing_to_match():
    with pytest.raises(ValueError, match="`state` is None"):
        CaptionAnnotator(Captions()).run(table("a"))


def test_phrases_start_and_end_with_a_word_and_break_at_punctuation():
    assert phrases(space("the dog in the park, big dog"), 3) == {"dog", "park", "big", "big dog"}
    assert phrases(space("cup of tea"), 3) == {"cup", "tea", "cup of tea"}
    assert phrases(space("3 dogs 12 34"), 2) == {"dogs", "3 dogs", "dogs 12"}
    assert phrases(space("red  car"), 2) == {"red", "car"}  # two blanks: the phrase could not be found again
    assert phrases(space('🐕 -- "dog" t-shirt ...'), 2) == {"t-shirt"}
    assert phrases(space("बिल्ली घर में"), 1) == {"बिल्ली", "घर", "में"}


@given(st.lists(st.text("ab ,.", max_size=14), max_size=6))
def test_every_mined_phrase_is_found_where_it_was_counted(texts):
    counts = count_phrases([space(text) for text in texts], 3)
    found = match(texts, counts["phrase"].to_pylist())
    hits = np.bincount(np.array([index for row in found for index in row], int), minlength=len(counts))
    assert hits.tolist() == counts["captions"].to_pylist()


def mine(shards, **config):
    method = CaptionAnnotator(Captions(**config))
    return method.fit([method.summarise(table(*shard)) for shard in shards])


def test_mining_counts_captions_over_all_shards():
    shards = [["a big dog", "Big Dog dog"], ["the cat", None, "big cat"], ["big dog"], []]
    state = mine(shards, min_count=2, max_words=2)
    assert decode_vocabulary(state["vocabulary"]) == ["big", "big dog", "cat", "dog"]
    assert state["vocabulary"].dtype == np.uint8
    again = CaptionAnnotator(Captions(min_count=2), state).run(table("The big cat")).table
    assert again["concepts"].to_pylist() == [["big", "cat"]]
    assert decode_vocabulary(mine(shards[::-1], min_count=2)["vocabulary"]) == ["big", "big dog", "cat", "dog"]
    # big 4, dog 3, "big dog" 3, cat 2: a tie goes by code point
    assert decode_vocabulary(mine(shards, min_count=2, max_concepts=2)["vocabulary"]) == ["big", "big dog"]


def test_nothing_frequent_enough_is_an_empty_vocabulary():
    state = mine([["a dog"]])
    assert state["vocabulary"].size == 0
    annotated = CaptionAnnotator(Captions(), state).run(table("a dog", None)).table
    assert annotated["concepts"].to_pylist() == [[], None]


def test_a_given_vocabulary_is_parsed():
    method = CaptionAnnotator(Captions(vocabulary="words.txt"), CaptionAnnotator.from_text("dog\n\nhot dog\n"))
    assert method.run(table("a hot dog")).table["concepts"].to_pylist() == [["dog", "hot dog"]]


def test_summaries_are_capped_and_folded_in_groups(monkeypatch):
    assert count_phrases([" y y ", " x ", " y z "], 1, rows=2).to_pydict() == {"phrase": ["y", "x"], "captions": [2, 1]}
    summaries = [count_phrases([f" word{index % 7} dog "], 1) for index in range(50)]
    expected = frequent_phrases(summaries, 2, 100)
    monkeypatch.setattr(mining, "FOLD_ROWS", 3)
    assert frequent_phrases(iter(summaries), 2, 100) == expected == ["dog", *(f"word{index}" for index in range(7))]
