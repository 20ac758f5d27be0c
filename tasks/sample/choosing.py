"""Choosing rows of micro-batches in a training loop: what all selectors have in common, whatever they score rows by.

Only training jobs import this file, hence torch at the top.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import torch

from tasks.arguments import at_least
from tasks.sample.stopwatch import Stopwatch
from tasks.score.uds import top_k

Padding: TypeAlias = Literal["excluded", "counts"]
Positions: TypeAlias = Literal["all", "response"]
IGNORED = -100
"""The label of a token that is not trained on, as in torch and `transformers`."""
STRETCHES = ("scoring", "nuclear_norm", "distance", "training")


class MicroBatchSelector:
    """Takes K rows of each micro-batch; subclasses score them.

    The model is scored in the mode that it is in, as released: in train mode, with dropout if it has any.

    Args:
        k: Rows taken of each micro-batch; all where it has fewer.
        padding: `excluded`: with an attention mask, positions of padding do not count, and what is left of a row moves
            to its front, so that padding on the left and on the right are the same. `counts`: as in the released code,
            which has no mask and scores them too.
        positions: What of a row `choose` lets count: `all`, as released, or the `response`, what has labels.
        start_step: Before this step whole micro-batches are trained on and nothing is scored or remembered.
        seed: Of whatever is random.
    """

    reads_logits: ClassVar[bool] = True

    def __init__(
        self,
        k: int,
        *,
        padding: Padding = "excluded",
        positions: Positions = "all",
        start_step: int = 0,
        seed: int = 0,
    ) -> None:
        at_least(k=(k, 1), start_step=(start_step, 0), seed=(seed, 0))
        for name, value, known in (("padding", padding, Padding), ("positions", positions, Positions)):
            if value not in get_args(known):
                raise ValueError(f"`{name}` is {value!r}; it must be one of {', '.join(get_args(known))}")
        self.k, self.padding, self.positions, self.start_step, self.seed = k, padding, positions, start_step, seed
        self.done = 0
        """Micro-batches so far."""
        self._watch, self._counts = Stopwatch(), Counter[str]()
        self._device = torch.device("cpu")

    @torch.no_grad()
    def score(
        self, logits: torch.Tensor, mask: torch.Tensor | None = None, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Returns what each row is worth: float32 `(B,)`, -inf for a row that has nothing to score or is not finite.

        Args:
            logits: `(B, N, V)` of any floating type, scored in float32 or better, within autocast too.
            mask: bool or int `(B, N)`, positions that count; None: all.
            labels: int64 `(B, N)` tokens, -100 where not trained on: what `max_loss` and `max_entropy` go by.
        """
        return self._scored(logits, _checked(logits, mask), labels)[0]

    @torch.no_grad()
    def select(
        self,
        logits: torch.Tensor,
        mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        *,
        step: int | None = None,
    ) -> torch.Tensor:
        """Returns the rows to train on, the best first: int64 `(min(K, B),)` on the logits' device.

        They are remembered now, before the gradient step that they are for.

        Args:
            logits: See `score`, as `mask` and `labels`.
            mask: See `score`.
            labels: See `score`.
            step: What `start_step` is compared with, of the optimizer; None: micro-batches so far.
        """
        self._device = logits.device
        if self._waits(step):
            picks = torch.arange(len(logits), device=logits.device)
        else:
            scores, memories = self._scored(logits, _checked(logits, mask), labels)
            picks = torch.as_tensor(top_k(scores, self.k))
            usable = scores > -math.inf
            self._remember(memories, picks[usable[picks]])
            self._counts["unusable"] += len(scores) - int(usable.sum())
        self.done += 1
        self._counts["candidates"] += len(logits)
        self._counts["trained"] += len(picks)
        return picks

    def choose(self, model: Any, inputs: Mapping[str, Any], *, step: int | None = None) -> dict[str, Any]:
        """Returns the rows to train on, of every tensor in `inputs`, after a forward pass without gradients.

        Args:
            model: Called as `model(**inputs)` without `labels`; its output has `logits`, or is the logits.
            inputs: Tensors with rows first (those of one row, or of none, are for all and stay as they are);
                `attention_mask` `(B, N)` and `labels` are read where they are there.
            step: See `select`.

        Raises:
            ValueError: A tensor has another number of rows, or the output has no logits `(B, N, V)`.
        """
        count, self._device = _rows(inputs)
        for name, value in inputs.items():
            _check_rows(name, value, count)
        if not self.reads_logits or self._waits(step):
            picks = self.select(torch.empty(count, 0, 0, device=self._device), step=step)
        else:
            with torch.no_grad(), self._watch.on("scoring", self._device):
                told = model(**{name: value for name, value in inputs.items() if name != "labels"})
            # Within autocast older releases of torch would train on weights cast here, which have no gradients.
            torch.clear_autocast_cache()
            logits = _logits(told)
            del told  # models return caches and hidden states too
            picks = self.select(*self._counting(logits, inputs), step=step)
        return {n: v[picks.to(v.device)] if _by_row(v, count) else v for n, v in inputs.items()}

    def _counting(
        self, logits: torch.Tensor, inputs: Mapping[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Logits, the mask of those that count, and labels."""
        mask, labels = inputs.get("attention_mask"), inputs.get("labels")
        if mask is None or self.padding == "counts":
            mask = None
        else:
            logits, mask, labels = _fronted(logits, mask, labels)
        if self.positions == "response":
            if labels is None:
                raise ValueError("`positions` is response, which `labels` tell; the micro-batch has none for tokens")
            mask = labels != IGNORED if mask is None else mask & (labels != IGNORED).to(mask.device)
        return logits, mask, labels

    def training(self) -> AbstractContextManager[None]:
        """Times what is done inside: the forward and backward pass of the rows taken."""
        return self._watch.on("training", self._device)

    def timing(self) -> dict[str, float]:
        """Seconds so far by what they were for, rows, and rows a second, of this process; waits for the device.

        `scoring_seconds`: forward passes without gradients; `nuclear_norm_seconds`; `distance_seconds`: projection and
        distance to the memory; `training_seconds`: what was inside `training`. `unusable`: rows that scored -inf.
        """
        seconds = self._watch.seconds()
        told = {f"{name}_seconds": seconds.get(name, 0.0) for name in STRETCHES}
        total = sum(told.values())
        rows = {name: float(self._counts[name]) for name in ("candidates", "trained", "unusable")}
        rates = {f"{name}_per_second": rows[name] / total if total else 0.0 for name in ("candidates", "trained")}
        return {**told, **rows, **rates}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Returns all that later picks depend on, on the CPU; times and counts are not part of it."""
        return {"done": torch.tensor(self.done)}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Goes on from what `state_dict` returned."""
        self.done = int(state["done"])

    def _waits(self, step: int | None) -> bool:
        return (self.done if step is None else step) < self.start_step

    def _scored(
        self, logits: torch.Tensor, mask: torch.Tensor | None, labels: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Scores as `score` returns them, and what there is to remember of each row."""
        raise NotImplementedError

    def _remember(self, memories: torch.Tensor | None, picks: torch.Tensor) -> None:
        """Keep of the rows taken what later scores depend on."""


def _checked(logits: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor | None:
    """The mask as bool on the logits' device; ValueError if shapes or types are wrong."""
    if logits.ndim != 3 or not logits.is_floating_point():
        raise ValueError(f"`logits` is {logits.dtype} {tuple(logits.shape)}; it must be floating, (B, N, V)")
    if mask is None:
        return None
    if mask.shape != logits.shape[:2]:
        raise ValueError(
            f"`mask` is {tuple(mask.shape)}; it must be {tuple(logits.shape[:2])}, a number for each position of "
            "`logits`. For attention masks of another kind take padding='counts'"
        )
    return mask.to(logits.device) != 0


def _rows(inputs: Mapping[str, Any]) -> tuple[int, torch.device]:
    """How many rows a micro-batch has, and where it is."""
    names = [name for name, value in inputs.items() if isinstance(value, torch.Tensor) and value.ndim]
    if not names:
        raise ValueError(f"`inputs` has {', '.join(inputs) or 'nothing'}; it must have tensors, rows first")
    known = [name for name in ("input_ids", "inputs_embeds", "labels") if name in names]
    lead = inputs[(known or names)[0]]
    return len(lead), lead.device


def _by_row(value: Any, count: int) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == count


def _check_rows(name: str, value: Any, count: int) -> None:
    if isinstance(value, torch.Tensor) and value.ndim and len(value) not in (1, count):
        raise ValueError(f"`{name}` has {len(value)} rows and the micro-batch {count}; tensors must have rows first")


def _logits(told: Any) -> torch.Tensor:
    """The logits of a model's output."""
    found = told.get("logits") if isinstance(told, Mapping) else getattr(told, "logits", told)
    if not isinstance(found, torch.Tensor):
        raise ValueError(f"the model returned {type(told).__name__}; it must return logits, or an output with `logits`")
    return found


def _fronted(
    logits: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """All three with what counts of each row at its front; no copy is made of what is so already."""
    there = _checked(logits, mask)
    if there is None or not there.numel():
        return logits, mask, labels
    if labels is not None and labels.shape != there.shape:
        labels = None  # not of tokens
    lengths = there.sum(1)
    fronted = torch.arange(there.shape[1], device=there.device) < lengths[:, None]
    if not torch.equal(there, fronted):
        order = (~there).to(torch.int8).argsort(dim=1, stable=True)
        logits = logits.gather(1, order[:, :, None].expand_as(logits))
        labels = labels.gather(1, order.to(labels.device)) if labels is not None else None
    longest = int(lengths.max())
    return logits[:, :longest], fronted[:, :longest], labels[:, :longest] if labels is not None else None
