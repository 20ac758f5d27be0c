"""Choosing rows in a training loop: the spec's example, resuming, padding, precision, bad input, offline and online."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_lm import real_texts, tiny_lm, tiny_model, tiny_tokenizer

from configs.methods import scored
from tasks.sample.choosing import IGNORED
from tasks.sample.selector import KINDS, MaxEntropySelector, MaxLossSelector, UtilityDiversitySelector, selector
from tasks.sample.uds import Uds
from tasks.score.uds import LogitSketch
from tasks.score.utility_diversity import UtilityDiversity

SMALL = {"vocab_size": 20, "max_length": 12, "length_dim": 3, "vocab_dim": 5, "buffer": 4}
"""Options of a selector that is cheap and forgets soon."""


def logits(count: int = 6, length: int = 10, seed: int = 0, vocab: int = 20) -> torch.Tensor:
    """Logits of rows of different sizes."""
    drawn = torch.randn(count, length, vocab, generator=torch.Generator().manual_seed(seed))
    return (
        drawn
        * torch.linspace(0.5, 2, count)[torch.randperm(count, generator=torch.Generator().manual_seed(seed))][
            :, None, None
        ]
    )


@pytest.fixture(scope="module")
def language():
    """A model in train mode and a function that makes micro-batches of it."""
    texts = real_texts(60)
    tokenizer = tiny_tokenizer(texts)
    model = tiny_model(len(tokenizer), 500, 32, 2, 64, seed=0).train()

    def batches(size: int, side: str = "right") -> list[dict[str, torch.Tensor]]:
        made = []
        for first in range(0, len(texts) - size + 1, size):
            part = texts[first : first + size]
            batch = dict(
                tokenizer(
                    part, padding=True, truncation=True, max_length=64, padding_side=side, return_tensors="pt"
                ).data
            )
            batch.pop("token_type_ids", None)
            batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
            made.append(batch)
        return made

    return model, batches


def uds(k: int = 2, **over: object) -> UtilityDiversitySelector:
    """A selector for the language model."""
    return UtilityDiversitySelector(k, **{"vocab_size": 500, "max_length": 64, "buffer": 16} | over)


def test_the_specs_example():
    chosen = UtilityDiversitySelector(
        1, alpha=0.1, buffer=8, max_length=4, vocab_size=4, length_dim=2, vocab_dim=2, seed=0
    )
    chosen._sketch = LogitSketch.from_parts((1, -1, 1, 1), (1, 1, -1, 1), (1, 3), (0, 2))
    batch = torch.zeros(3, 4, 4)
    batch[0, 0, 0] = batch[0, 1, 1] = 1
    batch[1, 0:2, 0:2] = 1
    batch[2, 0, 2], batch[2, 1, 3], batch[2, 2, 0] = 2, 1, 1
    assert chosen.score(batch).tolist() == [2, 2, 4]  # nothing remembered: the nuclear norm alone
    assert chosen.select(batch[:1]).tolist() == [0]
    assert torch.allclose(chosen.score(batch), torch.tensor([2.0, 2.4, 5.6]))
    assert chosen.select(batch).tolist() == [2]
    expected = torch.tensor([2.8, 2 + 0.1 * 10.246211251235323, 4.8])
    assert torch.allclose(chosen.score(batch), expected)


def test_what_is_taken_is_remembered_at_once_and_the_oldest_forgotten():
    chosen = selector("uds", 2, **SMALL)
    first = logits()
    alone = chosen.score(first)
    picks = chosen.select(first)
    assert picks.dtype == torch.int64 and picks.tolist() == alone.argsort(descending=True)[:2].tolist()
    assert (chosen.score(first) > alone).all() and len(chosen._memory) == 2
    for seed in (1, 2):
        chosen.select(logits(seed=seed))
    forgotten = selector("uds", 2, **SMALL)
    for seed in (1, 2):
        forgotten._remember(*_kept(chosen, seed))
    assert torch.allclose(chosen.score(first), forgotten.score(first))


def _kept(chosen: UtilityDiversitySelector, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The sketches of a micro-batch and the picks that its norms and the memory at that time gave."""
    again = selector("uds", 2, **SMALL)
    for before in range(seed):
        again.select(logits(seed=before))
    batch = logits(seed=seed)
    return chosen._sketch.project(batch), again.select(batch)


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_on_where_it_was(kind, tmp_path):
    from safetensors.torch import load_file, save_file

    labels = torch.randint(0, 20, (6, 10), generator=torch.Generator().manual_seed(5))
    whole, parted = (selector(kind, 2, alpha=0.5, start_step=1, **SMALL) for _ in range(2))
    expected = [whole.select(logits(seed=seed), None, labels).tolist() for seed in range(9)]
    found = [parted.select(logits(seed=seed), None, labels).tolist() for seed in range(4)]
    save_file(parted.state_dict(), tmp_path / "state.safetensors")
    resumed = selector(kind, 2, alpha=0.5, start_step=1, **SMALL)
    resumed.load_state_dict(load_file(tmp_path / "state.safetensors"))
    found += [resumed.select(logits(seed=seed), None, labels).tolist() for seed in range(4, 9)]
    assert found == expected and found[0] == list(range(6)) and len({tuple(f) for f in found}) > 3


