"""Rows of three kinds of real text, and of three kinds of made pairs, as a mixing law's proxy is given them."""

import hashlib
import inspect
import unicodedata

import numpy as np
import pyarrow as pa
from tiny_lm import real_texts

from configs.methods.learned import Aioli, LanguageMixProxy
from configs.methods.proxies import PairProxy
from tasks.embed import vectors
from tasks.mix.samples import Samples

KINDS = ("code", "names", "prose")
SMALL = LanguageMixProxy(max_length=32, vocabulary=400, width=32, layers=1, heads=2)


def config(**over):
    base = {"proxy": SMALL, "steps": 40, "rounds": 1, "batch_size": 12, "learning_rate": 3e-3, "device": "cpu"}
    return Aioli(**base | {"validation_rows": 24, "train_rows": 400} | over)


def uids(texts):
    return pa.array([hashlib.md5(str(text).encode()).digest() for text in texts], pa.binary(16))


def kinds(count=120):
    """Python's source code, names of Unicode's characters, and paragraphs of documentation: `count` texts of each."""
    import argparse
    import statistics

    lines = [line.strip() for module in (argparse, statistics) for line in inspect.getsource(module).splitlines()]
    code = _parts([line for line in lines if line], 4, "\n")
    named = [unicodedata.name(chr(i), "") for i in range(0x100, 0x3000)]
    names = _parts([name.lower() for name in named if name], 5, ", ")
    prose = [text[:160] for text in real_texts(count)]
    return {"code": code[:count], "names": names[:count], "prose": prose}


def _parts(items, size, between):
    return [between.join(items[at : at + size]) for at in range(0, len(items) - size, size)]


def text_rows(texts, **columns):
    return pa.table({"row": np.arange(len(texts)), "text": pa.array(texts, pa.string()), "uid": uids(texts), **columns})


def mixed(count=120):
    """The rows of all three kinds, `count` each, and their labels."""
    found = kinds(count)
    labels = pa.array([name for name in KINDS for _ in found[name]])
    return text_rows([text for name in KINDS for text in found[name]]), labels


def pair_rows(count=80, dim=12, seed=0):
    """Pairs of three kinds, each with a map of its own from image to text; and their labels."""
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((3 * count, dim))
    kind = np.repeat(np.arange(3), count)
    image[np.arange(3 * count), kind] += 4  # what kind it is can be seen
    maps = rng.standard_normal((3, dim, dim))
    text = np.einsum("nd,nde->ne", image, maps[kind]) + 0.1 * rng.standard_normal(image.shape)
    every = np.ones(len(image), bool)
    columns = {"image_embedding": vectors.pack(image, every), "text_embedding": vectors.pack(text, every)}
    table = pa.table({"row": np.arange(len(image)), **columns, "uid": uids(range(len(image)))})
    return table, pa.array([f"kind {k}" for k in kind.tolist()])


def built(settings, rows, labels, names=None):
    """What `Samples` builds of one shard."""
    samples = Samples(settings, settings.device)
    summary = samples.summarise(rows, labels)
    return samples.build(names or sorted(set(labels.to_pylist())), [summary])


def text_proxy(**over):
    """The proxy of `mixed`, whose groups are `KINDS`."""
    return built(config(**over), *mixed()).proxy


def pair_proxy(**over):
    """The proxy of `pair_rows`."""
    return built(config(**{"proxy": PairProxy(width=8), "learning_rate": 1e-2} | over), *pair_rows()).proxy
