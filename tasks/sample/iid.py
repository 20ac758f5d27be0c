"""IID sampling: the draws are in random order already, so the first b rows of a superbatch are a fair sample of it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from configs.methods import sample as methods


class IidSampler:
    """Takes rows 0..b-1 of each superbatch, the r-th b/W of them for rank r."""

    needs: tuple[str, ...] = ()
    independent: bool = True

    def __init__(self, config: methods.Iid, *, seed: int = 0) -> None:
        """`seed` is part of every sampler's signature; nothing is random here."""
        self.config = config

    def pick(self, superbatch: pa.Table, step: int) -> list[np.ndarray]:
        """Returns one int64 array of row indices per rank; see `tasks.sample.Sampler`."""
        return np.split(np.arange(self.config.batch_size, dtype=np.int64), self.config.world_size)
