"""The Trainer trains on what its selector takes, as a plain loop would, and goes on where it was."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_lm import real_texts, tiny_model, tiny_tokenizer

from tasks.sample.choosing import IGNORED
from tasks.sample.selector import MicroBatchSelector, selector

pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory.*")

SIZE, ACCUMULATED, VOCAB = 6, 2, 300
TEXTS = real_texts(48)


@pytest.fixture(scope="module")
def rows() -> list[list[int]]:
    """Tokens of texts of many lengths."""
    tokenizer = tiny_tokenizer(TEXTS, VOCAB)
    return [tokenizer(text, truncation=True, max_length=40)["input_ids"] for text in TEXTS]


def collated(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    """A padded micro-batch."""
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, IGNORED)}


def model(dropout: float = 0.0) -> Any:
    """A model whose gradients are of ordinary size."""
    made = tiny_model(VOCAB, VOCAB, 16, 1, 40, seed=0)
    made.config.attention_dropout = dropout
    for layer in made.model.layers:
        layer.self_attn.attention_dropout = dropout
    return made


def chooser(kind: str = "uds", **over: object) -> MicroBatchSelector:
    """A selector that notes what it takes in `taken`."""
    made = selector(kind, 2, **{"vocab_size": VOCAB, "max_length": 40, "buffer": 8, "alpha": 0.01} | over)
    made.taken, choose = [], made.choose

    def noting(model: Any, inputs: Any, **options: Any) -> Any:
        chosen = choose(model, inputs, **options)
        made.taken.append([hash(tuple(row)) for row in chosen["input_ids"].tolist()])
        return chosen

    made.choose = noting
    return made


def trainer(folder: Path, rows: list[list[int]], chosen: MicroBatchSelector, net: Any = None, **over: Any) -> Any:
    """A trainer with plain SGD that reads rows in order."""
    from transformers import TrainingArguments

    from tasks.sample.trainer import UtilityDiversityTrainer

    class InOrder(UtilityDiversityTrainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    arguments = {
        "output_dir": str(folder),
        "use_cpu": True,
        "per_device_train_batch_size": SIZE,
        "gradient_accumulation_steps": ACCUMULATED,
        "num_train_epochs": 1,
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
    }
    return InOrder(
        net or model(),
        TrainingArguments(**arguments | over),
        train_dataset=rows,
        data_collator=collated,
        selector=chosen,
    )


def by_hand(rows: list[list[int]], chosen: MicroBatchSelector) -> tuple[Any, list[float]]:
    """The model that a plain loop trains, and the loss of each step."""
    net, losses = model().train(), []
    for first in range(0, len(rows), SIZE * ACCUMULATED):
        step = [rows[at : at + SIZE] for at in range(first, min(len(rows), first + SIZE * ACCUMULATED), SIZE)]
        net.zero_grad()
        losses.append(0.0)
        for part in step:
            loss = net(**chosen.choose(net, collated(part), step=len(losses) - 1)).loss / len(step)
            loss.backward()
            losses[-1] += loss.item()
        with torch.no_grad():
            for weights in net.parameters():
                weights -= 0.1 * weights.grad
    return net, losses


@pytest.mark.parametrize(("kind", "start"), [("uds", 0), ("max_loss", 2)])
def test_it_trains_as_a_plain_loop_does(kind, start, rows, tmp_path):
    rows = rows[:42]  # the last step has one micro-batch, not two
    trained = trainer(tmp_path, rows, chooser(kind, start_step=start))
    before = [weights.clone() for weights in trained.model.parameters()]
    trained.train()
    net, losses = by_hand(rows, expected := chooser(kind, start_step=start))
    assert trained.selector.taken == expected.taken
    assert [len(taken) for taken in expected.taken] == [SIZE] * 2 * start + [2] * (7 - 2 * start)
    told = [line["loss"] for line in trained.state.log_history if "loss" in line]
    assert told == pytest.approx(losses, rel=1e-3) and len(told) == 4
    for one, other, old in zip(trained.model.parameters(), net.parameters(), before, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6) and not torch.equal(one, old)


def test_what_a_step_divides_by_does_not_depend_on_rows_not_taken(rows, tmp_path):
    """Rows of padding and one token are never taken; the Trainer's count of tokens would have them."""
    trained = trainer(tmp_path, rows[:24], chooser())
    assert trained._get_num_items_in_batch([collated(rows[:6])], torch.device("cpu")) is None
    inputs, counted = collated(rows[:6]), 10**6
    loss = trained_loss(trained, inputs, counted)
    again = chooser()
    expected = (net := model().train())(**again.choose(net, inputs)).loss
    assert loss == pytest.approx(expected.item() / ACCUMULATED, rel=1e-5)


