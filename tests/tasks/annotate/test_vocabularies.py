"""Vocabularies by name and by file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.methods.annotate import ZeroShot
from tasks.annotate import vocabularies
from tasks.annotate.entries import (
    decode_vocabulary,
    encode_vocabulary,
    given_state,
    mapping_text,
    mined_state,
)
from tasks.annotate.zero_shot import ZeroShotAnnotator


def test_built_in_lists_are_those_that_the_libraries_ship():
    imagenet = decode_vocabulary(given_state(vocabularies.read_text("imagenet-1k"), "none")["vocabulary"])
    assert len(imagenet) == 998 and imagenet[:2] == ["tench", "goldfish"]
    lemmas = decode_vocabulary(given_state(vocabularies.read_text("imagenet-21k"), "none")["vocabulary"])
    assert len(lemmas) == 20_101 and lemmas[:4] == ["organism", "benthos", "heterotroph", "cell"]
    assert "kit fox" in lemmas and not any(name != name.strip() or ", " in name for name in lemmas)


def test_the_first_lemma_stands_for_a_synset():
    assert vocabularies.first_lemmas(["kit fox, Vulpes macrotis", "crane"]) == ["kit fox", "crane"]


def test_a_file_is_known_by_its_content_and_a_built_in_list_by_its_version(tmp_path):
    (tmp_path / "a.txt").write_text("dog\ncat\n")
    (tmp_path / "b.txt").write_text("dog\ncat\n")
    (tmp_path / "c.txt").write_text("dog\n")
    a, b, c = (vocabularies.identity(str(tmp_path / f"{name}.txt")) for name in "abc")
    assert a == b != c
    from importlib.metadata import version

    assert vocabularies.identity("imagenet-21k") == f"imagenet-21k of timm {version('timm')}"


def test_a_file_may_have_a_byte_order_mark_blanks_and_repeats(tmp_path):
    (tmp_path / "words.txt").write_bytes("\ufeff dog \r\n\r\nhot dog\ndog\n".encode())
    text = vocabularies.read_text(str(tmp_path / "words.txt"))
    assert decode_vocabulary(given_state(text, "none")["vocabulary"]) == ["dog", "hot dog"]
    assert decode_vocabulary(encode_vocabulary(["dog", "señal de tráfico"])) == ["dog", "señal de tráfico"]


@given(st.lists(st.text("a\\\nn\t", min_size=1)))
def test_entries_with_newlines_and_backslashes_survive(entries):
    assert decode_vocabulary(encode_vocabulary(entries)) == entries


def test_the_mapping_says_what_became_of_each_line():
    text = "Dog\n\nhot_dog\ndog\n hot_dog \nskateboards\nskateboard\n__\n"
    lines = mapping_text(given_state(text, "merge")).splitlines()
    assert lines == [
        "name\tconcept\twhy\trows",
        "Dog\tdog\tspelling\t",
        "hot_dog\thot dog\tspelling\t",
        "dog\tdog\t\t",
        "hot_dog\thot dog\trepeated\t",
        "skateboards\tskateboards\t\t",
        "skateboard\tskateboards\talike\t",
        "__\t\tempty\t",
    ]
    assert "Dog\tDog\t\t\n" in mapping_text(given_state(text, "none"))
    assert "Dog\tdog\tspelling\t\n" in mapping_text(given_state(text, "none", lowercase=True))
    assert decode_vocabulary(given_state(text, "names")["vocabulary"]) == [
        "dog",
        "hot dog",
        "skateboards",
        "skateboard",
    ]
    assert mapping_text({"vocabulary": encode_vocabulary(["a"])}) == "name\tconcept\twhy\trows\na\ta\t\t\n"


def test_names_for_two_things_are_one_concept_that_the_mapping_shows():
    mapping = mapping_text(given_state(vocabularies.read_text("imagenet-1k"), "names")).splitlines()
    assert len(mapping) == 1001
    assert [line.split("\t")[0] for line in mapping if "\trepeated\t" in line] == ["missile", "sunglasses"]


def test_refusals_say_what_is_wrong(tmp_path):
    for missing in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(ValueError, match="there is no such file, and built in are imagenet-1k, imagenet-21k"):
            vocabularies.check(str(missing))
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(ValueError, match=r"empty\.txt'; there is no concept in it, write one a line"):
        vocabularies.check(str(tmp_path / "empty.txt"))
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(ValueError, match=r"not UTF-8 text: .* position 3"):
        vocabularies.check(str(tmp_path / "latin.txt"))
    (tmp_path / "blank.txt").write_text("_\n __ \n")
    vocabularies.check(str(tmp_path / "blank.txt"))
    with pytest.raises(ValueError, match="there is no concept in it"):
        vocabularies.check(str(tmp_path / "blank.txt"), "names")
    vocabularies.check("imagenet-21k")


def test_mined_concepts_are_in_code_point_order_and_their_names_by_count():
    state = mined_state(["c", "a", "C", "b"], [9, 5, 3, 2], "names")
    assert decode_vocabulary(state["vocabulary"]) == ["a", "b", "c"] and state["concept_of"].tolist() == [2, 0, 2, 1]
    assert mapping_text(state).splitlines()[1:] == ["c\tc\t\t9", "a\ta\t\t5", "C\tc\tspelling\t3", "b\tb\t\t2"]


def test_names_for_zero_shot_are_cleaned_if_one_says_so():
    text = "Hot_Dog\nskateboards\nskateboard\nHot_Dog"
    for cleaning, expected in (
        ("none", ["Hot_Dog", "skateboards", "skateboard"]),
        ("names", ["hot dog", "skateboards", "skateboard"]),
        ("merge", ["hot dog", "skateboards"]),
    ):
        state = ZeroShotAnnotator(ZeroShot(cleaning=cleaning)).from_text(text)
        assert decode_vocabulary(state["vocabulary"]) == expected
        assert mapping_text(state).count("\trepeated\t") == 1
