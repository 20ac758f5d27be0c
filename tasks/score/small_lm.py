"""A small causal language model in plain torch: pre-norm blocks, learned places, a tied head, no dropout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from configs.methods.proxies import LanguageProxy

if TYPE_CHECKING:
    import torch


class SmallLm:
    """The model's arithmetic; weights are arguments, so that threads can be in it side by side."""

    threads = True

    def __init__(self, config: LanguageProxy, vocabulary: int) -> None:
        self.vocabulary, self.max_length = vocabulary, config.max_length
        self._config = config

    def initial(self, seed: int) -> dict[str, np.ndarray]:
        """Weights as GPT-2 draws them: normal with deviation 0.02, less at the end of each residual branch."""
        rng = np.random.default_rng([seed, 2])
        width, layers = self._config.width, self._config.layers
        shapes: dict[str, tuple[int, ...]] = {"tokens": (self.vocabulary, width)}
        shapes |= {"places": (self._config.max_length, width), "norm": (width,)}
        for layer in range(layers):
            shapes |= {f"{layer}.norm1": (width,), f"{layer}.mix": (width, 3 * width), f"{layer}.out": (width, width)}
            shapes |= {
                f"{layer}.norm2": (width,),
                f"{layer}.up": (width, 4 * width),
                f"{layer}.down": (4 * width, width),
            }
        scales = {"out": 0.02 / (2 * layers) ** 0.5, "down": 0.02 / (2 * layers) ** 0.5}
        return {
            name: np.ones(shape, np.float32)
            if len(shape) == 1
            else scales.get(name.split(".")[-1], 0.02) * rng.standard_normal(shape, dtype=np.float32)
            for name, shape in shapes.items()
        }

    def logits(self, weights: dict[str, torch.Tensor], ids: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        """Logits of the tokens that follow the `counted` positions, float32 `(M, V)`, row by row.

        Args:
            weights: As of `initial`.
            ids: int64 `(B, N)`, padded behind: what is behind a position has no part in its logits.
            counted: bool `(B, N)`, M of them.
        """
        from torch.nn import functional

        width, heads = self._config.width, self._config.heads
        rows, length = ids.shape

        def norm(x: torch.Tensor, name: str) -> Any:
            return functional.layer_norm(x, (width,), weights[name])

        x = functional.embedding(ids, weights["tokens"]) + weights["places"][:length]
        for layer in range(self._config.layers):
            mixed = (norm(x, f"{layer}.norm1") @ weights[f"{layer}.mix"]).view(rows, length, 3, heads, width // heads)
            query, key, value = mixed.permute(2, 0, 3, 1, 4)
            seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + seen.transpose(1, 2).reshape(rows, length, width) @ weights[f"{layer}.out"]
            inner = functional.gelu(norm(x, f"{layer}.norm2") @ weights[f"{layer}.up"])
            x = x + inner @ weights[f"{layer}.down"]
        return norm(x, "norm")[counted] @ weights["tokens"].T
