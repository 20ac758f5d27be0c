"""Training of a two-tower model on pairs in memory (CLIP: Radford et al., arXiv 2103.00020).

The text tower first learns words from a dictionary, then both towers learn pairs, the dictionary beside them. A step
is a function of the state before it, the seed and its number: no generator lives from one step to the next, so what
is restored goes on as if nothing had happened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.pocket import Pocket
from tasks.train.augment import reword, unknown, vary
from tasks.train.dictionary import Entry
from tasks.train.pairs import Pairs

if TYPE_CHECKING:
    import torch

TOKEN_TABLE = "token_embedding.weight"
MOST_SCALE = math.log(100)


class Training:
    """A model, its optimiser and what it learns from.

    Attributes:
        model: open_clip's `CLIP`.
        done: Steps done, of `steps`; the first `config.dictionary_steps` of them are of the dictionary alone.
    """

    def __init__(
        self,
        config: Pocket,
        model: Any,
        tokenize: Callable[[list[str]], torch.Tensor],
        pairs: Pairs,
        entries: Sequence[Entry],
    ) -> None:
        import torch

        self.config, self.model, self._tokenize = config, model.train(), tokenize
        self._pairs, self._entries = pairs, entries
        self.steps = config.dictionary_steps + config.steps
        self.done = 0
        self._definitions = tokenize([entry.definition for entry in entries])
        self._dictionary_scale = torch.nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self._optimiser = torch.optim.AdamW(self._groups(), lr=config.learning_rate, betas=(0.9, 0.98), fused=True)
        normal = model.visual.preprocess_cfg
        self._mean, self._std = (torch.tensor(normal[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
        _, where, variants = np.unique(pairs.bases, return_inverse=True, return_counts=True)
        weights = variants[where] ** -config.balance
        self._chances = weights / weights.sum()

    def advance(self) -> float:
        """Do one step and return its loss."""
        import torch

        rng = np.random.default_rng([self.config.seed, self.done])
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate()
        loss = self._dictionary_loss(rng)
        if self.done >= self.config.dictionary_steps:
            loss = self._pair_loss(rng) + self.config.dictionary_weight * loss
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters(), 1.0)
        self._optimiser.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, MOST_SCALE)
            self._dictionary_scale.clamp_(0, MOST_SCALE)
        self.done += 1
        return float(loss.detach())

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that a later `restore` needs, by name."""
        import torch

        state = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        state |= {"done": torch.tensor(self.done), "dictionary_scale": self._dictionary_scale.detach()}
        for index, inner in self._optimiser.state_dict()["state"].items():
            state |= {f"optimiser.{index}.{name}": tensor for name, tensor in inner.items()}
        return {name: tensor.contiguous() for name, tensor in state.items()}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go back to the state that `tensors` gave."""
        import torch

        parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "optimiser": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            if rest:
                parts[part][rest] = tensor
        self.model.load_state_dict(parts["model"])
        inner: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in parts["optimiser"].items():
            index, _, field = name.partition(".")
            inner.setdefault(int(index), {})[field] = tensor
        self._optimiser.load_state_dict({"state": inner, "param_groups": self._optimiser.state_dict()["param_groups"]})
        with torch.no_grad():
            self._dictionary_scale.copy_(tensors["dictionary_scale"])
        self.done = int(tensors["done"])

    # ---- losses
    def _pair_loss(self, rng: np.random.Generator) -> torch.Tensor:
        import torch

        size = min(self.config.batch_size, len(self._pairs.keys))
        rows = rng.choice(len(self._chances), size, replace=False, p=self._chances)
        batch = self._pairs.take(rows)
        pixels = (vary(batch.pixels, batch.turnable, rng) - self._mean) / self._std
        named = zip(batch.names, batch.groups, strict=True)
        captions = [reword(names, group, self.config.other_names, rng) for names, group in named]
        tokens = unknown(self._tokenize(captions).numpy(), rng)
        image, text, scale = self.model(pixels, torch.from_numpy(tokens))[:3]
        return contrast(image, text, scale)

    def _dictionary_loss(self, rng: np.random.Generator) -> torch.Tensor:
        import torch

        rows = rng.choice(len(self._entries), min(self.config.batch_size, len(self._entries)), replace=False)
        words = [self._entries[row].words for row in rows]
        chosen = [each[0] if rng.random() < 0.6 else str(each[rng.integers(len(each))]) for each in words]
        both = torch.cat([self._tokenize(chosen), self._definitions[rows]])
        word, definition = self.model.encode_text(both, normalize=True).chunk(2)
        return contrast(word, definition, self._dictionary_scale.exp())

    # ---- optimiser
    def _parameters(self) -> list[torch.nn.Parameter]:
        return [*self.model.parameters(), self._dictionary_scale]

    def _groups(self) -> list[dict[str, Any]]:
        """Matrices and kernels decay; gains, biases, scales and the token table do not: most tokens are never met."""
        named = dict(self.model.named_parameters())
        decaying = [p for name, p in named.items() if p.ndim >= 2 and name != TOKEN_TABLE]
        others = [p for name, p in named.items() if p.ndim < 2 or name == TOKEN_TABLE]
        return [
            {"params": decaying, "weight_decay": self.config.weight_decay},
            {"params": [*others, self._dictionary_scale], "weight_decay": 0.0},
        ]

    def _rate(self) -> float:
        """Of both phases: linear up to the peak, then a cosine, to a fifth in the first and to zero in the second."""
        config, first = self.config, self.config.dictionary_steps
        at, length, floor = (self.done, first, 0.2) if self.done < first else (self.done - first, config.steps, 0.0)
        cosine = 0.5 * (1 + math.cos(math.pi * at / length))
        return config.learning_rate * min(1.0, (at + 1) / max(1, config.warmup)) * (floor + (1 - floor) * cosine)


def contrast(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """CLIP's loss: the mean of the cross-entropies of a finding its b and of b finding its a.

    Args:
        a: Unit rows, float `(n, D)`.
        b: Unit rows, float `(n, D)`.
        scale: What cosines are multiplied by.
    """
    from open_clip import ClipLoss

    return ClipLoss()(a, b, scale)
