"""Tokens: words of any script, and a real tokenizer's counts whatever it was told to pad, cut and add."""

from __future__ import annotations

import pyarrow as pa
import pytest

from configs.errors import ConfigError
from configs.methods import score
from tasks.score import tokens
from tasks.score.tokens import Tokens


def count(texts, tokenizer="words"):
    method = Tokens(score.Tokens(tokenizer=str(tokenizer)))
    column = method.run(pa.table({"text": pa.chunked_array(texts, pa.string())})).table["tokens"]
    assert column.type == pa.int64()
    return column.to_pylist()


def write_tokenizer(path, special="[CLS]", words=("a", "red", "fox", "big")):
    """A word-level tokenizer that pads, truncates and adds a special token."""
    library = pytest.importorskip("tokenizers")
    known = {word: number for number, word in enumerate(("[UNK]", "[PAD]", special, *words))}
    made = library.Tokenizer(library.models.WordLevel(known, unk_token="[UNK]"))
    made.pre_tokenizer = library.pre_tokenizers.Split(" ", "removed")
    made.post_processor = library.processors.TemplateProcessing(
        single=f"{special} $A", special_tokens=[(special, known[special])]
    )
    made.enable_padding(length=7, pad_id=1, pad_token="[PAD]")
    made.enable_truncation(4)
    made.save(str(path))
    return path


def test_words_are_runs_of_letters_marks_and_digits():
    texts = [["a red fox", "a-b_c", "  ", "", None], ["naïve e\u0301te\u0301 x2", "!!! 😀", "狐 狸"]]
    assert count(texts) == [3, 3, 0, 0, None, 3, 0, 2]
    assert count([]) == [] and count([[None]]) == [None]


@pytest.mark.parametrize("batch", [2, 4096])
def test_a_tokenizer_counts_all_tokens_and_none_that_it_adds(tmp_path, monkeypatch, batch):
    monkeypatch.setattr(tokens, "BATCH", batch)
    path = write_tokenizer(tmp_path / "tokenizer.json")
    texts = [["a red fox", "a big big red fox", None], ["", "unheard of"]]
    assert count(texts, path) == [3, 5, None, 0, 2]


def test_the_tokenizer_s_content_is_what_counts_not_its_place(tmp_path):
    one, other = write_tokenizer(tmp_path / "one.json"), write_tokenizer(tmp_path / "other.json", words=("a", "fox"))
    (tmp_path / "copy.json").write_bytes(one.read_bytes())
    found = [
        Tokens(score.Tokens(tokenizer=str(path))).depends_on() for path in (one, other, tmp_path / "copy.json", "words")
    ]
    assert found[0] == found[2] != found[1] and found[3] == {}


def test_a_tokenizer_that_cannot_be_read_is_named(tmp_path):
    method = Tokens(score.Tokens(tokenizer=str(tmp_path / "none.json")))
    for asked in (method.depends_on, lambda: method.run(pa.table({"text": ["a"]}))):
        with pytest.raises(ConfigError, match=r"names the tokenizer '.*none\.json', which cannot be read"):
            asked()
