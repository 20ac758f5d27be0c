"""Concepts of pictures by zero-shot classification (Radford et al., CLIP, arXiv 2103.00020): names as a text tower
sees them, in sentences, against the cached image embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from configs.errors import ModelError, StageError
from configs.methods.annotate import ZeroShot
from configs.methods.embed import OpenClip
from tasks import Result
from tasks.annotate.entries import decode_vocabulary, given_state
from tasks.annotate.nearest import Nearest
from tasks.annotate.sidecar import SCHEMA, sidecar
from tasks.annotate.thresholds import as_mapping, check_known, per_concept
from tasks.embed.checkpoint import SCHEMES, check_names, located, weights_digest
from tasks.embed.device import Device, resolve_device
from tasks.embed.encoder import load_encoder
from tasks.embed.open_clip import resolved_batch_size
from tasks.embed.stream import ahead
from tasks.embed.vectors import unpack

PART_TEXTS = 8192
"""Sentences embedded for one part of the state, about: what a crash may cost."""
PIECE_BYTES = 4 << 20


def sentences(choice: str | Sequence[str]) -> list[str]:
    """The templates that `choice` names, each with one `{}`: `simple` and `openai` are open_clip's, or a user's own."""
    if not isinstance(choice, str):
        return list(choice)
    import open_clip

    shipped = {"simple": open_clip.SIMPLE_IMAGENET_TEMPLATES, "openai": open_clip.OPENAI_IMAGENET_TEMPLATES}
    return [template("{}") for template in shipped[choice]]


def mean_directions(vectors: np.ndarray) -> np.ndarray:
    """The mean of each concept's unit vectors, made a unit vector again: float32 `(V, D)`.

    Args:
        vectors: float32 `(V, T, D)`, the T sentences of each concept.
    """
    means = vectors.mean(axis=1, dtype=np.float64)
    return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)


def _in_pieces(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Many small tables as fewer, of one chunk each: small buffers that live long keep much memory from its return."""
    held: list[pa.Table] = []
    size = 0
    for table in tables:
        held.append(table)
        size += table.nbytes
        if size >= PIECE_BYTES:
            yield pa.concat_tables(held).combine_chunks()
            held, size = [], 0
    if held:
        yield pa.concat_tables(held).combine_chunks()


