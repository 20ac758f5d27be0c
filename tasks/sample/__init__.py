"""sample: which rows of each superbatch make the batch, and on which training worker (rank) each of them goes."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pyarrow as pa


class Sampler(Protocol):
    """Picks the batch out of each superbatch; built as `Class(config, seed=seed)`."""

    needs: tuple[str, ...]
    """Sidecar columns that `pick` reads."""
    independent: bool
    """Whether superbatches can be picked in any order and in parallel."""

    def pick(self, superbatch: pa.Table, step: int) -> list[np.ndarray]:
        """Returns one int64 array of row indices per rank, each in order of use, no index twice.

        Args:
            superbatch: The `needs` columns of the B rows drawn for this step; rank r owns rows `[r*B/W, (r+1)*B/W)`.
            step: Number of the superbatch, from 0.
        """
        ...


class StatefulSampler(Sampler, Protocol):
    """A sampler whose picks depend on earlier ones (`independent` is false): a checkpoint carries its state."""

    def state_dict(self) -> dict[str, np.ndarray]:
        """Returns all that later picks depend on."""
        ...

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Goes on from what `state_dict` returned."""
        ...


METHODS: dict[str, str] = {
    "iid": "tasks.sample.iid:IidSampler",
    "cabs_dm": "tasks.sample.cabs:CabsDm",
    "cabs_fm": "tasks.sample.cabs:CabsFm",
}
