"""A causal language model of `transformers` as proxy: trained on from its own weights. See `proxy_language`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.methods.logits import CausalLm
from tasks.score.causal_loading import LanguageModel, check_positions, weights_digest

if TYPE_CHECKING:
    import torch

_loading = threading.Lock()
_given: dict[tuple[Any, ...], GivenModel] = {}


def given_model(config: CausalLm, device: str) -> GivenModel:
    """The model that `config` names; a process loads it once and shares it, and keeps the last one only.

    Raises:
        ModelError: It cannot be found or loaded.
        ConfigError: Its vocabulary or positions do not fit.
    """
    key = (device, config.model, config.revision, weights_digest(config.model))
    with _loading:
        if key not in _given:
            _given.clear()
            _given[key] = GivenModel(config, device)
        found = _given[key]
    check_positions(config, found.positions)
    return found


class GivenModel:
    """A model of `transformers`, its weights to begin with and its tokenizer; without dropout, so without chance."""

    threads = False  # its weights are swapped in place

    def __init__(self, config: CausalLm, device: str) -> None:
        self._device, self._swapping = device, threading.Lock()
        self._given = LanguageModel(config, device)
        self.vocabulary, self.begin, self.end = self._given.vocabulary, self._given.begin, self._given.end
        self.positions = self._given.positions

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids, without those at the ends."""
        if not any(texts):
            return [[] for _ in texts]
        with self._given.tokenizing:
            return list(self._given.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])

    def initial(self, seed: int) -> dict[str, np.ndarray]:
        """The model's own weights, float32."""
        return {name: value.detach().cpu().numpy() for name, value in self._given.model.named_parameters()}

    def logits(self, weights: dict[str, torch.Tensor], ids: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        """As `SmallLm.logits`."""
        from torch.func import functional_call

        with self._swapping:
            found = functional_call(self._given.model, weights, kwargs={"input_ids": ids, "use_cache": False})
        return found.logits[counted]
