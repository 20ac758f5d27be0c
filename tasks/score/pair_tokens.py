"""Logits of image-text pairs, our adaptation of a language model's: patch tokens by the texts of a vocabulary.

A picture's matrix has a row a patch and a column a name: cosine of the projected patch token and of the name in its
sentence, times the logit scale, in the units of the model's own logits. A bias that a model adds to all of them is left
out: it says nothing of the picture, and would weigh in a nuclear norm. The caption does not enter.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from configs.errors import ConfigError
from configs.methods.annotate import ZeroShot
from configs.methods.embed import OpenClip
from configs.methods.logits import PairTokens
from tasks import Failure
from tasks.annotate import vocabularies
from tasks.annotate.zero_shot import ZeroShotAnnotator
from tasks.embed.batch import Batch
from tasks.embed.checkpoint import check_names, weights_digest
from tasks.embed.device import Device, resolve_device
from tasks.embed.encoder import Encoder, load_encoder
from tasks.embed.images.formats import optional_readers
from tasks.embed.open_clip import LOOK_AHEAD, resolved_batch_size
from tasks.embed.stream import ahead, fixed_batches, read_ahead
from tasks.score.blockwise import worker_threads
from tasks.score.logits import Block
from tasks.score.patches import check_tower, patch_tokens

if TYPE_CHECKING:
    import torch

BLOCK_BYTES = 32 << 20
"""Of a block's logits, unless a single row has more. There may be as many blocks at once as there are cores."""

_embedding = threading.Lock()


class PairTokenLogits:
    """Logits of pictures: patches by names. All positions are `there`, and all are of the `responses`.

    Pictures go through the model in the batches that they are embedded in, rows `[k * B, (k + 1) * B)` of the shard,
    always at full size; a row's bytes depend on the row and its place in the shard, never on its neighbours.
    """

    needs: tuple[str, ...] = ("image",)
    input_columns: tuple[str, ...] = ()

    def __init__(self, config: PairTokens) -> None:
        self.config = config

    @property
    def libraries(self) -> tuple[str, ...]:
        """What makes the numbers; the reader of HEIC pictures only where it is installed."""
        return ("torch", "open_clip_torch", "timm", "pillow", "torchvision", *optional_readers())

    @property
    def device(self) -> Device:
        """The device class it computes on."""
        return resolve_device(self._model.device)

    def check(self) -> None:
        """Raise a MixwrightError if device, model, tower or vocabulary is wrong; no weights are loaded."""
        resolve_device(self._model.device)
        check_names(self._model)
        check_tower(self._model)
        with _named():
            vocabularies.check(self.config.vocabulary)

    def depends_on(self) -> dict[str, Any]:
        """What the numbers depend on besides the configuration; the vocabulary by its content."""
        with _named():
            identity = vocabularies.identity(self.config.vocabulary)
        return {
            "device": self.device,
            "batch_size": resolved_batch_size(self._model, self.device),
            "weights": weights_digest(self._model),
            "vocabulary": identity,
        }

    def shape(self) -> tuple[int, int]:
        """`(T, V)`: patches of a picture, and names. Loads the model and embeds the names."""
        return self._patches, len(self._texts)

    def blocks(
        self, rows: pa.Table | Iterator[pa.Table], failures: list[Failure], *, hidden: bool = False
    ) -> Iterator[Block]:
        """Logits float32 `(B, T, V)` of all rows with a picture; one that cannot be decoded is added to `failures`.

        Args:
            rows: `image: binary`, whole or as slices.
            failures: Gets the rows that fail, those of a batch once the batch is there.
            hidden: There is no last layer to hand out; it must be False.
        """
        if hidden:
            raise ValueError("`hidden` is True; it must be False, since pair_tokens has no layer behind its logits")
        encoder, config = self._encoder, self._model
        texts, size = self._texts, resolved_batch_size(config, self.device)
        slices = iter([rows]) if isinstance(rows, pa.Table) else rows
        with ThreadPoolExecutor(config.decode_threads or os.cpu_count()) as pool:
            batches = (
                Batch(first, table.select(self.needs), size, encoder, config.max_pixels).start(pool)
                for first, table in read_ahead(fixed_batches(slices, size))
            )
            computing = ((batch, encoder.patches(batch.inputs()[0])) for batch in ahead(batches, LOOK_AHEAD))
            for batch, tokens in ahead(computing, encoder.workers):
                yield from self._blocks(batch, tokens.result(), texts)
                failures += [Failure(batch.first + row, *batch.failed[row]) for row in sorted(batch.failed)]

    def _blocks(self, batch: Batch, tokens: torch.Tensor, texts: torch.Tensor) -> Iterator[Block]:
        """The rows of a batch; those whose logits are not finite fail here."""
        import torch

        step = max(1, BLOCK_BYTES // (4 * tokens.shape[1] * len(texts)))
        for start in range(0, len(batch.valid), step):
            logits = self._encoder.logits(tokens[start : start + step], texts)
            valid = batch.valid[start : start + step]
            finite = logits.isfinite().flatten(1).all(dim=1).cpu().numpy()[: len(valid)]
            for row in (start + np.flatnonzero(valid & ~finite)).tolist():
                batch.failed[row] = ("non_finite_logits", "the logits of its patches have NaN or infinity")
            kept = np.flatnonzero(valid & finite)
            if len(kept) == 0:
                continue
            if len(kept) < len(logits):
                logits = logits[torch.from_numpy(kept).to(logits.device)]
            there = torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)
            yield Block(batch.first + start + kept, logits, there, there, None, None)
            del logits, there

    @cached_property
    def _encoder(self) -> PatchEncoder:
        return PatchEncoder(load_encoder(self._model, self.device), self._model.model)

    @cached_property
    def _texts(self) -> torch.Tensor:
        """Texts of the vocabulary times the logit scale, on the model's device: float32 `(V, D)`."""
        with _named():
            text = vocabularies.read_text(self.config.vocabulary)
        with _embedding:
            return _embedded(load_encoder(self._model, self.device), self._model, self.config.template, text)

    @cached_property
    def _patches(self) -> int:
        return self._encoder.patches(self._encoder.pixel_buffer(1)).result().shape[1]

    @property
    def _model(self) -> OpenClip:
        if self.config.encoder is None:
            raise ValueError("`encoder` is null; name the model whose patch tokens make the logits")
        return self.config.encoder


