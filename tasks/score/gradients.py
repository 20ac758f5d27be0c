"""For GREATS (Wang et al., NeurIPS 2024): what gradients of rows have in common with each other and with validation.

GREATS takes gradients of all layers while a model trains; here they are those of the last layer, of one model that does
not change: an adaptation.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import ConfigError
from configs.methods.utility import Gradients as Section
from storage import files
from storage.fingerprints import digest
from storage.packed import pack
from storage.view import TEXT
from tasks import Failure, Result
from tasks.score.blockwise import LogitsScorer, Progress, worked, worker_threads
from tasks.score.causal_lm import CausalLmLogits
from tasks.score.logits import Block
from tasks.score.losses import unpredicted

if TYPE_CHECKING:
    import torch

    from tasks.score.gradient_sketch import GradientSketch

LOST_SHARE = 0.5
"""Of the validation rows may be impossible to score; with more the mean gradient is that of other rows than meant."""

_measuring = threading.Lock()
_directions: dict[tuple[Any, ...], torch.Tensor] = {}


class Gradients(LogitsScorer):
    """`gradient_gain`: float32, inner product of the gradient of a row's mean loss with the validation rows' mean
    gradient; `gradient_sketch`: float32 `(sketch_dim,)`, packed, inner products of which estimate those of gradients.

    Gradients are by the weights of the last layer. Null where a row has no logits or no token that is predicted.
    """

    provides: tuple[str, ...] = ("gradient_gain", "gradient_sketch")
    sketches: tuple[str, ...] = ("gradient_sketch",)

    def __init__(self, config: Section) -> None:
        super().__init__(config, CausalLmLogits(config.logits))

    def check(self) -> None:
        """Raise a MixwrightError if the model cannot be there, or the validation file lacks columns."""
        self.source.check()
        self._validation()

    def depends_on(self) -> dict[str, Any]:
        """What the logits depend on, and the content of the validation file."""
        return {**self.source.depends_on(), "validation": digest(self._content())}

    def run(self, rows: pa.Table) -> Result:
        """Score one shard."""
        from tasks.score.gradient_sketch import GradientSketch

        direction = self._direction()
        projector = GradientSketch(direction.shape[0], direction.shape[1], self.config.sketch_dim, self.config.seed)
        failures: list[Failure] = []
        gain = np.full(len(rows), np.nan, np.float32)
        sketch = np.zeros((len(rows), self.config.sketch_dim), np.float32)
        self.source.tell = self.tell
        blocks = self.source.blocks(rows, failures, hidden=True)
        progress = Progress(self.tell, len(rows))
        for members, (gains, sketches) in worked(blocks, lambda block: measured(block, direction, projector), progress):
            gain[members], sketch[members] = gains, sketches
            failures += unpredicted(members[np.isnan(gains)])
        known = ~np.isnan(gain)
        columns = {"gradient_gain": pa.array(gain, mask=~known), "gradient_sketch": pack(sketch, known)}
        return Result(pa.table(columns), sorted(failures))

    def _direction(self) -> torch.Tensor:
        """The mean gradient of the validation rows: float32 `(V, H)`; a process makes it once."""
        depends = self.depends_on()
        key = (self.config.logits.model_dump_json(), *(str(depends[name]) for name in sorted(depends)))
        with _measuring:
            if key not in _directions:
                _directions.clear()
                # On a thread of its own, in order: sums in float32 that do not depend on the number of cores.
                _directions[key], told = worker_threads(1).submit(self._mean_gradient).result()
                for line in told:
                    self.tell(f"`validation`: {line}")
            return _directions[key]

    def _mean_gradient(self) -> tuple[torch.Tensor, list[str]]:
        """The gradient, and what is to be told of the rows; the log of a task is not this thread's."""
        import torch

        from tasks.score.predictions import predictions

        failures: list[Failure] = []
        told: list[str] = []
        total: torch.Tensor | None = None
        count = 0
        rows = self._validation()
        self.source.tell = told.append
        for block in self.source.blocks(rows, failures, hidden=True):
            for part in predictions(block):
                delta = part.errors(torch.softmax(part.logits, 2))
                gradient = delta.flatten(0, 1).T @ part.inputs.flatten(0, 1)
                total = gradient if total is None else total.add_(gradient)
                count += int(part.counted.any(1).sum())
        why = f": row {failures[0].row}: {failures[0].detail}" if failures else ""
        if total is None or not count:
            raise ConfigError(f"`validation` is {self.config.validation!r}, of which no row can be scored{why}")
        lost = len(rows) - count
        if lost > LOST_SHARE * len(rows):
            raise ConfigError(
                f"`validation` is {self.config.validation!r}, of which {lost:,} of {len(rows):,} rows cannot be "
                f"scored{why}; the mean gradient needs more than half of them: mend or drop those rows"
            )
        if lost:
            told.append(f"{lost:,} of {len(rows):,} rows cannot be scored and are left out{why}")
        return total.div_(count), told

    def _content(self) -> bytes:
        try:
            return files.read_bytes(self.config.validation)
        except FileNotFoundError:
            raise ConfigError(
                f"`validation` is {self.config.validation!r}, which cannot be read: there is no such file (relative "
                "paths start at the working directory)"
            ) from None
        except OSError as error:
            why = str(error).split(" Detail: ")[0]  # which says the same again
            raise ConfigError(f"`validation` is {self.config.validation!r}, which cannot be read: {why}") from None

    def _validation(self) -> pa.Table:
        """The validation rows' columns that the model reads.

        The input's text may have any name: where `logits.response` is null, the file's `text` is the response, or the
        only column of strings that is not the prompt.
        """
        try:
            table = pq.read_table(pa.BufferReader(self._content()))
        except pa.ArrowInvalid as error:
            told = f"`validation` is {self.config.validation!r}, which is no Parquet file: {error}"
            raise ConfigError(told) from None
        response = self.config.logits.response
        texts = [f.name for f in table.schema if _is_text(f.type) and f.name != self.config.logits.prompt]
        if response is None and TEXT not in table.column_names and len(texts) == 1:
            table = table.rename_columns({texts[0]: TEXT})
        missing = [name for name in self.needs if name not in table.column_names]
        if missing:
            remedy = (
                f"rename that of the responses to {TEXT!r}, or set `logits.response` to its name"
                if response is None and missing[0] == TEXT
                else "it must have those that `logits` reads"
            )
            raise ConfigError(
                f"`validation` is {self.config.validation!r}, which has no column {missing[0]!r}; {remedy}; it has "
                f"{', '.join(table.column_names)}"
            )
        return table.select(list(self.needs))


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def measured(block: Block, direction: torch.Tensor, projector: GradientSketch) -> tuple[np.ndarray, np.ndarray]:
    """Gains `(B,)`, NaN where nothing is predicted, and sketches `(B, sketch_dim)`, zeros there."""
    import torch

    from tasks.score.predictions import predictions

    gains, sketches = [], []
    for part in predictions(block):
        delta = part.errors(torch.softmax(part.logits, 2))
        # <sum_t delta_t h_t^T, G> = sum_t delta_t . G h_t
        gain = ((delta @ direction) * part.inputs).sum((1, 2))
        gains.append(torch.where(part.counted.any(1), gain, torch.nan))
        sketches.append(projector.project(delta, part.inputs))
    return torch.cat(gains).cpu().numpy(), torch.cat(sketches).cpu().numpy()
