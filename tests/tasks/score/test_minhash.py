"""Shingles and signatures: hand-made texts, sets of tuples as the reference, and the sketch's own statistics."""

import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.methods.score import MinHashSignature
from tasks.score import minhash
from tasks.score.shingles import shingles

GOLDEN_SHINGLES = [
    10828827554882439688,
    692405109218070186,
    11541292792970224637,
    208135962883047010,
    15208824845500387773,
]
GOLDEN_SIGNATURE = [[65126, 60170, 27004, 60965, 50313, 45276, 14004, 36770]]


def hashes(text, tokens="words", n=2):
    found, starts = shingles([text], tokens, n)
    assert starts.tolist() == [0, len(found)]
    return found.tolist()


def test_case_spacing_punctuation_and_normal_form_do_not_matter_to_words():
    assert hashes("The quick brown fox") == hashes("  the QUICK,\n\tbrown—fox!") != hashes("quick the brown fox")
    composed = unicodedata.normalize("NFC", "Über naïve Straße")
    assert hashes(composed) == hashes(unicodedata.normalize("NFD", composed).upper())
    assert hashes("a\u00adb c\u200d d") == hashes("ab c d")  # soft hyphen, joiner
    assert hashes("❤️ love") == hashes("❤ love") and hashes("１２ abc") == hashes("12 abc")


def test_scripts_without_spaces_and_pictographs_are_cut_by_character():
    assert len(hashes("漢字かな交じり文")) == 7 and len(hashes("สวัสดี")) == 3 and len(hashes("한국어 문장 하나")) == 2
    assert len(hashes("😀😀 well😀done")) == 4
    assert len(set(hashes("漢字漢字", n=2))) == 2


def test_short_texts_have_one_shingle_and_texts_without_tokens_are_alike_only_if_equal():
    assert len(hashes("two words", n=5)) == 1 and hashes("two words", n=5) == hashes("Two  words!", n=5)
    assert hashes("two words", n=5) != hashes("two", n=5) != hashes("words", n=5)
    blank = ["", "!!!", "???", " ", "\u200d"]
    assert all(len(hashes(text)) == 1 for text in blank) and len({hashes(text)[0] for text in blank}) == len(blank)


def test_characters_keep_punctuation_and_collapse_white_space():
    assert hashes("ab  c", "characters", 3) == hashes(" AB\n\tc ", "characters", 3)
    assert len(hashes("ab  c", "characters", 3)) == 2 and hashes("ab, c", "characters") != hashes("ab c", "characters")


@given(st.lists(st.lists(st.sampled_from("a bb ccc ab ba é".split()), max_size=12), max_size=6), st.integers(1, 4))
def test_hashes_are_equal_exactly_where_the_n_grams_are(texts, n):
    found, starts = shingles([" ".join(words) for words in texts], "words", n)
    grams = []
    for words in texts:
        whole = [tuple(words[at : at + n]) for at in range(max(1, len(words) - n + 1))]
        grams += whole
    assert np.diff(starts).tolist() == [max(1, len(words) - n + 1) for words in texts]
    assert len(set(grams)) == len(set(found.tolist())) == len(set(zip(grams, found.tolist(), strict=True)))


def test_hashes_and_signatures_are_the_same_in_every_process():
    found, starts = shingles(["The quick brown fox jumps over the lazy dog."], "words", 5)
    assert found.tolist() == GOLDEN_SHINGLES
    assert minhash.sign(found, starts, 8, 7).tolist() == GOLDEN_SIGNATURE


def planted(similarity, size, count, seed):
    """Pairs of sets of random hashes of one Jaccard similarity: `(count, m)` each."""
    rng = np.random.default_rng(seed)
    both = round(size * similarity)
    union = rng.integers(0, 1 << 64, (count, size), np.uint64)
    half = both + (size - both) // 2
    return union[:, :half], np.hstack([union[:, :both], union[:, half:]])


def signed(sets, num_perm=128, seed=0):
    return minhash.sign(sets.ravel(), np.arange(len(sets) + 1) * sets.shape[1], num_perm, seed)


@pytest.mark.parametrize("size", [10, 40, 400])
@pytest.mark.parametrize("similarity", [0.3, 0.8])
def test_agreement_of_signatures_is_the_jaccard_similarity(similarity, size):
    one, other = planted(similarity, size, 2000, seed=size)
    agreement = (signed(one) == signed(other)).mean(axis=1)
    error = np.sqrt(similarity * (1 - similarity) / 128)
    assert abs(agreement.mean() - similarity) < 5 * error / np.sqrt(2000)
    assert agreement.std() < 1.1 * error  # no worse than independent permutations
    assert not np.array_equal(signed(one), signed(one, seed=1))


def test_repeats_and_order_do_not_matter():
    one, _ = planted(0.5, 60, 20, seed=0)
    assert np.array_equal(signed(one), signed(np.hstack([one[:, ::-1], one[:, :7]])))


def sketch(texts, **changes):
    method = minhash.MinHashSignature(MinHashSignature(**changes))
    result = method.run(pa.table({"text": pa.chunked_array([texts], pa.string())}))
    assert not result.failures and result.table.column_names == list(method.provides) == list(method.sketches)
    return result.table


def test_texts_of_every_kind_and_slices_do_not_matter(monkeypatch):
    texts = ["some words here to sign " * k for k in range(60)] + [None, "", "😀", "x" * 70_000, "一二三四五六七"] * 3
    whole = sketch(texts)
    column = whole.column(0)
    assert column.null_count == 3 and column.type == pa.binary(256)
    assert column[61] == column[66] != column[62]
    monkeypatch.setattr(minhash, "SLICE_SLOTS", 1 << 10)
    monkeypatch.setattr(minhash, "SLICE_BYTES", 100)
    assert sketch(texts).equals(whole)
    assert sketch([]).num_rows == 0 and sketch([None]).column(0).null_count == 1


def test_only_so_many_characters_count():
    head = "one two three four five six seven "
    table = sketch([head + "eight " * 1000, head + "nine " * 1000, head], max_characters=len(head))
    assert len(set(table.column(0).to_pylist())) == 1
    assert table.column_names[0] != MinHashSignature().column  # another setting never hides in the same column


def test_planted_near_duplicates_have_the_similarity_they_tell():
    rng = np.random.default_rng(3)
    sets = [rng.integers(0, 1 << 64, size, np.uint64) for size in (1, 7, 8, 50, 300)] * 20
    sets = [np.append(members, members[:2]) for members in sets]
    exact, copies = minhash.plant(sets, rng)
    for similarity, members, copy in zip(exact, sets, copies, strict=True):
        one, other = set(members.tolist()), set(copy.tolist())
        assert similarity == np.float32(len(one & other) / len(one | other)) >= 0.45
    assert exact[0] == exact[1] == 1 and len(np.unique(exact)) > 20


def test_one_row_in_sixteen_has_a_planted_near_duplicate_and_never_more_than_a_bounded_number(monkeypatch):
    words = np.array([f"w{i}" for i in range(999)])
    texts = [" ".join(row) for row in words[np.random.default_rng(0).integers(0, 999, (160, 60))]]
    there = sketch(texts).column(1)
    assert 8 <= len(there) - there.null_count <= 10 and len(there.drop_null()[0].as_py()) == 4 + 256
    monkeypatch.setattr(minhash, "PLANTED_ROWS", 3)
    assert len(sketch(texts).column(1).drop_null()) == 3