def test_the_state_of_another_projection_is_refused():
    state = selector("uds", 2, **SMALL).state_dict()
    with pytest.raises(ValueError, match=r"selector with .*seed.*\(12, 20, 3, 5, 0, 0\).*\(12, 20, 3, 5, 1, 0\)"):
        selector("uds", 2, seed=1, **SMALL).load_state_dict(state)
    with pytest.raises(ValueError, match="buffer of 4 vectors"):
        selector("uds", 2, **SMALL | {"buffer": 5}).load_state_dict(state)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "k"), [(1, 1), (3, 3), (3, 8), (1, 4), (6, 2)])
def test_k_is_clamped(kind, count, k):
    labels = torch.zeros(count, 10, dtype=torch.long)
    picks = selector(kind, k, **SMALL).select(logits(count), None, labels)
    assert len(set(picks.tolist())) == len(picks) == min(k, count)


def test_before_the_start_step_all_is_trained_on_and_nothing_remembered(language):
    model, batches = language
    batch = batches(8)[0]
    chosen = uds(start_step=3)

    def never(**inputs: object) -> None:
        raise AssertionError("the model was asked")

    assert chosen.choose(never, batch, step=2)["input_ids"] is not None
    assert len(chosen.choose(never, batch)["input_ids"]) == 8 and len(chosen._memory) == 0
    assert len(chosen.choose(model, batch, step=3)["input_ids"]) == 2 and len(chosen._memory) == 2
    assert chosen.timing()["trained"] == 18 and chosen.timing()["candidates"] == 24


def test_every_tensor_is_taken_and_labels_and_gradients_are_kept_from_the_model(language):
    model, batches = language
    seen = []

    def asked(**inputs: torch.Tensor) -> object:
        seen.append((set(inputs), torch.is_grad_enabled(), model.training))
        return model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])

    batch = batches(8)[0] | {"scale": torch.tensor(2.0), "positions": torch.arange(5)[None], "name": "n"}
    taken = uds().choose(asked, batch)
    assert seen == [({"input_ids", "attention_mask", "scale", "positions", "name"}, False, True)]
    picks = uds().select(model(batch["input_ids"], batch["attention_mask"]).logits, batch["attention_mask"])
    for name in ("input_ids", "attention_mask", "labels"):
        assert torch.equal(taken[name], batch[name][picks])
    assert taken["scale"] is batch["scale"] and taken["positions"] is batch["positions"] and taken["name"] == "n"
    assert len(batch["input_ids"]) == 8


