"""MinHash signatures of texts: what the select `minhash` compares rows by, made once a shard.

The sketch is rensa's R-MinHash, after Fast Similarity Sketching (arXiv 1704.04370): two texts agree in a slot with the
probability of their shingle sets' Jaccard similarity, with less variance than independent permutations have. A slot is
kept as 16 bits of a mix of rensa's 32: two different values meet with probability 2^-16, far below the sketch's own
error, for half the bytes: a row takes 2 * num_perm.

So that a run can say what it finds, some rows of every shard get a planted near duplicate: of the row's own shingles a
part is replaced, which makes the Jaccard similarity with it exactly known. Only the signature is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.packed import pack
from tasks import Result
from tasks.score.shingles import shingles

SLICE_SLOTS = 1 << 19
"""Slots of the signatures made at once: rensa hands them over as Python integers."""
SLICE_BYTES = 1 << 22
"""Bytes of the texts looked at at once; a single text may have more."""

PLANTED_ROWS = 1024
"""Most planted near duplicates of a shard; one row in `PLANTED_EVERY` has one, in a shard of few rows."""
PLANTED_EVERY = 16
PLANTED_SHINGLES = 8
"""A text of fewer shingles has no near duplicates worth the name."""


class MinHashSignature:
    """Signatures of a shard's texts, null where the text is, slice by slice."""

    needs: tuple[str, ...] = ("text",)
    libraries: tuple[str, ...] = ("rensa",)

    def __init__(self, config: Any) -> None:
        self._config = config
        self.provides: tuple[str, ...] = (config.column, config.planted_column)
        self.sketches: tuple[str, ...] = self.provides

    def depends_on(self) -> dict[str, Any]:
        """The version of Unicode's tables, which normal forms and tokens follow."""
        import unicodedata

        return {"unicode": unicodedata.unidata_version}

    def run(self, rows: pa.Table) -> Result:
        """Args: rows: `text: string`, of any length; null where there is none."""
        config, texts = self._config, rows.column("text")
        valid = np.flatnonzero(texts.is_valid().to_numpy())
        signatures = np.zeros((len(texts), config.num_perm), "<u2")
        planted: list[bytes | None] = [None] * len(texts)
        wanted, rng = evenly(valid), np.random.default_rng([config.seed, len(texts)])
        for part in slices(texts, valid, SLICE_SLOTS // config.num_perm):
            found = pc.utf8_slice_codeunits(texts.take(pa.array(part)), 0, config.max_characters).to_pylist()
            hashes, starts = shingles(found, config.tokens, config.ngram)
            signatures[part] = sign(hashes, starts, config.num_perm, config.seed)
            picked = np.flatnonzero(np.isin(part, wanted))
            exact, copies = plant([hashes[starts[at] : starts[at + 1]] for at in picked.tolist()], rng)
            ends = np.cumsum([0, *map(len, copies)])
            signed = sign(np.concatenate([np.empty(0, np.uint64), *copies]), ends, config.num_perm, config.seed)
            for at, similarity, signature in zip(part[picked].tolist(), exact, signed, strict=True):
                planted[at] = similarity.tobytes() + signature.tobytes() if similarity < 1 else None
        columns = [pack(signatures, texts.is_valid().to_numpy()), pa.array(planted, pa.binary())]
        return Result(pa.table(columns, names=list(self.provides)), [])


def evenly(rows: np.ndarray) -> np.ndarray:
    """Which of `rows` get a planted near duplicate: evenly spaced ones."""
    wanted = min(PLANTED_ROWS, -(-len(rows) // PLANTED_EVERY))
    return rows[np.linspace(0, len(rows) - 1, wanted).astype(np.int64)] if wanted else rows


def plant(sets: list[np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Copies of sets with some members replaced, and the exact Jaccard similarities with them, float32 `(n,)`.

    Similarities are spread over 0.5 to 1; that of a set too small to have near duplicates is 1.

    Args:
        sets: uint64 `(m,)` each, repeats included.
        rng: What the similarities and the new members are drawn with.
    """
    exact, copies = np.ones(len(sets), "<f4"), []
    for at, (members, level) in enumerate(zip(sets, rng.uniform(0.5, 1, len(sets)), strict=True)):
        copy = rng.permutation(np.unique(members))
        size = len(copy)
        replaced = round(size * (1 - level) / (1 + level)) if size >= PLANTED_SHINGLES else 0
        copy[:replaced] = rng.integers(0, 1 << 64, replaced, np.uint64)
        exact[at] = (size - replaced) / (size + replaced)
        copies.append(copy)
    return exact, copies


def slices(texts: pa.ChunkedArray, rows: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """`rows` in consecutive parts of at most `most` rows and about `SLICE_BYTES` bytes of text, one row at least."""
    ends = np.cumsum(pc.fill_null(pc.binary_length(texts), 0).to_numpy()[rows], dtype=np.int64)
    first = 0
    while first < len(rows):
        before = ends[first - 1] if first else 0
        last = int(np.searchsorted(ends, before + SLICE_BYTES, side="right"))
        last = min(max(first + 1, last), first + max(1, most))
        yield rows[first:last]
        first = last


def sign(hashes: np.ndarray, starts: np.ndarray, num_perm: int, seed: int) -> np.ndarray:
    """Signatures of sets of hashes, uint16 `(n, num_perm)`.

    Args:
        hashes: uint64 `(m,)`: the sets one after the other, none empty; repeats do not matter.
        starts: int64 `(n + 1,)`: where each begins.
    """
    from rensa import RMinHash

    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        np.ascontiguousarray(hashes), starts.astype(np.uint64), num_perm, seed
    )
    slots = np.array(matrix.to_rows(), np.uint32).reshape(-1, num_perm)
    # The finaliser of MurmurHash3: the low bits of a minimum are not evenly spread by themselves.
    slots = (slots ^ (slots >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    slots = (slots ^ (slots >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return (slots ^ (slots >> np.uint32(16))).astype("<u2")
