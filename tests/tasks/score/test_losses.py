"""Losses, entropies and gradient norms of a small language model, against transformers' own loss and autograd."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny_lm import real_texts, tiny_lm

from configs.methods.logits import CausalLm
from configs.methods.utility import TokenLosses as Section
from tasks.score import blockwise
from tasks.score.logits import Block
from tasks.score.losses import TokenLosses, measured

TEXTS = real_texts(120)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def folder(request, tmp_path_factory):
    return tiny_lm(tmp_path_factory.mktemp("lm"), TEXTS, kind=request.param)


def section(folder, **settings):
    return Section(logits=CausalLm(model=str(folder), max_length=48, batch_tokens=256, device="cpu", **settings))


def pairs(count=40):
    """Prompts and responses, some too long."""
    return pa.table({"ask": TEXTS[:count], "tell": TEXTS[60 : 60 + count]})


def alone(folder, prompt, response, separator="\n", limit=48):
    """Loss, entropy and gradient norm of one row by transformers' own loss and torch's autograd; None without one."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    head = torch.nn.Linear(model.lm_head.in_features, model.lm_head.out_features, bias=False)
    head.weight.data.copy_(model.lm_head.weight.data)
    model.lm_head = head  # untied, so that the gradient is the head's alone
    first = tokenizer(prompt + separator if prompt else "")["input_ids"]
    last = tokenizer(response, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    if len(first) >= limit:
        return None
    ids = torch.tensor([(first + last)[:limit]])
    labels = ids.clone()
    labels[:, : len(first)] = -100
    out = model(input_ids=ids, labels=labels)
    out.loss.backward()
    asked = labels[0, 1:] >= 0
    probabilities = out.logits[0, :-1][asked].softmax(1)
    entropy = -(probabilities * probabilities.log()).sum(1).mean()
    return [out.loss.item(), entropy.item(), head.weight.grad.norm().item()]


def test_the_numbers_are_those_of_transformers_and_autograd(folder):
    result = TokenLosses(section(folder, prompt="ask", response="tell")).run(pairs(20))
    names = ["lm_loss", "lm_entropy", "lm_gradient_norm"]
    assert result.table.column_names == names and {field.type for field in result.table.schema} == {pa.float32()}
    failed = {failure.row for failure in result.failures}
    assert 0 < len(failed) < 20 and {failure.reason for failure in result.failures} == {"no_tokens"}
    for row, (ask, tell) in enumerate(zip(TEXTS[:20], TEXTS[60:80], strict=True)):
        found, wanted = [result.table[name][row].as_py() for name in names], alone(folder, ask, tell)
        assert (wanted is None) == (row in failed) == (found == [None] * 3)
        if wanted:
            assert found == pytest.approx(wanted, rel=1e-4)


def test_plain_text_is_all_response_and_names_are_the_sections_own(folder):
    config = section(folder).model_copy(update={"name": "reference"})
    result = TokenLosses(config).run(pa.table({"text": TEXTS[:3]}))
    wanted = [alone(folder, "", text) for text in TEXTS[:3]]
    found = np.stack([result.table[f"reference_{one}"].to_numpy() for one in ("loss", "entropy", "gradient_norm")], 1)
    assert found == pytest.approx(np.array(wanted), rel=1e-4) and not result.failures


def test_numbers_do_not_depend_on_the_neighbours_or_the_chunks(folder, monkeypatch):
    method, table = TokenLosses(section(folder, prompt="ask", response="tell")), pairs()
    whole = method.run(table)
    monkeypatch.setattr("tasks.score.predictions.CHUNK", 1)
    for start in (3, 17):
        part = method.run(table.slice(start, 5))
        for name in method.provides:
            one, other = (t[name].to_numpy(zero_copy_only=False) for t in (part.table, whole.table.slice(start, 5)))
            np.testing.assert_allclose(one, other, rtol=1e-4)


def test_how_far_a_shard_is_and_what_was_cut_is_told(folder, monkeypatch):
    monkeypatch.setattr(blockwise, "TELL_SECONDS", 0)
    method, told = TokenLosses(section(folder)), []
    method.tell = told.append
    method.run(pa.table({"text": [*TEXTS[:40], None]}))
    cut, *far = told
    assert cut.endswith("rows were cut at `max_length` 48") and " of 40 " in cut
    done = [int(line.removeprefix("rows ").removesuffix(" of 41")) for line in far]
    assert len(done) > 2 and done == sorted(done) and done[-1] == 40
    monkeypatch.setattr(blockwise, "TELL_SECONDS", 1000)
    told.clear()
    method.run(pa.table({"text": ["short"]}))
    assert not told


def test_a_row_of_padding_and_one_that_nothing_predicts_are_not_a_number():
    logits, hidden = torch.randn(3, 4, 7), torch.randn(3, 4, 5)
    logits[0], hidden[0] = torch.nan, torch.nan  # what is not there may be anything
    there = torch.tensor([[False] * 4, [True, False, False, False], [True] * 4])
    block = Block(np.arange(3), logits, there, there, torch.zeros(3, 4, dtype=torch.int64), hidden)
    found = measured(block)
    assert np.isnan(found[:2, :2]).all() and np.isfinite(found[2]).all()
    assert measured(block._replace(responses=torch.zeros_like(there))).shape == (3, 3)


def test_a_lone_token_without_one_before_it_fails(tmp_path):
    folder = tiny_lm(tmp_path, TEXTS, kind="gpt2")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    result = TokenLosses(section(folder)).run(pa.table({"text": ["a", TEXTS[0]]}))
    assert [(one.row, one.reason) for one in result.failures] == [(0, "no_tokens")]
    assert result.table["lm_loss"].null_count == 1


def test_a_model_that_knows_the_answer_has_no_loss_no_entropy_and_no_gradient():
    tokens = torch.arange(5)[None]
    logits = 100 * torch.nn.functional.one_hot(tokens.roll(-1, 1), 6).float()
    there = torch.ones(1, 5, dtype=torch.bool)
    found = measured(Block(np.zeros(1, np.int64), logits, there, there, tokens, torch.randn(1, 5, 3)))
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_the_task_gives_a_scorer_its_log(monkeypatch):
    from types import SimpleNamespace

    from tasks.score import task

    told, silent = SimpleNamespace(tell=None), SimpleNamespace()
    for method in (told, silent):
        monkeypatch.setattr(task, "load", lambda *_, method=method: method)
        task.score_shards.fn(None, None, None, [], "")
    assert told.tell is task.tell and not vars(silent)
