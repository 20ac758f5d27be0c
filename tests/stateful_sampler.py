"""A sampler whose picks depend on all earlier ones: what the seam for sequential samplers must carry."""

from __future__ import annotations

import numpy as np


class Stateful:
    """Takes a window of the superbatch that moves on with every row it has ever seen."""

    needs = ("text",)
    independent = False

    def __init__(self, config, *, seed):
        self._size, self._seen = config.batch_size, 0

    def pick(self, superbatch, step):
        assert superbatch["text"].null_count == 0
        start = self._seen % (superbatch.num_rows - self._size + 1)
        self._seen += sum(len(text) for text in superbatch["text"].to_pylist())
        return [np.arange(start, start + self._size)]

    def state_dict(self):
        return {"seen": np.int64(self._seen)}

    def load_state_dict(self, state):
        self._seen = int(state["seen"])
