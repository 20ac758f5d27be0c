"""Two-tower embeddings with an open_clip model (Cherti et al., arXiv 2212.07143): decoding runs ahead of the model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from configs.methods.embed import OpenClip
from tasks import Failure, Result
from tasks.embed import vectors
from tasks.embed.batch import Batch
from tasks.embed.checkpoint import POCKET, check_names, weights_digest
from tasks.embed.device import resolve_device
from tasks.embed.encoder import load_encoder
from tasks.embed.images.formats import optional_readers
from tasks.embed.stream import ahead, fixed_batches, read_ahead

LOOK_AHEAD = 2
"""Batches that are being decoded while one is in the model."""


def resolved_batch_size(config: OpenClip, device: str) -> int:
    """Rows per forward pass: the configured number, or the default of the device class."""
    return config.batch_size or {"cpu": 64, "cuda": 512}[device]


class OpenClipEmbedder:
    """Image and text embeddings, their cosine (at float32, before rounding), and the size of the upright picture.

    Batches are rows `[k * B, (k + 1) * B)` of the shard and always computed at full size, so a row's bytes depend on
    the row and its place in the shard, never on its neighbours.
    """

    def __init__(self, config: OpenClip, columns: tuple[str, ...] = ("image", "text")) -> None:
        if not columns or not set(columns) <= {"image", "text"}:
            raise ValueError(f"`columns` is {columns}; it must name image, text or both")
        self.config = config
        self.needs = tuple(name for name in ("image", "text") if name in columns)
        self.provides = tuple(f"{name}_embedding" for name in self.needs)
        self.provides += ("alignment",) if len(self.needs) == 2 else ()
        self.provides += ("width", "height") if "image" in self.needs else ()

    @property
    def libraries(self) -> tuple[str, ...]:
        """What makes the numbers; the reader of HEIC pictures only where it is installed."""
        return ("torch", "open_clip_torch", "pillow", "torchvision", *optional_readers())

    @property
    def notes(self) -> list[str]:
        """What the reader of a report must know of these embeddings."""
        if self.config.model == POCKET:
            return [
                "The pocket model made the embeddings: it knows emoji and their names, little else. It was trained on "
                "the demo's own pictures, all but a tenth: there, alignments and concepts are better than they would "
                "be elsewhere."
            ]
        if self.config.pretrained or self.config.model.startswith(("hf-hub:", "local-dir:")):
            return []
        return [
            f"{self.config.model} has random weights (seed {self.config.seed}): embeddings tell alike pictures from "
            "unlike ones, roughly; alignment of image and text means nothing. Name `embed.pretrained` for real ones."
        ]

    def check(self) -> None:
        """Raise ValueError if the device or the model's name is wrong; nothing is loaded or fetched."""
        resolve_device(self.config.device)
        check_names(self.config)

    def depends_on(self) -> dict[str, Any]:
        """What the bytes depend on besides the configuration."""
        device = resolve_device(self.config.device)
        size = resolved_batch_size(self.config, device)
        return {"device": device, "batch_size": size, "weights": weights_digest(self.config)}

    def run(self, rows: pa.Table | Iterator[pa.Table]) -> Result:
        """Embed one shard; a row with an image but no text, or the reverse, fails where both are needed."""
        device = resolve_device(self.config.device)
        encoder = load_encoder(self.config, device)
        size = resolved_batch_size(self.config, device)
        slices = iter([rows]) if isinstance(rows, pa.Table) else rows
        tables = [self._schema(encoder.dim).empty_table()]
        failures: list[Failure] = []
        with ThreadPoolExecutor(self.config.decode_threads or os.cpu_count()) as pool:
            batches = (
                Batch(first, table.select(self.needs), size, encoder, self.config.max_pixels).start(pool)
                for first, table in read_ahead(fixed_batches(slices, size))
            )
            computing = ((batch, encoder.submit(*batch.inputs())) for batch in ahead(batches, LOOK_AHEAD))
            for batch, embeddings in ahead(computing, encoder.workers):
                tables.append(self._table(batch, embeddings.result()))
                failures += [Failure(batch.first + row, *batch.failed[row]) for row in sorted(batch.failed)]
        return Result(pa.concat_tables(tables).combine_chunks(), failures)

    def _table(self, batch: Batch, embeddings: dict[str, np.ndarray]) -> pa.Table:
        """The rows of a batch; those whose embedding is not finite fail here."""
        embeddings = {name: array[: len(batch.valid)] for name, array in embeddings.items()}
        for name, array in embeddings.items():
            for row in np.flatnonzero(batch.valid & ~np.isfinite(array).all(axis=1)).tolist():
                batch.failed[row] = ("non_finite_embedding", f"the {name} embedding has NaN or infinity")
                batch.valid[row] = False
        columns = {f"{name}_embedding": vectors.pack(array, batch.valid) for name, array in embeddings.items()}
        if "alignment" in self.provides:
            cosine = np.einsum("nd,nd->n", embeddings["image"], embeddings["text"])
            columns["alignment"] = pa.array(cosine, mask=~batch.valid)
        if "width" in self.provides:
            columns["width"] = pa.array(batch.sizes[:, 0], mask=~batch.valid)
            columns["height"] = pa.array(batch.sizes[:, 1], mask=~batch.valid)
        return pa.table(columns, schema=self._schema(embeddings[self.needs[0]].shape[1]))

    def _schema(self, dim: int) -> pa.Schema:
        scalars = {"alignment": pa.float32(), "width": pa.int32(), "height": pa.int32()}
        return pa.schema(
            [pa.field(name, scalars[name]) if name in scalars else vectors.field(name, dim) for name in self.provides]
        )
