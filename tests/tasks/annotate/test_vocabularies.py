"""Vocabularies by name and by file."""

import pytest

from tasks.annotate import vocabularies
from tasks.annotate.entries import decode_vocabulary, encode_vocabulary, parse_vocabulary


def test_built_in_lists_are_those_that_the_libraries_ship():
    imagenet = parse_vocabulary(vocabularies.read_text("imagenet-1k"))
    assert len(imagenet) == 998 and imagenet[:2] == ["tench", "goldfish"]
    lemmas = parse_vocabulary(vocabularies.read_text("imagenet-21k"))
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
    assert parse_vocabulary(text) == ["dog", "hot dog"]
    assert decode_vocabulary(encode_vocabulary(["dog", "señal de tráfico"])) == ["dog", "señal de tráfico"]


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
    vocabularies.check("imagenet-21k")