class ZeroShotAnnotator:
    """The concepts whose class embeddings are nearest to the image embedding, best first, with their confidences.

    A confidence is the cosine, or its softmax over the whole vocabulary. Of the concepts whose confidence reaches their
    threshold a row gets the `top_k` best (equal cosines: the earlier in the vocabulary). A row without an embedding
    stays null.

    The class embeddings come as `state`; they are computed by `build` and `join` from the state that `from_text` gives.
    """

    libraries = ("torch", "open_clip_torch")
    needs = ("image_embedding",)
    provides = tuple(SCHEMA.names)

    def __init__(self, config: ZeroShot, state: dict[str, np.ndarray] | None = None) -> None:
        self.config, self._state = config, state or {}
        self._names = decode_vocabulary(self._state["vocabulary"]) if state else []

    @property
    def device(self) -> Device:
        """The device class it computes on."""
        return resolve_device(self._tower.device)

    @property
    def notes(self) -> list[str]:
        """What the reader of a report must know of these concepts."""
        if self._tower.pretrained or located(self._tower).model.startswith(SCHEMES):
            return []
        return [f"{self._tower.model} has random weights: the concepts that `zero_shot` finds mean nothing."]

    def check(self) -> None:
        """Raise ValueError if the device, the model's name or a threshold's concept is wrong; no model is loaded."""
        resolve_device(self._tower.device)
        check_names(self._tower)
        if self._thresholds:
            check_known(self._thresholds, self.config)

    def depends_on(self) -> dict[str, Any]:
        """What the class embeddings depend on besides the vocabulary, and the device of all that follows."""
        of_pictures = ("device", "max_pixels")
        return {
            "templates": self.config.templates,
            "tower": {name: value for name, value in self._tower.output_fields().items() if name not in of_pictures},
            "weights": weights_digest(self._tower),
            "batch_size": resolved_batch_size(self._tower, self.device),
            "device": self.device,
        }

    # ---- class embeddings
    def from_text(self, text: str) -> dict[str, np.ndarray]:
        """The vocabulary of a file: what `parts` and `build` work on."""
        return given_state(text, self.config.cleaning)

    def accept(self, schema: pa.Schema) -> None:
        """Raise StageError if image embeddings of this type cannot be compared with the text tower's; loads it."""
        self._same_width(schema.field("image_embedding").type, load_encoder(self._tower, self.device).dim)

    def parts(self) -> int:
        """How many parts the class embeddings are computed in."""
        return -(-len(self._names) // self._part_names)

    def build(self, part: int) -> dict[str, np.ndarray]:
        """Class embeddings of one part of the vocabulary, float32 `(names, D)`, and the model's logit scale.

        Raises:
            ModelError: A concept has no direction: its sentences' embeddings are not finite, or cancel out.
        """
        names = self._names[part * self._part_names : (part + 1) * self._part_names]
        templates = sentences(self.config.templates)
        encoder = load_encoder(self._tower, self.device)
        vectors = self._embed([template.replace("{}", name) for name in names for template in templates])
        classes = mean_directions(vectors.reshape(len(names), len(templates), -1))
        broken = np.flatnonzero(~np.isfinite(classes).all(axis=1))
        if len(broken):
            raise ModelError(f"the embedding of {names[broken[0]]!r} is not finite: {self._tower.model} is broken")
        return {"classes": classes, "logit_scale": np.array(encoder.logit_scale)}

    def join(self, parts: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The state, of all parts in order."""
        found = list(parts)
        classes = np.concatenate([part["classes"] for part in found])
        return {**self._state, "classes": classes, "logit_scale": found[0]["logit_scale"]}

    def _embed(self, texts: list[str]) -> np.ndarray:
        """Unit float32 `(n, D)`, in batches that are always full, as the embedder's are."""
        encoder = load_encoder(self._tower, self.device)
        size = resolved_batch_size(self._tower, self.device)
        padded = texts + [""] * (-len(texts) % size)
        batches = (encoder.tokens(padded[first : first + size]) for first in range(0, len(padded), size))
        coming = (encoder.submit(None, tokens) for tokens in batches)
        return np.concatenate([batch.result()["text"] for batch in ahead(coming, encoder.workers)])[: len(texts)]

    # ---- rows
    def run(self, rows: pa.Table) -> Result:
        """Annotate one shard; no row fails.

        Raises:
            StageError: The embeddings are not as wide as the class embeddings.
        """
        self._same_width(rows["image_embedding"].type, self._state["classes"].shape[1])
        return Result(pa.concat_tables([SCHEMA.empty_table(), *_in_pieces(self._tables(rows["image_embedding"]))]), [])

    def _tables(self, column: pa.ChunkedArray) -> Iterator[pa.Table]:
        """The sidecar block by block."""
        names, size, first = pa.array(self._names, pa.string()), self._nearest.rows, 0
        blocks = (unpack(column.slice(start, size)) for start in range(0, len(column), size))
        for classes, confidences in self._nearest.search(blocks):
            missing = column.slice(first, len(classes)).is_null().to_numpy()
            first += len(classes)
            found = ~missing[:, None] & (confidences > -np.inf)
            if self.config.threshold is not None and not self._thresholds:  # else each has its own
                found &= confidences >= self.config.threshold
            concepts = names.take(pa.array(classes[found]))
            yield sidecar(concepts, found.sum(axis=1), missing, pa.array(confidences[found]))

    @cached_property
    def _nearest(self) -> Nearest:
        scale = None
        if self.config.confidence == "softmax":
            scale = self.config.logit_scale or float(self._state["logit_scale"])
        own = self._thresholds
        return Nearest(
            self._state["classes"],
            self.config.top_k,
            scale=scale,
            thresholds=per_concept(own, self._names, self.config.threshold) if own else None,
            device=self.device,
            workers=self._tower.cpu_threads,
        )

    @cached_property
    def _thresholds(self) -> dict[str, float]:
        return as_mapping(self.config.thresholds)

    @property
    def _tower(self) -> OpenClip:
        if self.config.encoder is None:
            raise ValueError("`encoder` is null; name the model whose text tower embeds the concepts")
        return self.config.encoder

    @property
    def _part_names(self) -> int:
        return max(1, PART_TEXTS // len(sentences(self.config.templates)))

    def _same_width(self, kind: pa.DataType, width: int) -> None:
        if kind.byte_width != 2 * width:
            raise StageError(
                f"image embeddings have {kind.byte_width // 2} dimensions, texts of {self._tower.model} have {width}; "
                "name in `annotate.encoder` the model that made the image embeddings"
            )
