"""Recall at k: does a picture find its caption among all captions, a caption its picture?"""

from __future__ import annotations

import numpy as np


def recall(image: np.ndarray, text: np.ndarray, ks: tuple[int, ...] = (1, 5)) -> dict[str, float]:
    """Share of rows whose partner is among the k most alike, under `image_to_text@1` and so on.

    Of several that are equally alike the partner counts as the last: a model that says the same of all finds nothing.

    Args:
        image: Unit rows, float `(n, D)`.
        text: Unit rows, float `(n, D)`; row i belongs to row i of `image`.
        ks: Numbers of guesses.
    """
    cosine = image.astype(np.float32) @ text.astype(np.float32).T
    found = {}
    for name, table in (("image_to_text", cosine), ("text_to_image", cosine.T)):
        better = (table >= np.diagonal(table)[:, None]).sum(axis=1) - 1
        found.update({f"{name}@{k}": float((better < k).mean()) for k in ks})
    return found
