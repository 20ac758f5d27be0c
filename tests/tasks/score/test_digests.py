"""Digests: which texts count as equal, and that images do only byte by byte."""

from __future__ import annotations

import pyarrow as pa
import pytest
from blake3 import blake3

from configs.methods import score
from tasks.score.digests import ImageDigest, TextDigest


def text_digests(*parts):
    made = TextDigest(score.TextDigest()).run(pa.table({"text": pa.chunked_array(list(parts), pa.string())})).table
    assert made["text_digest"].type == pa.binary(16)
    return made["text_digest"].to_pylist()


EQUAL = {
    "case": ("A Red Fox", "a RED fox"),
    "white space": ("  a red\t\n fox ", "a red fox"),
    "other spaces": ("a\u2003red\u00a0fox\u3000", "a red fox"),
    "wide letters": ("Ｗ００７", "w007"),
    "composed": ("e\u0301te\u0301", "été"),
    "ligature": ("ﬁne", "fine"),
    "half-width kana": ("ｶﾞｽ", "ガス"),
    "compatibility ideograph": ("\uf9d1", "\u516d"),
}
UNLIKE = {
    "letters": ("a red fox", "a red fix"),
    "order": ("red fox", "fox red"),
    "joined": ("red fox", "redfox"),
    "accent": ("cafe", "café"),
    "punctuation alone": ("!!!", "???"),
    "pictographs": ("😀", "😁"),
    "names of languages": ("C++", "C#"),
    "ideographs": ("狐狸", "狐狗"),
    "voiced kana": ("か", "が"),
}


@pytest.mark.parametrize("case", EQUAL)
def test_texts_that_count_as_equal(case):
    one, other = text_digests(EQUAL[case])
    assert one == other and one is not None


@pytest.mark.parametrize("case", UNLIKE)
def test_texts_that_do_not(case):
    one, other = text_digests(UNLIKE[case])
    assert None not in (one, other) and one != other


def test_the_digest_is_of_the_normalised_text_whatever_the_chunks():
    wanted = blake3("a red 狐!".encode()).digest(length=16)
    assert text_digests(["  A\tred  狐! "], [], ["a red 狐！"]) == [wanted, wanted]


def test_texts_of_nothing_have_no_digest():
    assert text_digests([None, "", "  \n\u2003"], [None]) == [None] * 4 and text_digests() == []


def test_images_are_compared_byte_by_byte_slice_by_slice():
    slices = [pa.table({"image": pa.array(part, pa.binary())}) for part in ([b"x", None], [], [b"X", b"x", b""])]
    made = ImageDigest(score.ImageDigest()).run(slices).table["image_digest"]
    x, nothing, other, again, empty = made.to_pylist()
    assert x == again == blake3(b"x").digest(length=16) and nothing is None and len({x, other, empty}) == 3
    none = ImageDigest(score.ImageDigest()).run([]).table
    assert none.num_rows == 0 and none["image_digest"].type == pa.binary(16)
