"""On a CUDA device: the same embeddings as on the CPU, up to arithmetic. Run with `pytest -m gpu`."""

import numpy as np
import pyarrow as pa
import pytest
from corpora import png

from configs.methods.embed import OpenClip
from tasks.embed.open_clip import OpenClipEmbedder
from tasks.embed.vectors import unpack


def embed(device: str, precision: str) -> pa.Table:
    config = OpenClip(
        model="ViT-S-32-alt", image_size=64, context_length=16, device=device, precision=precision, batch_size=16
    )
    rows = pa.table({"image": [png(i) for i in range(50)], "text": [f"picture number {i}" for i in range(50)]})
    result = OpenClipEmbedder(config).run(iter([rows.slice(0, 30), rows.slice(30)]))
    assert not result.failures
    return result.table


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_cuda_agrees_with_the_cpu(precision):
    here, there = embed("cpu", "fp32"), embed("cuda", precision)
    for column in ("image_embedding", "text_embedding"):
        cosine = np.einsum(
            "nd,nd->n", unpack(here[column]).astype(np.float32), unpack(there[column]).astype(np.float32)
        )
        assert cosine.min() > 0.99
    assert embed("cuda", precision).equals(there)
