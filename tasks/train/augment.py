"""Changed copies of pictures and captions, so that a model learns what does not change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

TURNED = 0.7
"""Share of the pictures that are rotated."""
ANGLE = 0.26
"""Most radians."""
SHIFT = 0.15
"""Most of half a side; pictures shrink by up to exp(-1.3 SHIFT) and grow by up to exp(SHIFT) of their size."""
STRETCH = 0.1
"""Width to height changes by up to exp(2 STRETCH)."""
COLOUR, CONTRAST, BRIGHTNESS = 0.06, 0.2, 0.1
ERASED = 0.3
"""Share of the pictures that lose a rectangle."""
DROPPED, GROUPED, UNKNOWN = 0.2, 0.3, 0.05
"""Share of the captions that lose a word, or get their group's name; share of the tokens that are replaced."""
START_OF_TEXT = 49406


def vary(pixels: np.ndarray, turnable: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Pictures moved, turned, scaled, mirrored, recoloured and with holes: float32 `(n, 3, H, W)`, about 0 to 1.

    Args:
        pixels: uint8 `(n, H, W, 3)` on white.
        turnable: Which may be mirrored, bool `(n,)`.
        rng: Draws the same numbers whatever the pictures are.
    """
    import torch
    import torch.nn.functional as F

    count = len(pixels)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    grid = F.affine_grid(torch.from_numpy(_placements(turnable, rng)), list(images.shape), align_corners=False)
    # Zero lies outside of a picture: inverted, that is the white that emoji stand on.
    images = 1 - F.grid_sample(1 - images, grid, align_corners=False)
    mixing = np.eye(3) + COLOUR * rng.standard_normal((count, 3, 3))
    images = torch.einsum("ncd,ndhw->nchw", torch.from_numpy(mixing.astype(np.float32)), images)
    light = np.stack([np.exp(rng.uniform(-CONTRAST, CONTRAST, count)), rng.uniform(-BRIGHTNESS, BRIGHTNESS, count)])
    gain, offset = torch.from_numpy(light.astype(np.float32)).view(2, count, 1, 1, 1)
    return _with_holes(images * gain + offset, rng)


def _with_holes(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """The pictures, a grey rectangle over some of them."""
    count, _, height, width = images.shape
    sizes = rng.integers((height // 8, width // 8), (3 * height // 8, 3 * width // 8), (count, 2))
    corners = (rng.random((count, 2)) * ((height, width) - sizes)).astype(int)
    greys = rng.random(count)
    for row in np.flatnonzero(rng.random(count) < ERASED):
        (y, x), (h, w) = corners[row], sizes[row]
        images[row, :, y : y + h, x : x + w] = float(greys[row])
    return images


def _placements(turnable: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Maps from the place of a pixel in the new picture to that in the old one, float32 `(n, 2, 3)`."""
    count = len(turnable)
    angle = rng.uniform(-ANGLE, ANGLE, count) * (rng.random(count) < TURNED)
    zoom = np.exp(-rng.uniform(-1.3 * SHIFT, SHIFT, count))
    stretch = np.exp(rng.uniform(-STRETCH, STRETCH, count))
    mirror = np.where(turnable & (rng.random(count) < 0.5), -1, 1)
    shift = rng.uniform(-SHIFT, SHIFT, (count, 2))
    cos, sin = np.cos(angle) * zoom, np.sin(angle) * zoom
    rows = [[mirror * cos * stretch, -sin, shift[:, 0]], [mirror * sin, cos / stretch, shift[:, 1]]]
    return np.moveaxis(np.array(rows), -1, 0).astype(np.float32)


def reword(names: list[str], group: str, other_names: float, rng: np.random.Generator) -> str:
    """A caption: one of the names, perhaps short of a word, perhaps with the emoji's group before or after it.

    Args:
        names: The caption, then other names.
        group: The emoji's group, "food drink" for one.
        other_names: How often one of the others is taken.
        rng: Draws the same numbers whatever the names are.
    """
    other, which, drop, place, order = rng.random(5)
    name = names[1 + int(which * (len(names) - 1))] if len(names) > 1 and other < other_names else names[0]
    words = name.split()
    if len(words) > 2 and drop < DROPPED:
        del words[int(place * len(words))]
    name = " ".join(words)
    if order < GROUPED:
        return f"{group}: {name}" if order < 0.8 * GROUPED else f"{name}, {group}"
    return name


def unknown(tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Token ids `(n, L)` of which a few are any word's: what the model has never read shall not lead it astray."""
    first, last = 1, START_OF_TEXT  # 0 is padding; the two highest ids begin and end a text
    strange = rng.integers(first, last, tokens.shape)
    chosen = (rng.random(tokens.shape) < UNKNOWN) & (tokens >= first) & (tokens < last)
    return np.where(chosen, strange, tokens)