class PatchEncoder(Encoder):
    """A loaded encoder, put to another use: its model, its device and its threads, for patch tokens."""

    def __init__(self, encoder: Encoder, name: str) -> None:
        self.__dict__.update(vars(encoder))  # shared: the model is in memory once
        self._name = name

    def patches(self, pixels: torch.Tensor | None) -> Future[torch.Tensor]:
        """Unit tokens of the patches to come, float32 `(n, T, D)`, on the model's device; zero tokens stay zero.

        Args:
            pixels: uint8 `(n, H, W, 3)`, a `pixel_buffer`.
        """
        return self._pool.submit(self._project, pixels)

    def logits(self, tokens: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """float32 `(n, T, V)`; on a CPU computed by one thread, so that bytes do not depend on how many there are."""

        def product() -> torch.Tensor:
            import torch

            with torch.no_grad():  # inference mode would make tensors that nobody may change
                return tokens @ texts.T

        return product() if self._device.type == "cuda" else worker_threads(1).submit(product).result()

    def _project(self, pixels: torch.Tensor | None) -> torch.Tensor:
        import torch

        if pixels is None:
            raise ValueError("`pixels` is None; the batch must have an image column")

        with self._sending if self._device.type == "cuda" else nullcontext(), torch.inference_mode():
            batch = pixels.to(self._device, non_blocking=True).permute(0, 3, 1, 2).contiguous()
            batch = self._normalise(batch.to(torch.float32).div_(255)).to(self._dtype)
            tokens = patch_tokens(self._model.visual, batch, self._name)
            return torch.nn.functional.normalize(tokens.float(), dim=-1)


@lru_cache(maxsize=2)
def _embedded(encoder: Encoder, model: OpenClip, template: str, text: str) -> torch.Tensor:
    """Names of the vocabulary `text`, each once, in a sentence, times the logit scale; a process makes them once."""
    import torch

    section = ZeroShot(templates=[template], encoder=model)
    annotator = ZeroShotAnnotator(section, ZeroShotAnnotator(section).from_text(text))
    state = annotator.join(annotator.build(part) for part in range(annotator.parts()))
    return torch.from_numpy(state["classes"] * np.float32(encoder.logit_scale)).to(annotator.device)


@contextmanager
def _named() -> Iterator[None]:
    """Within the block, errors name the vocabulary of this section, not the annotator's."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(str(error).replace("`annotate.vocabulary`", "`logits.vocabulary`")) from error
