"""UDS in a training loop: of each micro-batch the rows that teach most, scored by the model while it is trained.

    selector = UtilityDiversitySelector(2, vocab_size=model.config.vocab_size)
    for inputs in loader:  # dicts of tensors, rows first, with `labels`
        chosen = selector.choose(model, inputs)
        with selector.training():
            model(**chosen).loss.backward()
        ...

Utility-diversity sampling (arXiv 2510.16882; algorithm as in the code released with it, of the paper the abstract was
read): one forward pass without gradients on all B rows of a micro-batch, then training on the K best. What it is
compared with stands behind the same interface: `selector("max_loss", 2, ...)`. For scores made ahead of training with a
frozen model there is the sampler of the same name. Only training jobs import this file, hence torch at the top.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from tasks.sample.choosing import IGNORED, MicroBatchSelector, Padding, Positions
from tasks.score.uds import LogitSketch, MemoryBuffer, alpha_factor, nuclear_norm, utility_diversity


class UtilityDiversitySelector(MicroBatchSelector):
    """UDS: nuclear norm of a row's logits, plus alpha times its mean distance to the rows taken before.

    Distances are between random projections of the logits; of the rows taken, the last `buffer` are remembered as they
    were when they were taken. Rows without a finite score are taken last and not remembered.

    In data parallel training every process has its own memory, as released.

    Args:
        k: See `MicroBatchSelector`.
        alpha: What diversity counts for; with `orthonormal` it is multiplied by sqrt(T V) / 2, which matches it.
        buffer: Rows remembered, M.
        max_length: T, positions of the longest row; longer ones raise a ValueError.
        vocab_size: V, of the logits.
        length_dim: Sketch: rows of the projection along the sequence.
        vocab_dim: Sketch: columns of the projection along the vocabulary.
        orthonormal: Sketch in the units of the logits.
        padding: See `MicroBatchSelector`.
        positions: See `MicroBatchSelector`.
        start_step: See `MicroBatchSelector`.
        seed: Of the projection's signs and indices.
    """

    def __init__(
        self,
        k: int,
        *,
        alpha: float = 1.5e-3,
        buffer: int = 1024,
        max_length: int = 512,
        vocab_size: int,
        length_dim: int = 8,
        vocab_dim: int = 128,
        orthonormal: bool = False,
        padding: Padding = "excluded",
        positions: Positions = "all",
        start_step: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(k, padding=padding, positions=positions, start_step=start_step, seed=seed)
        if not (alpha >= 0 and math.isfinite(alpha)):
            raise ValueError(f"`alpha` is {alpha!r}; it must be finite and at least 0")
        self._sketch = LogitSketch(
            max_length, vocab_size, length_dim=length_dim, vocab_dim=vocab_dim, seed=seed, orthonormal=orthonormal
        )
        self._shape = torch.tensor([max_length, vocab_size, length_dim, vocab_dim, seed, orthonormal])
        self._memory = MemoryBuffer(buffer, length_dim * vocab_dim)
        self._alpha = alpha * alpha_factor(max_length, vocab_size) if orthonormal else alpha

    def _scored(
        self, logits: torch.Tensor, mask: torch.Tensor | None, labels: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        with self._watch.on("nuclear_norm", logits.device):
            intra = torch.as_tensor(nuclear_norm(logits, mask))
        with self._watch.on("distance", logits.device):
            sketches = torch.as_tensor(self._sketch.project(logits, mask))
            inter = self._memory.mean_distance(sketches)
            scores = torch.as_tensor(utility_diversity(intra, inter, self._alpha))
        usable = scores.isfinite() if mask is None else scores.isfinite() & mask.any(1)
        return scores.float().masked_fill(~usable, -math.inf), sketches

    def _remember(self, memories: torch.Tensor | None, picks: torch.Tensor) -> None:
        if memories is not None:
            self._memory.push(memories[picks])

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Returns all that later picks depend on; times and counts are not part of it."""
        kept = {f"memory.{name}": torch.from_numpy(array) for name, array in self._memory.state_dict().items()}
        return super().state_dict() | {"sketch": self._shape} | kept

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Goes on from what `state_dict` returned.

        Raises:
            ValueError: It is of another projection, whose vectors cannot be compared, or of a buffer of another size.
        """
        if not torch.equal(state["sketch"].cpu(), self._shape):
            names = "max_length, vocab_size, length_dim, vocab_dim, seed, orthonormal"
            raise ValueError(
                f"the state is of a selector with ({names}) = {tuple(state['sketch'].tolist())}; "
                f"this one has {tuple(self._shape.tolist())}"
            )
        kept = {name.removeprefix("memory."): value for name, value in state.items() if name.startswith("memory.")}
        self._memory.load_state_dict(kept)
        super().load_state_dict(state)


class RandomSelector(MicroBatchSelector):
    """Rows at random; the model is not asked."""

    reads_logits = False

    def _scored(
        self, logits: torch.Tensor, mask: torch.Tensor | None, labels: torch.Tensor | None
    ) -> tuple[torch.Tensor, None]:
        drawn = np.random.default_rng([self.seed, self.done]).random(len(logits), np.float32)
        return torch.from_numpy(drawn).to(logits.device), None


class MaxLossSelector(MicroBatchSelector):
    """The rows whose labels' mean cross-entropy is highest."""

    def _scored(
        self, logits: torch.Tensor, mask: torch.Tensor | None, labels: torch.Tensor | None
    ) -> tuple[torch.Tensor, None]:
        if labels is None:
            raise ValueError(f"`labels` is None; {type(self).__name__} goes by what the model makes of them")
        if labels.shape != logits.shape[:2]:
            raise ValueError(f"`labels` is {tuple(labels.shape)}; it must be {tuple(logits.shape[:2])}, as `logits`")
        with self._watch.on("scoring", logits.device):
            # A row at a time: log-probabilities are as large as the logits.
            rows = zip(logits[:, :-1], labels.to(logits.device)[:, 1:], strict=True)
            found = torch.stack([self._row(one[wanted != IGNORED], wanted[wanted != IGNORED]) for one, wanted in rows])
        return found.nan_to_num(-math.inf, -math.inf, -math.inf), None

    @staticmethod
    def _row(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """The score of one row from its `(n, V)` logits of the `(n,)` labels: a number, NaN if there are none."""
        return torch.nn.functional.cross_entropy(logits.float(), wanted)


class MaxEntropySelector(MaxLossSelector):
    """The rows about whose labels the model is least sure: mean entropy of its predictions."""

    @staticmethod
    def _row(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return torch.distributions.Categorical(logits=logits.float(), validate_args=False).entropy().mean()


KINDS: dict[str, type[MicroBatchSelector]] = {
    "uds": UtilityDiversitySelector,
    "random": RandomSelector,
    "max_loss": MaxLossSelector,
    "max_entropy": MaxEntropySelector,
}


def selector(kind: str, k: int, **options: Any) -> MicroBatchSelector:
    """Returns the selector of that name; options that only others read are left out, so that one word compares them.

    Raises:
        ValueError: No selector has this name, or none has such an option.
    """
    if kind not in KINDS:
        raise ValueError(f"`kind` is {kind!r}; it must be one of {', '.join(KINDS)}")
    known, read = _options(UtilityDiversitySelector), _options(KINDS[kind])
    if unknown := options.keys() - known:
        raise ValueError(f"`{min(unknown)}` is no option of a selector; they are {', '.join(sorted(known))}")
    return KINDS[kind](k, **{name: value for name, value in options.items() if name in read})


def _options(kind: type) -> set[str]:
    parameters = inspect.signature(kind).parameters.values()
    return {one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
