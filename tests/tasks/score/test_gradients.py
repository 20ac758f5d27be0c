"""Gradients of the last layer: gains against torch's autograd, sketches whose inner products are unbiased."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_lm import real_texts, tiny_lm

from configs.errors import ConfigError
from configs.methods.logits import CausalLm
from configs.methods.utility import Gradients as Section
from storage.packed import unpack
from tasks.score.gradient_sketch import CountSketch, GradientSketch
from tasks.score.gradients import Gradients

TEXTS = real_texts(60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("lm")
    tiny_lm(place, TEXTS, vocab=320, width=16)
    pq.write_table(pa.table({"text": [*TEXTS[40:50], "", None]}), place / "validation.parquet")
    return place


def section(folder, **settings):
    logits = CausalLm(model=str(folder), max_length=48, batch_tokens=256, device="cpu")
    return Section(**{"logits": logits, "validation": str(folder / "validation.parquet"), **settings})


def gradient(folder, text):
    """Of the loss by the head's weights, by torch's autograd."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([(tokenizer(text)["input_ids"] + [tokenizer.eos_token_id])[:48]])
    model(input_ids=ids, labels=ids).loss.backward()
    return model.lm_head.weight.grad


def test_the_gain_is_the_inner_product_with_the_mean_gradient_of_the_validation_rows(folder):
    result = Gradients(section(folder)).run(pa.table({"text": [*TEXTS[:6], None, ""]}))
    mean = sum(gradient(folder, text) for text in TEXTS[40:50]) / 10
    wanted = [(gradient(folder, text) * mean).sum().item() for text in TEXTS[:6]]
    gain, sketch = result.table["gradient_gain"], result.table["gradient_sketch"]
    assert gain.to_pylist()[:6] == pytest.approx(wanted, rel=1e-4) and gain.to_pylist()[6:] == [None, None]
    assert (gain.type, sketch.type) == (pa.float32(), pa.binary(4 * 1024)) and sketch.null_count == 2
    assert [(failure.row, failure.reason) for failure in result.failures] == [(7, "no_tokens")]


def test_inner_products_of_sketches_are_about_those_of_gradients(folder):
    result = Gradients(section(folder, sketch_dim=8192)).run(pa.table({"text": TEXTS[:6]}))
    found = unpack(result.table["gradient_sketch"], np.float32)
    exact = torch.stack([gradient(folder, text).flatten() for text in TEXTS[:6]]).double().numpy()
    norms = np.linalg.norm(exact, axis=1)
    error = (found.astype(np.float64) @ found.T - exact @ exact.T) / np.outer(norms, norms)
    assert np.abs(error).max() < 5 * np.sqrt(8 / 8192)


@pytest.mark.parametrize("tokens", [1, 20])
def test_inner_products_of_sketches_are_unbiased_and_spread_as_told(tokens):
    rng = torch.Generator().manual_seed(1)
    delta, hidden = torch.rand(2, tokens, 50, generator=rng), torch.rand(2, tokens, 10, generator=rng)
    matrices = torch.einsum("btv,bth->bvh", delta, hidden).flatten(1).double()
    exact, scale = (matrices[0] @ matrices[1]).item(), matrices.norm(dim=1).prod().item()
    dim, draws = 64, 600
    sketches = torch.stack([GradientSketch(50, 10, dim, seed).project(delta, hidden) for seed in range(draws)]).double()
    products = (sketches[:, 0] * sketches[:, 1]).sum(1)
    spread = products.std().item()
    assert abs(products.mean().item() - exact) < 4 * spread / np.sqrt(draws)
    assert spread < 1.1 * np.sqrt(8 / dim) * scale


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31), st.booleans())
def test_a_count_sketch_is_linear_and_adds_up_every_number_once(size, dim, seed, mixed):
    sketch = CountSketch(size, dim, np.random.default_rng(seed), mixed)
    units = sketch(torch.eye(size))
    assert units.shape == (size, dim) and (units.abs().sum(1) == 1).all()
    assert units[:dim].abs().sum(0).max() <= 1, "the first `dim` numbers have buckets of their own"
    values = torch.randn(3, size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sketch(values), values @ units)