def test_padding_does_not_count_unless_asked_to(language):
    model, batches = language
    left, right = batches(8, "left")[0], batches(8, "right")[0]
    assert not torch.equal(left["input_ids"], right["input_ids"])

    def taken(batch: dict[str, torch.Tensor], **over: object) -> list[tuple[int, ...]]:
        # Position ids make the model's logits the same for both sides.
        positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        chosen = uds(**over).choose(model, batch | {"position_ids": positions})
        rows = zip(chosen["input_ids"], chosen["attention_mask"], strict=True)
        return [tuple(tokens[there == 1].tolist()) for tokens, there in rows]

    assert taken(left) == taken(right)
    mask = right["attention_mask"]
    there = model(right["input_ids"], mask).logits
    released, ours = uds().score(there), uds().score(there, mask)
    full = mask.all(1)
    assert torch.equal(released[full], ours[full]) and (released[~full] > ours[~full]).all() and (~full).any()
    assert (
        uds(k=8, padding="counts").choose(model, right)["input_ids"].tolist()
        == right["input_ids"][released.argsort(descending=True)].tolist()
    )


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_a_shift_of_padding_changes_nothing(seed, count):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 8, (count,), generator=generator)
    starts = (torch.rand(count, generator=generator) * (9 - lengths)).long()
    there = torch.randn(count, 8, 20, generator=generator)
    inputs = {"input_ids": torch.zeros(count, 8, dtype=torch.long)}
    shifted, mask = torch.full((count, 8, 20), math.nan), torch.zeros(count, 8, dtype=torch.long)
    for row, (length, start) in enumerate(zip(lengths.tolist(), starts.tolist(), strict=True)):
        shifted[row, start : start + length], mask[row, start : start + length] = there[row, :length], 1
    front = (torch.arange(8) < lengths[:, None]).long()
    one, other = selector("uds", count, **SMALL), selector("uds", count, **SMALL)
    inputs["row"] = torch.arange(count)
    a = one.choose(lambda **_: shifted, inputs | {"attention_mask": mask})
    b = other.choose(lambda **_: there, inputs | {"attention_mask": front})
    assert a["row"].tolist() == b["row"].tolist()
    assert one.timing()["unusable"] == (lengths == 0).sum()
    assert torch.equal(one.state_dict()["memory.vectors"], other.state_dict()["memory.vectors"])


