"""sample: which rows of each superbatch make the batch, and on which training worker (rank) each of them goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from tasks.sample.coverage import Account


class Sampler(Protocol):
    """Picks the batch out of each superbatch; built as `Class(config, seed=seed)`."""

    needs: tuple[str, ...]
    """Sidecar columns that `pick` reads."""
    independent: bool
    """Whether superbatches can be picked in any order and in parallel."""
    input_columns: tuple[str, ...]
    """Optional: those of `needs` that are columns of the input by the name the user gave."""
    libraries: tuple[str, ...]
    """Optional: distributions that make its numbers."""
    # Also optional: `check_columns(schema)`, ColumnError if the `input_columns` are of types that it cannot read.
    remedy: str
    """Optional: what makes its `needs`, in a sentence, for who has no such column."""
    part_rows: int
    """Optional: draws that may be in memory at once with their `needs`, where these are wide."""

    def pick(self, superbatch: pa.Table, step: int) -> list[np.ndarray]:
        """Returns one int64 array of row indices per rank, each in order of use, no index twice.

        Args:
            superbatch: The `needs` columns of the B rows drawn for this step; rank r owns rows `[r*B/W, (r+1)*B/W)`.
            step: Number of the superbatch, from 0.
        """
        ...


class AccountableSampler(Sampler, Protocol):
    """A sampler that goes by concepts and tells what it did with them, for the report."""

    named: list[str]
    """Optional: concepts that its configuration names; a run warns of those that no superbatch held."""

    def pick_and_account(self, superbatch: pa.Table, step: int) -> tuple[list[np.ndarray], Account]:
        """Returns what `pick` returns, and the account of this superbatch."""
        ...


class ValuingSampler(Sampler, Protocol):
    """A sampler that goes by numbers of single draws and tells them, for the report."""

    values: tuple[str, ...]
    """Names of those numbers, the last the one that picks go by."""

    def pick_and_value(self, superbatch: pa.Table, step: int) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """Returns what `pick` returns, and the values: float32 `(B,)` each, NaN where there is none."""
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
    "jest": "tasks.sample.jest:Jest",
    "uds": "tasks.sample.uds:Uds",
    "random": "tasks.sample.comparators:Random",
    "max_loss": "tasks.sample.comparators:MaxLoss",
    "max_entropy": "tasks.sample.comparators:MaxEntropy",
    "gradient_norm": "tasks.sample.comparators:GradientNorm",
    "rho_loss": "tasks.sample.comparators:RhoLoss",
    "greats": "tasks.sample.greats:Greats",
}