def test_padding_adds_nothing_to_a_sketch():
    sketch, delta, hidden = GradientSketch(30, 7, 16, 0), torch.randn(1, 5, 30), torch.randn(1, 5, 7)
    delta[:, 3:] = 0
    torch.testing.assert_close(sketch.project(delta, hidden), sketch.project(delta[:, :3], hidden[:, :3]))
    assert not sketch.project(torch.zeros(1, 0, 30), torch.zeros(1, 0, 7)).any()


def test_the_fingerprint_follows_the_validation_rows(folder, tmp_path):
    path = tmp_path / "v.parquet"
    pq.write_table(pa.table({"text": TEXTS[:2]}), path)
    method = Gradients(section(folder, validation=str(path)))
    first, before = method.run(pa.table({"text": TEXTS[:3]})).table, method.depends_on()
    assert first.equals(method.run(pa.table({"text": TEXTS[:3]})).table)
    pq.write_table(pa.table({"text": TEXTS[2:4]}), path)
    assert method.depends_on() != before
    again = method.run(pa.table({"text": TEXTS[:3]})).table
    assert again["gradient_sketch"] == first["gradient_sketch"] and again["gradient_gain"] != first["gradient_gain"]


def test_validation_rows_may_be_in_a_file_with_the_columns_of_the_input(folder, tmp_path):
    path, rows = tmp_path / "v.parquet", pa.table({"text": TEXTS[:3]})
    wanted = Gradients(section(folder)).run(rows).table
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        caption = pa.array([*TEXTS[40:50], "", None]).cast(kind)
        pq.write_table(pa.table({"id": range(12), "caption": caption}), path)
        method = Gradients(section(folder, validation=str(path)))
        method.check()
        assert method.run(rows).table.equals(wanted)


def test_a_prompt_is_not_taken_for_the_response(folder, tmp_path):
    path = tmp_path / "v.parquet"
    logits = section(folder).logits.model_copy(update={"prompt": "ask"})
    pq.write_table(pa.table({"ask": TEXTS[:4], "tell": TEXTS[4:8]}), path)
    method = Gradients(section(folder, validation=str(path), logits=logits))
    assert method._validation().to_pydict() == {"ask": TEXTS[:4], "text": TEXTS[4:8]}
    pq.write_table(pa.table({"ask": TEXTS[:4]}), path)
    with pytest.raises(ConfigError, match="has no column 'text'; rename"):
        method.check()


def test_validation_rows_that_are_lost_or_cut_are_told_once(folder, tmp_path):
    path, told = tmp_path / "v.parquet", []
    pq.write_table(pa.table({"text": ["word " * 90, *TEXTS[:4], ""]}), path)
    method = Gradients(section(folder, validation=str(path)))
    method.tell = told.append
    method.run(pa.table({"text": ["short"]}))
    method.run(pa.table({"text": ["short"]}))
    assert len(told) == 2 and told[0].startswith("`validation`: ") and told[0].endswith("cut at `max_length` 48")
    assert told[1] == ("`validation`: 1 of 6 rows cannot be scored and are left out: row 5: the response has no tokens")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, r"cannot be read: there is no such file \(relative paths start at the working directory\)$"),
        (b"no parquet", "no Parquet file"),
        (pa.table({"other": [1]}), "has no column 'text'"),
        (
            pa.table({"a": ["a"], "b": ["b"]}),
            "no column 'text'; rename that of the responses to 'text', or set `logits.response` to its name; .*has a, b",
        ),
        (pa.table({"text": ["", None]}), "of which no row can be scored"),
        (pa.table({"text": ["", None, "a", "", "b"]}), "of which 3 of 5 rows cannot be scored: row 0: the response"),
    ],
)
def test_a_validation_file_that_will_not_do_is_refused_in_a_sentence(folder, tmp_path, content, told):
    path = tmp_path / "v.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        pq.write_table(content, path)
    with pytest.raises(ConfigError, match=told):
        method = Gradients(section(folder, validation=str(path)))
        method.check()
        method.run(pa.table({"text": TEXTS[:1]}))
