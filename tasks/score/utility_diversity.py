"""UDS, its part that needs a model: nuclear norm and sketch of each row's logits, from any source of logits.

The released code counts every position, padding with it; padding is left out here, so that a row's scores are its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from configs.errors import ConfigError
from configs.methods.utility import UtilityDiversity as Section
from storage.fingerprints import source_digest
from storage.packed import pack
from tasks import Failure, Result, load
from tasks.score.blockwise import LogitsScorer, Progress, worked
from tasks.score.causal_lm import CausalLmLogits
from tasks.score.logits import SOURCES, Block

if TYPE_CHECKING:
    from tasks.score.uds import LogitSketch


class UtilityDiversity(LogitsScorer):
    """`intra`: float32; `sketch`: float32 `(length_dim * vocab_dim,)`, packed. Null where a row has no logits."""

    provides: tuple[str, ...] = ("intra", "sketch")
    sketches: tuple[str, ...] = ("sketch",)

    def __init__(self, config: Section) -> None:
        if config.positions == "response" and config.logits.kind != "causal_lm":
            raise ConfigError(
                f"`positions` is response, but `logits` is {config.logits.kind}, which has none; leave it at all"
            )
        super().__init__(config, load(SOURCES, config.logits))

    def depends_on(self) -> dict[str, Any]:
        """What the logits depend on."""
        module = SOURCES[self.config.logits.kind].split(":")[0]
        return {**self.source.depends_on(), "logits": source_digest(module)}

    def run(self, rows: pa.Table | Iterator[pa.Table]) -> Result:
        """Score one shard, slice by slice if it comes so."""
        counted = _Counted(rows)
        failures: list[Failure] = []
        if isinstance(self.source, CausalLmLogits):  # no other cuts rows
            self.source.tell = self.tell
        blocks = self.source.blocks(counted.rows, failures)
        progress = Progress(self.tell, len(rows) if isinstance(rows, pa.Table) else None)
        parts = [(members, *values) for members, values in worked(blocks, self._measured, progress)]
        intra = np.zeros(counted.count, np.float32)
        sketch = np.zeros((counted.count, self.config.length_dim * self.config.vocab_dim), np.float32)
        valid = np.zeros(counted.count, bool)
        while parts:
            members, norms, vectors = parts.pop()
            intra[members], sketch[members], valid[members] = norms, vectors, True
        packed = pack(sketch, valid)
        fields = [pa.field("intra", pa.float32()), pa.field("sketch", packed.type, metadata=self._told())]
        return Result(pa.table([pa.array(intra, mask=~valid), packed], pa.schema(fields)), sorted(failures))

    def _told(self) -> dict[str, str]:
        """How sketches were made: by it the sampler `uds` scales alpha."""
        length, vocabulary = self.source.shape()
        orthonormal = str(self.config.orthonormal).lower()
        return {"max_length": str(length), "vocab_size": str(vocabulary), "orthonormal": orthonormal}

    def _measured(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Norms `(B,)` and sketches `(B, d)` of a block."""
        from tasks.score.uds import nuclear_norm

        mask = block.there if self.config.positions == "all" else block.responses
        norms, vectors = nuclear_norm(block.logits, mask), self._sketch.project(block.logits, mask)
        return norms.cpu().numpy(), vectors.cpu().numpy()

    @cached_property
    def _sketch(self) -> LogitSketch:
        from tasks.score.uds import LogitSketch

        config = self.config
        return LogitSketch(
            *self.source.shape(),
            length_dim=config.length_dim,
            vocab_dim=config.vocab_dim,
            seed=config.seed,
            orthonormal=config.orthonormal,
        )


class _Counted:
    """Slices of a shard, counted as they pass."""

    def __init__(self, rows: pa.Table | Iterator[pa.Table]) -> None:
        self.count = len(rows) if isinstance(rows, pa.Table) else 0
        self.rows: pa.Table | Iterator[pa.Table] = rows if isinstance(rows, pa.Table) else self._passing(rows)

    def _passing(self, rows: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for slice_ in rows:
            self.count += len(slice_)
            yield slice_
