"""An open_clip model at work: its way with pictures and texts, and its forward passes in threads of their own."""

from __future__ import annotations

import os
import re
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.methods.embed import OpenClip
from tasks.embed.checkpoint import load_model

if TYPE_CHECKING:
    import torch
    from PIL import Image

CHARACTERS_PER_TOKEN = 64
"""Longer texts are cut before they are tokenised: no token is longer."""
WORD_CHARACTERS_PER_TOKEN = 4
"""Words without a blank are cut sooner: one of 5,000 random letters takes a second, for the time is quadratic."""
REMEMBERED_WORDS = 1_000_000
THIN = 16
"""Long side over short side beyond which only the middle is resized: no more of it is ever seen."""
KEPT_ENCODERS = 2

_loading = threading.Lock()
_loaded: dict[tuple[Any, ...], Encoder] = {}


def load_encoder(config: OpenClip, device: str) -> Encoder:
    """The encoder that `config` describes; a process loads it once and then shares it among its threads.

    Raises:
        ValueError: If the model or its weights are unknown; names close matches.
    """
    key: tuple[Any, ...] = (device, config.model, config.pretrained, config.seed, config.image_size)
    key += (config.context_length, config.precision, config.cpu_threads)
    with _loading:
        encoder = _loaded.pop(key, None) or Encoder(config, device)
        _loaded[key] = encoder  # last used, last in the dict
        while len(_loaded) > KEPT_ENCODERS:
            del _loaded[next(iter(_loaded))]
        return encoder


class Encoder:
    """A model on its device.

    On a CPU several batches are in the model at once, each on one thread: faster than several threads on one batch,
    which wait for each other wherever cores are shared, and the bytes do not depend on how many cores there are.
    On CUDA one batch is in the model while the next is sent.

    Attributes:
        image_shape: `(height, width)` of the pixels the image tower takes.
        dim: Width D of both embeddings.
        logit_scale: What the model was trained to multiply cosines by.
        workers: Batches that `submit` works on at once.
    """

    def __init__(self, config: OpenClip, device: str) -> None:
        import torch

        self._model, transform, self._tokenizer = load_model(config, device)
        self._device = torch.device(device)
        self._dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
        # The transform ends in ToTensor and Normalize: those two run batched, on the device, with the same arithmetic.
        self._resize, self._normalise = transform.transforms[:-2], transform.transforms[-1]
        self._resize_mode = self._model.visual.preprocess_cfg["resize_mode"]
        self.logit_scale: float = self._model.logit_scale.float().exp().item()
        side = self._model.visual.image_size
        self.image_shape: tuple[int, int] = (side, side) if isinstance(side, int) else tuple(side)
        self._tokenizing, self._sending = threading.Lock(), threading.Lock()
        self.workers = 2 if device == "cuda" else config.cpu_threads or os.cpu_count() or 1
        self._pool = single_threads(self.workers)
        self.dim: int = self.submit(None, self.tokens([""])).result()["text"].shape[1]

    def pixel_buffer(self, count: int) -> torch.Tensor:
        """Black pictures, uint8 `(count, H, W, 3)`, in memory that the device copies from without waiting."""
        import torch

        return torch.zeros((count, *self.image_shape, 3), dtype=torch.uint8, pin_memory=self._device.type == "cuda")

    def pixels(self, picture: Image.Image) -> np.ndarray:
        """An RGB picture as the model's evaluation transform resizes and crops it: uint8 `(H, W, 3)`."""
        if max(picture.size) > THIN * min(picture.size):
            picture = self._thin(picture)
        for step in self._resize:
            picture = step(picture)
        return np.asarray(picture)

    def _thin(self, picture: Image.Image) -> Image.Image:
        """Of a very thin picture what the transform can work on: as it is, 1 x 2,000 pixels become 224 x 448,000."""
        long, short = max(picture.size), min(picture.size)
        side, wide = max(self.image_shape), picture.width > picture.height
        if self._resize_mode == "longest" and long > side * short:  # the short side would become nothing
            return picture.resize((side, 1) if wide else (1, side))
        if self._resize_mode != "shortest":
            return picture
        margin = (long - THIN * short) // 2
        left, top = (margin, 0) if wide else (0, margin)
        return picture.crop((left, top, picture.width - left, picture.height - top))

    def tokens(self, texts: list[str]) -> torch.Tensor:
        """Token ids of texts, truncated to the context: int64 `(n, L)`. Blank texts are the empty text."""
        texts = [_shortened(text, self._tokenizer.context_length) for text in texts]
        with self._tokenizing:  # fast Hugging Face tokenizers fail when two threads use one
            ids = self._tokenizer(texts)
            words = getattr(self._tokenizer, "cache", None)
            if words is not None and len(words) > REMEMBERED_WORDS:  # open_clip's own never forgets a word
                words.clear()
                words.update({token: token for token in ("<start_of_text>", "<end_of_text>")})
        return ids

    def submit(self, pixels: torch.Tensor | None, tokens: torch.Tensor | None) -> Future[dict[str, np.ndarray]]:
        """Unit float32 embeddings `(n, D)` to come, under `image` and `text`, whichever are given.

        Args:
            pixels: uint8 `(n, H, W, 3)`, a `pixel_buffer`.
            tokens: int64 `(n, L)`.
        """
        return self._pool.submit(self._forward, pixels, tokens)

    def _forward(self, pixels: torch.Tensor | None, tokens: torch.Tensor | None) -> dict[str, np.ndarray]:
        import torch

        if self._device.type == "cpu":
            return {name: tensor.numpy() for name, tensor in self._towers(pixels, tokens).items()}
        with self._sending:
            embeddings = self._towers(pixels, tokens)
            ready = torch.cuda.Event(blocking=True)
            ready.record()
        ready.synchronize()
        return {name: tensor.numpy() for name, tensor in embeddings.items()}

    def _towers(self, pixels: torch.Tensor | None, tokens: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Embeddings on their way to the CPU: on CUDA they are there once the stream has got this far."""
        import torch

        embeddings = {}
        with torch.inference_mode():
            if pixels is not None:
                batch = pixels.to(self._device, non_blocking=True).permute(0, 3, 1, 2).contiguous()
                batch = self._normalise(batch.to(torch.float32).div_(255)).to(self._dtype)
                embeddings["image"] = self._model.encode_image(batch)
            if tokens is not None:
                embeddings["text"] = self._model.encode_text(tokens.to(self._device, non_blocking=True))
            return {name: _unit(vectors).to("cpu", non_blocking=True) for name, vectors in embeddings.items()}


def _shortened(text: str, context_length: int) -> str:
    """As much of a text as its first tokens can come from."""
    word = WORD_CHARACTERS_PER_TOKEN * context_length
    if len(text) > word:
        text = re.sub(rf"(?<!\S)(\S{{{word}}})\S+", r"\1", text)
    limit = CHARACTERS_PER_TOKEN * context_length
    return text if len(text) <= limit else " ".join(text.split())[:limit]


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """Rows of length one in float32; a row of zeros becomes NaN, to be found out later."""
    vectors = vectors.float()
    return vectors / vectors.norm(dim=1, keepdim=True)


def single_threads(count: int) -> ThreadPoolExecutor:
    """Threads in each of which torch computes with one thread, all started."""
    import torch

    before = torch.get_num_threads()
    started = threading.Barrier(count)

    def start(_: int) -> None:
        torch.get_num_threads()  # a thread's first use of torch takes over the common setting, even after its own
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="forward")
    list(pool.map(start, range(count)))
    torch.set_num_threads(before)  # the setting is the thread's own, but also what threads to come begin with
    return pool