def trained_loss(trained: Any, inputs: dict[str, torch.Tensor], counted: int) -> float:
    """What one call of `training_step` returns."""
    trained.current_gradient_accumulation_steps = ACCUMULATED
    return trained.training_step(trained.model, inputs, torch.tensor(counted)).item()


def test_a_resumed_training_is_the_same_run(rows, tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 1, "optim": "adamw_torch", "learning_rate": 1e-2}
    whole = trainer(tmp_path / "whole", rows, chooser(), model(0.2), **saving)
    whole.train()
    assert len(whole.selector.taken) == 8
    resumed = trainer(tmp_path / "resumed", rows, chooser(), model(0.2), **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert resumed.selector.taken == whole.selector.taken[4:]
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    ends = [load_file(tmp_path / n / "checkpoint-4" / "selector-0.safetensors") for n in ("whole", "resumed")]
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert len(ends[0]["memory.vectors"]) == 8


def test_a_checkpoint_without_a_selector_is_told_of(rows, tmp_path, caplog):
    first = trainer(tmp_path, rows[:24], chooser(), save_strategy="steps", save_steps=1)
    first.train()
    state = tmp_path / "checkpoint-1" / "selector-0.safetensors"
    state.unlink()
    again = trainer(tmp_path / "again", rows[:24], chooser())
    with caplog.at_level(logging.WARNING):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert f"{state} is missing" in caplog.text and len(again.selector.taken) == 2


def test_counters_are_in_the_logs(rows, tmp_path):
    trained = trainer(tmp_path, rows, chooser())
    trained.train()
    lines = [line for line in trained.state.log_history if "loss" in line]
    assert [line["selector_candidates"] for line in lines] == [12, 24, 36, 48]
    assert [line["selector_trained"] for line in lines] == [4, 8, 12, 16]
    for name in ("scoring", "nuclear_norm", "distance", "training"):
        seconds = [line[f"selector_{name}_seconds"] for line in lines]
        assert 0 < seconds[0] < seconds[-1]
    assert "selector_trained" not in trained.state.log_history[-1]


def test_it_evaluates_all_rows(rows, tmp_path):
    trained = trainer(tmp_path, rows[:12], chooser(), per_device_eval_batch_size=SIZE)
    told = trained.evaluate(rows[12:18])["eval_loss"]
    with torch.no_grad():
        assert told == pytest.approx(trained.model(**collated(rows[12:18])).loss.item(), rel=1e-5)


@pytest.mark.parametrize("over", [{"bf16": True}, {"label_smoothing_factor": 0.1}])
def test_it_trains_with(over, rows, tmp_path):
    kinds = []
    chosen = chooser()
    scored = chosen._scored
    chosen._scored = lambda *given: kinds.append(given[0].dtype) or scored(*given)
    trained = trainer(tmp_path, rows[:24], chosen, **over)
    trained.train()
    assert len(kinds) == 4 and set(kinds) == {torch.float32}  # accelerate gives back float32
    assert all(line["loss"] > 0 for line in trained.state.log_history if "loss" in line)
    assert all(weights.isfinite().all() for weights in trained.model.parameters())


def test_a_loss_of_ones_own_is_refused(tmp_path):
    from tasks.sample.trainer import UtilityDiversityTrainer

    with pytest.raises(ValueError, match="`compute_loss_func` is given"):
        UtilityDiversityTrainer(model(), selector=chooser(), compute_loss_func=lambda *_: 0)