def test_rows_that_are_not_finite_or_empty_come_last_and_are_not_remembered():
    batch, mask = logits(), torch.ones(6, 10, dtype=torch.long)
    batch[0, 3, 4], batch[2, 0, 0], mask[4] = math.nan, math.inf, 0
    chosen = selector("uds", 5, **SMALL | {"buffer": 64})
    assert chosen.score(batch, mask).isinf().tolist() == [True, False, True, False, True, False]
    picks = chosen.select(batch, mask).tolist()
    assert set(picks[:3]) == {1, 3, 5} and picks[3:] == [0, 2] and len(chosen._memory) == 3
    assert chosen.timing()["unusable"] == 3
    assert chosen.score(batch, mask)[1].isfinite()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_score_as_float32(dtype):
    batch = logits().to(dtype)
    chosen = selector("uds", 2, **SMALL)
    chosen.select(batch)
    plain = chosen.score(batch.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = chosen.score(batch)
        assert torch.equal(chosen.score(batch.float()), plain)
    assert found.dtype == torch.float32 and torch.equal(found, plain)


def test_orthonormal_picks_are_those_of_the_released_scale():
    one, other = (selector("uds", 2, alpha=0.05, orthonormal=flag, **SMALL) for flag in (False, True))
    for seed in range(5):
        batch = logits(seed=seed)
        assert torch.allclose(one.score(batch), other.score(batch), rtol=1e-5)
        assert one.select(batch).tolist() == other.select(batch).tolist()


def test_losses_and_entropies_are_those_of_the_labels(language):
    model, batches = language
    for side in ("left", "right"):
        batch = batches(6, side)[1]
        batch["labels"][2] = IGNORED
        batch["labels"][3, : batch["attention_mask"].argmax(1)[3] + 9] = IGNORED  # a prompt
        batch["labels"][batch["attention_mask"].cumsum(1) <= 1] = IGNORED  # what padding on the left would predict
        there = model(batch["input_ids"], batch["attention_mask"]).logits
        logs = there[:, :-1].log_softmax(2)
        wanted = batch["labels"][:, 1:]
        for kind, each in (
            (MaxLossSelector, -logs.gather(2, wanted.clamp(min=0)[:, :, None])[:, :, 0]),
            (MaxEntropySelector, -(logs.exp() * logs).sum(2)),
        ):
            mean = (each * (wanted != IGNORED)).sum(1) / (wanted != IGNORED).sum(1)
            found = kind(2).score(there, batch["attention_mask"], batch["labels"])
            assert torch.allclose(found, mean.nan_to_num(-math.inf), rtol=1e-4) and found[2] == -math.inf
            taken = kind(2).choose(model, batch)["input_ids"]
            assert torch.equal(taken, batch["input_ids"][mean.nan_to_num(-math.inf).argsort(descending=True)[:2]])


def test_random_rows_differ_by_step_and_seed_and_ask_no_model():
    batch = {"input_ids": torch.arange(40).reshape(8, 5)}
    found = [
        [tuple(sorted(one.choose(None, batch)["input_ids"][:, 0].tolist())) for _ in range(40)]
        for one in (selector("random", 2), selector("random", 2), selector("random", 2, seed=1))
    ]
    assert found[0] == found[1] != found[2] and len(set(found[0])) > 15
    assert {row for picks in found[0] for row in picks} == set(range(0, 40, 5))


def test_seconds_and_rows_are_counted(language):
    model, batches = language
    chosen = uds()
    assert chosen.timing()["candidates_per_second"] == 0
    for batch in batches(8)[:3]:
        taken = chosen.choose(model, batch)
        with chosen.training():
            model(**taken).loss.backward()
    told = chosen.timing()
    seconds = [told[f"{name}_seconds"] for name in ("scoring", "nuclear_norm", "distance", "training")]
    assert all(one > 0 for one in seconds) and (told["candidates"], told["trained"]) == (24, 6)
    assert told["candidates_per_second"] == pytest.approx(24 / sum(seconds))
    assert told["trained_per_second"] == pytest.approx(6 / sum(seconds))
    model.zero_grad()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: selector("udz", 2), "`kind` is 'udz'; it must be one of uds, random, max_loss, max_entropy"),
        (lambda: selector("random", 2, alpa=1), "`alpa` is no option of a selector; they are alpha, buffer"),
        (lambda: selector("random", 0), "`k` is 0"),
        (lambda: selector("random", 2, padding="no"), "`padding` is 'no'; it must be one of excluded, counts"),
        (lambda: selector("uds", 2, **SMALL, alpha=-1), "`alpha` is -1"),
        (lambda: selector("uds", 2, **SMALL).score(logits(length=13)), "has 13 positions; the sketch was made for at"),
        (lambda: selector("uds", 2, **SMALL).score(logits(vocab=21)), "vocabulary of 21; the sketch was made for 20"),
        (lambda: selector("uds", 2, **SMALL).score(logits()[0]), r"`logits` is torch.float32 \(10, 20\)"),
        (lambda: selector("uds", 2, **SMALL).score(logits().long()), "`logits` is torch.int64"),
        (
            lambda: selector("uds", 2, **SMALL).score(logits(), torch.ones(6, 9)),
            r"`mask` is \(6, 9\); it must be \(6, 10\)",
        ),
        (lambda: selector("max_loss", 2).score(logits()), "`labels` is None; MaxLossSelector goes by"),
        (
            lambda: selector("max_loss", 2).score(logits(), None, torch.ones(6)),
            r"`labels` is \(6,\); it must be \(6, 10\)",
        ),
        (lambda: selector("random", 2).choose(None, {"a": 1}), "`inputs` has a; it must have tensors, rows first"),
        (
            lambda: selector("random", 2).choose(None, {"labels": torch.ones(4, 3), "b": torch.ones(3, 4)}),
            "`b` has 3 rows and the micro-batch 4",
        ),
        (lambda: selector("uds", 2, **SMALL).choose(lambda a: 5, {"a": torch.ones(3, 4)}), "the model returned int"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_other_attention_masks_are_for_the_model_alone():
    batch = {"input_ids": torch.zeros(6, 10), "attention_mask": torch.ones(6, 1, 10, 10)}
    with pytest.raises(ValueError, match="take padding='counts'"):
        selector("uds", 2, **SMALL).choose(lambda **_: logits(), batch)
    taken = selector("uds", 2, **SMALL, padding="counts").choose(lambda **_: {"logits": logits()}, batch)
    assert taken["attention_mask"].shape == (2, 1, 10, 10)


@pytest.mark.gpu
def test_picks_on_a_gpu_are_those_on_the_cpu_and_time_is_the_devices():
    here, there = selector("uds", 2, **SMALL), selector("uds", 2, **SMALL)
    for seed in range(6):
        batch = logits(seed=seed)
        picks = there.select(batch.cuda())
        assert picks.device.type == "cuda" and picks.tolist() == here.select(batch).tolist()
    with there.training():
        torch.cuda._sleep(100_000_000)
    told = there.timing()
    assert told["training_seconds"] > 0.01 and told["nuclear_norm_seconds"] > 0
    resumed = selector("uds", 2, **SMALL)
    resumed.load_state_dict(there.state_dict())
    assert resumed.select(batch.cuda()).tolist() == here.select(batch).tolist()


def test_a_row_of_tokens_is_scored_alone_whatever_is_beside_it(language):
    model, batches = language
    batch = batches(8)[0]
    there = model(batch["input_ids"], batch["attention_mask"]).logits.detach()
    together = uds().score(there, batch["attention_mask"])
    alone = [uds().score(there[i : i + 1], batch["attention_mask"][i : i + 1]).item() for i in range(8)]
    assert np.allclose(together, alone, rtol=1e-6)


@pytest.mark.parametrize(
    ("side", "positions", "orthonormal"), [("right", "all", False), ("left", "all", True), ("left", "response", False)]
)
def test_a_frozen_model_gives_the_picks_that_scores_and_sampler_give(side, positions, orthonormal, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    texts = real_texts(96)
    tiny_lm(tmp_path, texts, max_length=48)
    prompts = [text.split()[0] for text in texts]
    rows = pa.table({"prompt": prompts, "text": texts})
    settings = {"positions": positions, "orthonormal": orthonormal}
    logits = {"kind": "causal_lm", "model": str(tmp_path), "max_length": 48, "device": "cpu", "prompt": "prompt"}
    config = scored.Uds(
        superbatch_size=32, filter_ratio=0.75, micro_batch=8, alpha=0.01, buffer=10, logits=logits, **settings
    )
    scores = UtilityDiversity(config.prepares()[0])
    found = scores.run(rows)
    assert not found.failures
    offline, sampler = [], Uds(config)
    for step in range(3):
        offline += [32 * step + row for row in sampler.pick(found.table.slice(32 * step, 32), step)[0]]

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    chosen = UtilityDiversitySelector(2, alpha=0.01, buffer=10, max_length=48, vocab_size=500, **settings)
    online = []
    for first in range(0, 96, 8):
        encoded = []
        for prompt, text in zip(prompts[first : first + 8], texts[first : first + 8], strict=True):
            head = tokenizer(prompt + "\n")["input_ids"]
            ids = [*head, *tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id][:48]
            encoded.append((ids, len(head)))
        longest = max(len(ids) for ids, _ in encoded)
        batch = torch.zeros(4, 8, longest, dtype=torch.long)
        batch[2] = IGNORED
        for row, (ids, head) in enumerate(encoded):
            begin = longest - len(ids) if side == "left" else 0
            batch[0, row, begin : begin + len(ids)] = torch.tensor(ids)
            batch[1, row, begin : begin + len(ids)] = 1
            batch[2, row, begin + head : begin + len(ids)] = torch.tensor(ids[head:])
            batch[3, row] = (torch.arange(longest) - begin).clamp(min=0)
        names = ("input_ids", "attention_mask", "labels", "position_ids")
        inputs = dict(zip(names, batch, strict=True)) | {"row": torch.arange(first, first + 8)}
        online += chosen.choose(lambda row, **given: model(**given), inputs)["row"].tolist()
    assert online == offline and len(online) == 24
    vectors = chosen.state_dict()["memory.vectors"]
    assert torch.allclose(
        vectors, torch.from_numpy(sampler.state_dict()["0_vectors"]), rtol=1e-3, atol=1e-3 * vectors.std()
    )
