"""The nearest classes of many vectors, exactly: one matrix product a block of rows, memory bounded by a block.

All blocks have one shape (the last is filled up with zeros) and on a CPU each is computed by one thread, so what comes
out for a row depends on the row and its place, never on the number of cores or on how rows arrive.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from tasks.embed.encoder import single_threads
from tasks.embed.stream import ahead

if TYPE_CHECKING:
    import torch

SCORES_BYTES = {"cpu": 32 << 20, "cuda": 1 << 30}
"""Most bytes of one block's scores: on a CPU what its caches hold, on a GPU what keeps it busy."""
MOST_ROWS = {"cpu": 1024, "cuda": 65_536}
FEWEST_GROUPED = 32
"""Scores in a group, at least: shorter runs are slower to reduce than to sort."""
SMALLEST_LOGIT = -80.0
"""Below the highest: further down nothing is left of exp in float32 but numbers that processors are slow with."""
LOW = 0xFFFFFFFF


class Nearest:
    """The `k` classes whose vectors have the highest dot products, equal ones in the order of the classes.

    With thresholds only classes whose confidence reaches their own are looked at, perhaps fewer than `k`.

    Attributes:
        k: Classes found for each row: the number asked for, or all there are.
        rows: Rows of a block: what `search` wants its vectors cut into.
    """

    def __init__(
        self,
        classes: np.ndarray,
        k: int,
        *,
        scale: float | None = None,
        thresholds: np.ndarray | None = None,
        device: str = "cpu",
        workers: int = 0,
    ) -> None:
        """Put the classes on the device.

        Args:
            classes: float32 `(V, D)`.
            k: Classes wanted.
            scale: If given, confidences are softmax(scale * dot product) over all classes, else the dot products.
            thresholds: float32 `(V,)`, no NaN; -inf lets a class pass always.
            device: `cpu` or `cuda`.
            workers: Blocks computed at once on a CPU, one thread each; 0: one per core.
        """
        import torch

        self.k = min(k, len(classes))
        self.rows = block_rows(len(classes), device)
        self._count, self._scale, self._device = len(classes), scale, device
        self._group = group_size(len(classes), self.k)
        padding = -len(classes) % self._group
        self._classes = torch.from_numpy(np.pad(classes, ((0, padding), (0, 0)))).to(device)
        self._thresholds = None
        if thresholds is not None:
            self._thresholds = torch.from_numpy(np.pad(thresholds, (0, padding))).to(device)
        self._workers = 2 if device == "cuda" else workers or os.cpu_count() or 1

    def search(self, vectors: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Classes int64 `(n, k)`, best first, and their confidences float32 `(n, k)`, block by block.

        Where fewer than `k` classes reach their thresholds, -1 and -inf stand behind them.

        Args:
            vectors: Blocks of float16 `(rows, D)`, the last perhaps shorter.
        """
        pool = _threads(self._workers)
        for coming in ahead((pool.submit(self._search, block) for block in vectors), self._workers):
            yield coming.result()

    def _search(self, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import torch

        full = np.zeros((self.rows, self._classes.shape[1]), "<f2")
        full[: len(block)] = block
        with torch.inference_mode():
            scores = torch.from_numpy(full).to(self._device).float() @ self._classes.T
            scores[:, self._count :] = -math.inf
            if self._thresholds is None:
                best, classes = top(scores, self.k, self._group)
                if self._scale is not None:
                    best = _softmax_at(best, scores, self._scale)
            else:
                best, classes = self._reaching(scores, self._thresholds)
            return classes[: len(block)].cpu().numpy(), best[: len(block)].cpu().numpy()

    def _reaching(self, scores: torch.Tensor, thresholds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Confidences and classes as `search` returns them, of scores that are overwritten."""
        confidences = scores
        if self._scale is not None:
            confidences = _exponentials(scores.clone(), scores.amax(1, keepdim=True), self._scale)
            confidences.div_(confidences.sum(1, keepdim=True))
        scores.masked_fill_(confidences < thresholds, -math.inf)
        best, classes = top(scores, self.k, self._group)
        nothing = best == -math.inf
        if self._scale is not None:
            best = confidences.gather(1, classes).masked_fill_(nothing, -math.inf)
        return best, classes.masked_fill_(nothing, -1)


def block_rows(classes: int, device: str) -> int:
    """Rows of a block, a power of two: it depends on the number of classes and the device class alone."""
    fitting = max(1, SCORES_BYTES[device] // (4 * classes))
    return min(MOST_ROWS[device], 1 << fitting.bit_length() - 1)


def group_size(classes: int, k: int) -> int:
    """Scores in a group, such that groups and scores in `k` groups are about as many; 1: grouping does not pay."""
    size = max(FEWEST_GROUPED, 1 << round(math.log2(classes / k) / 2))
    return size if classes >= 2 * k * size else 1


def top(scores: torch.Tensor, k: int, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `k` highest scores of each row, float32 `(n, k)`, and their positions int64; of equals the first.

    A score among the `k` highest is in one of the `k` groups with the highest maxima (of equal ones the first):
    otherwise each of these would hold one that goes before it. Only those groups are sorted.

    Args:
        scores: float32 `(n, V)`, V a multiple of `group`, no NaN.
        k: At most V, and V / group.
        group: Neighbouring scores looked at together; 1: none.
    """
    if group == 1:
        found = first_highest(scores, k)
        return scores.gather(1, found), found
    groups = scores.view(len(scores), -1, group)
    chosen = first_highest(groups.amax(2), k).sort(1).values  # ascending: positions among them keep their order
    candidates = groups.gather(1, chosen[:, :, None].expand(-1, -1, group)).view(len(scores), -1)
    found = first_highest(candidates, k)
    return candidates.gather(1, found), chosen.gather(1, found // group) * group + found % group


def first_highest(values: torch.Tensor, k: int) -> torch.Tensor:
    """Positions int64 `(n, k)` of the `k` highest values of each row, best first, of equals the first.

    torch.topk leaves open which of equal values it takes. Here none are: the upper half of an integer key is the value,
    in an order that integers have too, the lower half falls with the position.
    """
    import torch

    bits = (values + 0.0).view(torch.int32)  # -0.0 equals 0.0, so it becomes it
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    position = torch.arange(LOW, LOW - values.shape[1], -1, device=values.device)
    return LOW - (torch.topk((ordered.long() << 32) | position, k, dim=1).values & LOW)


def _softmax_at(best: torch.Tensor, scores: torch.Tensor, scale: float) -> torch.Tensor:
    """Softmax over each row of `scores`, which is overwritten, at its highest ones."""
    total = _exponentials(scores, best[:, :1], scale).sum(1, keepdim=True)
    return ((best - best[:, :1]) * scale).exp_() / total


def _exponentials(scores: torch.Tensor, highest: torch.Tensor, scale: float) -> torch.Tensor:
    """exp of the logits, less the highest of their row, in the place of `scores`."""
    return scores.sub_(highest).mul_(scale).clamp_(min=SMALLEST_LOGIT).exp_()


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """Threads in each of which torch computes with one thread, shared by the tasks of a process."""
    return single_threads(count)
