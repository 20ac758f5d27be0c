"""A causal language model of a few thousand weights, with a tokenizer trained on the texts: made in under a second."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal


def tiny_lm(
    folder: Path,
    texts: Sequence[str],
    *,
    vocab: int = 500,
    width: int = 32,
    layers: int = 2,
    max_length: int = 64,
    seed: int = 0,
    kind: Literal["llama", "gpt2"] = "llama",
) -> Path:
    """`folder`, with a model of random weights and its tokenizer as `save_pretrained` writes them.

    `llama` begins rows with `<s>` and has a head of its own; `gpt2` begins with nothing, and its head is its embedding.

    Args:
        texts: What the tokenizer's pieces are of.
        vocab: V, columns of the logits; at least 300. The tokenizer may have fewer.
        max_length: Positions.
    """
    tokenizer = tiny_tokenizer(texts, vocab, begins=kind == "llama")
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(folder)
    tiny_model(len(tokenizer), vocab, width, layers, max_length, seed, kind).save_pretrained(folder)
    return folder


def tiny_model(
    tokens: int, vocab: int, width: int, layers: int, max_length: int, seed: int, kind: str = "llama"
) -> Any:
    """The model of `tiny_lm`, in evaluation mode; ids 0, 1, 2 of the `tokens` used are padding, begin, end."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    if tokens > vocab:
        raise ValueError(f"`vocab` is {vocab}; the tokenizer has {tokens} tokens")
    special = {"vocab_size": vocab, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    # Default weights are tiny: all rows would look the same.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "gpt2":
            shape = {"n_positions": max_length, "n_embd": width, "n_layer": layers, "n_head": 4}
            return GPT2LMHeadModel(GPT2Config(**special, **shape, initializer_range=0.2)).eval()
        shape = {"max_position_embeddings": max_length, "hidden_size": width, "num_hidden_layers": layers}
        shape |= {"intermediate_size": 2 * width, "num_attention_heads": 4, "num_key_value_heads": 4}
        return LlamaForCausalLM(
            LlamaConfig(**special, **shape, initializer_range=0.2, tie_word_embeddings=False)
        ).eval()


def tiny_tokenizer(texts: Sequence[str], vocab: int = 500, begins: bool = True) -> Any:
    """A byte-level BPE tokenizer trained on `texts`, as transformers wraps it; `<s>` before every row if `begins`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
        )
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def real_texts(count: int = 200) -> list[str]:
    """Paragraphs of the docstrings of a few of Python's modules: English of many lengths, with some code."""
    import argparse
    import collections
    import decimal
    import logging
    import pathlib
    import statistics
    import textwrap

    documented: list[Any] = []
    for module in (statistics, textwrap, collections, decimal, logging, argparse, pathlib):
        documented.append(module)
        for _, member in inspect.getmembers(module, lambda one: inspect.isclass(one) or inspect.isroutine(one)):
            documented += [member, *(one for _, one in inspect.getmembers(member, inspect.isroutine))]
    paragraphs = [part for one in documented for part in (inspect.getdoc(one) or "").split("\n\n")]
    texts = list(dict.fromkeys(" ".join(part.split()) for part in paragraphs if len(part) > 20))
    if len(texts) < count:
        raise ValueError(f"`count` is {count}; there are {len(texts)} texts")
    return texts[:count]
