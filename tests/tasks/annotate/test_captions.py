"""Concepts in captions: the spacing rule, and mining a vocabulary."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.methods.annotate import Captions
from tasks.annotate import matching, mining, slabs
from tasks.annotate.captions import CaptionAnnotator, match, space
from tasks.annotate.entries import decode_vocabulary, encode_vocabulary, given_state, mapping_text
from tasks.annotate.mining import Kind, count_phrases, frequent_phrases, kind_of


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


def annotator_of(text, **config):
    settings = Captions(vocabulary="words.txt", **config)
    return CaptionAnnotator(settings, CaptionAnnotator(settings).from_text(text))


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
    assert decode_vocabulary(given_state(text, "none")["vocabulary"]) == ["dog", "cat", "hot dog", "étoile"]
    for vocabulary in (decode_vocabulary(given_state(text, "none")["vocabulary"]), [], ["a"]):
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


def phrases(spaced, max_words):
    """The rule for one spaced caption as it is written: up to `max_words` tokens in a row."""
    tokens = spaced.split(" ")
    kinds = [kind_of(token) for token in tokens]
    found = set()
    for start in range(len(tokens)):
        for end in range(start + 1, min(start + max_words, len(tokens)) + 1):
            of = kinds[start:end]
            whole = Kind.BREAK not in of and Kind.STOP not in (of[0], of[-1])
            if whole and Kind.WORD in of:
                found.add(" ".join(tokens[start:end]))
    return found


def mined(text, max_words):
    return set(count_phrases([space(text)], max_words)["phrase"].to_pylist())


def test_phrases_start_and_end_with_a_word_and_break_at_punctuation():
    assert mined("the dog in the park, big dog", 3) == {"dog", "park", "big", "big dog"}
    assert mined("cup of tea", 3) == {"cup", "tea", "cup of tea"}
    assert mined("3 dogs 12 34", 2) == {"dogs", "3 dogs", "dogs 12"}
    assert mined("red  car", 2) == {"red", "car"}  # two blanks: the phrase could not be found again
    assert mined('🐕 -- "dog" t-shirt ...', 2) == {"t-shirt"}
    assert mined("बिल्ली घर में", 1) == {"बिल्ली", "घर", "में"}


@given(st.lists(st.text("ab12 ,.", max_size=14).map(lambda text: text.replace("2", "the")), max_size=6))
def test_phrases_are_counted_as_the_rule_says(texts):
    expected = Counter(phrase for text in texts for phrase in phrases(space(text), 3))
    counts = count_phrases([space(text) for text in texts], 3)
    assert dict(zip(*counts.to_pydict().values(), strict=True)) == expected


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
    method = annotator_of("dog\n\nhot dog\n")
    assert method.run(table("a hot dog")).table["concepts"].to_pylist() == [["dog", "hot dog"]]


def test_summaries_are_capped_and_folded_in_groups(monkeypatch):
    assert count_phrases([" y y ", " x ", " y z "], 1, rows=2).to_pydict() == {"phrase": ["y", "x"], "captions": [2, 1]}
    summaries = [count_phrases([f" word{index % 7} dog "], 1) for index in range(50)]
    expected = frequent_phrases(summaries, 2, 100)["phrase"].to_pylist()
    monkeypatch.setattr(mining, "FOLD_ROWS", 3)
    found = frequent_phrases(iter(summaries), 2, 100)["phrase"].to_pylist()
    assert found == expected == ["dog", *(f"word{index}" for index in range(7))]


@pytest.mark.parametrize("full", [0, 3, 10**6])
def test_slabs_folds_and_full_counters_change_no_count(monkeypatch, full):
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in rng.zipf(1.5, 6) % 40) for _ in range(200)]
    expected = Counter(phrase for text in texts for phrase in phrases(space(text), 3))
    monkeypatch.setattr(mining, "MOST_TOKENS", full)
    monkeypatch.setattr(mining, "HELD", 50)
    monkeypatch.setattr(slabs, "SLAB_BYTES", 90)
    counts = CaptionAnnotator(Captions(max_words=3)).summarise(table(*texts, None))
    assert dict(zip(*counts.to_pydict().values(), strict=True)) == expected
    first = sorted(expected.items(), key=lambda item: (-item[1], item[0]))
    assert list(zip(*counts.to_pydict().values(), strict=True)) == first


LETTERS = st.text("aAbΣσςİI .:`'\n\té字,", max_size=10)


@given(st.lists(st.none() | LETTERS, max_size=7), st.lists(LETTERS.filter(bool), max_size=8), st.integers(1, 40))
def test_slabs_of_any_size_find_what_each_text_has(texts, vocabulary, size):
    """Case is that of `str.lower`, final sigma and dotted I among it, of each text alone."""
    folded = [None if text is None else text.lower() for text in texts]
    matcher, found, spaced = matching.Matcher(vocabulary), [], []
    for slab in slabs.slabs(pa.array(texts, pa.string()), lowercase=True, size=size):
        counts, entries = matcher(slab)
        found += [row.tolist() for row in np.split(entries, np.cumsum(counts)[:-1])]
        spaced += slab.spaced.decode().split("\n")
    assert spaced == [space(text or "") for text in folded]
    assert found == [[] if text is None else brute_force([text], vocabulary)[0] for text in folded]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_types_chunks_and_slices_change_nothing(kind, monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_BYTES", 16)
    texts = pa.chunked_array([["a dog", None, "Cat"], [], ["dog, cat", "", "x" * 50 + " dog"]], pa.string()).cast(kind)
    method = annotator("dog", "cat")
    rows = pa.table({"text": texts})
    expected = [["dog"], None, ["cat"], ["dog", "cat"], [], ["dog"]]
    assert method.run(rows).table["concepts"].to_pylist() == expected
    assert method.run(rows.slice(2, 3)).table["concepts"].to_pylist() == expected[2:5]
    assert method.run(pa.table({"text": pa.nulls(2)})).table["concepts"].to_pylist() == [None, None]


def test_a_broken_caption_fails_alone_in_every_slab(monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_BYTES", 12)
    values = [b"dog", b"\xc3", b"\xa9 cat", b"DOG \xed\xa0\x80", "É dog".encode(), b"cat"]
    offsets = np.cumsum([0, *map(len, values)]).astype(np.int32)
    texts = pa.StringArray.from_buffers(6, pa.py_buffer(offsets), pa.py_buffer(b"".join(values)))
    result = annotator("dog", "cat").run(pa.table({"text": texts}))
    assert [failure.row for failure in result.failures] == [1, 2, 3]
    assert result.table["concepts"].to_pylist() == [["dog"], None, None, None, ["dog"], ["cat"]]


def test_all_spellings_are_looked_for_and_the_concept_is_recorded_once():
    text = "Hot_Dog\nT-Shirt\n\nhot dog\nskateboards\nskateboard\nups\nuniform post service\n_\nHot_Dog"
    rows = table("a hot_dog, a HOT DOG", "skateboard T-shirt", "UPS uniform post service", "_")
    names = annotator_of(text, cleaning="names").run(rows).table["concepts"].to_pylist()
    assert names == [["hot dog"], ["t-shirt", "skateboard"], ["ups", "uniform post service"], []]
    merged = annotator_of(text, cleaning="merge").run(rows).table["concepts"].to_pylist()
    assert merged == [["hot dog"], ["t-shirt", "skateboards"], ["ups"], []]
    given = annotator_of(text, cleaning="none").run(rows).table["concepts"].to_pylist()
    assert given == [["hot_dog", "hot dog"], ["t-shirt", "skateboard"], ["ups", "uniform post service"], ["_"]]
    exact = annotator_of(text, cleaning="none", lowercase=False).run(rows).table["concepts"].to_pylist()
    assert exact == [[], ["skateboard"], ["uniform post service"], ["_"]]


def test_a_vocabulary_without_a_concept_is_refused():
    for text, seen in (("", ""), ("\n \n", ""), ("_\n__\n", ", only '_' and its like")):
        with pytest.raises(ConfigError, match=f"has no concept in it{seen}; write one a line"):
            annotator_of(text)
    assert annotator_of("_", cleaning="none").run(table("a _ b")).table["concepts"].to_pylist() == [["_"]]


def test_rare_mined_names_join_frequent_ones():
    shards = [["skateboarders"] * 3 + ["skateboarder"] * 5, ["skateboarder here", "a t_bone", "t bone", "zebra"] * 2]
    state = mine(shards, min_count=2, max_words=2, cleaning="merge")
    assert decode_vocabulary(state["vocabulary"]) == ["bone", "skateboarder", "t", "t bone", "zebra"]
    assert mapping_text(state).splitlines() == [
        "name\tconcept\twhy\trows",
        "skateboarder\tskateboarder\t\t7",
        "skateboarders\tskateboarder\talike\t3",
        "bone\tbone\t\t2",
        "t\tt\t\t2",
        "t bone\tt bone\t\t2",
        "t_bone\tt bone\tspelling\t2",
        "zebra\tzebra\t\t2",
    ]
    annotated = CaptionAnnotator(Captions(cleaning="merge"), state).run(table("Skateboarders, T_bone")).table
    assert annotated["concepts"].to_pylist() == [["skateboarder", "t bone"]]
