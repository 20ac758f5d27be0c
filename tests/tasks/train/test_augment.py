"""Changed copies: seeded, in shape, and no change where it would lie."""

import numpy as np
import pytest
import torch

from tasks.train import augment
from tasks.train.augment import START_OF_TEXT, reword, unknown, vary
from tasks.train.pairs import is_turnable


@pytest.fixture
def pixels():
    """An arrow to the right: black below a red half, on white."""
    picture = np.full((32, 32, 3), 255, np.uint8)
    picture[12:20, 6:16] = 0
    picture[12:20, 16:26] = (255, 0, 0)
    return np.repeat(picture[None], 200, 0)


def rng():
    return np.random.default_rng(3)


def test_same_numbers_same_pictures(pixels):
    first, second = (vary(pixels, np.ones(200, bool), rng()) for _ in range(2))
    assert first.shape == (200, 3, 32, 32) and first.dtype == torch.float32
    assert torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert -0.5 < first.min() and first.max() < 1.8 and torch.isfinite(first).all()


def test_a_picture_does_not_change_its_neighbours(pixels):
    other = pixels.copy()
    other[7] = 0
    first, second = vary(pixels, np.ones(200, bool), rng()), vary(other, np.ones(200, bool), rng())
    same = (first == second).flatten(1).all(1)
    assert same.sum() == 199 and not same[7]


def red_side(images):
    """Of each picture, whether the red half is right of the black one."""
    darkness, redness = 1 - images.mean(1), (images[:, 0] - images[:, 1]).clamp(min=0)
    columns = torch.arange(images.shape[3])
    middle = [(weight.sum(1) * columns).sum(1) / weight.sum((1, 2)) for weight in (redness, darkness)]
    return middle[0] > middle[1]


def test_only_what_may_be_mirrored_is(pixels, monkeypatch):
    for name in ("COLOUR", "CONTRAST", "BRIGHTNESS", "ERASED"):
        monkeypatch.setattr(augment, name, 0.0)
    assert red_side(vary(pixels, np.zeros(200, bool), rng())).all()
    assert 60 < int(red_side(vary(pixels, np.ones(200, bool), rng())).sum()) < 140


def test_what_comes_in_from_outside_is_white(monkeypatch):
    for name in ("COLOUR", "CONTRAST", "BRIGHTNESS", "ERASED"):
        monkeypatch.setattr(augment, name, 0.0)
    white = np.full((50, 16, 16, 3), 255, np.uint8)
    assert torch.allclose(vary(white, np.ones(50, bool), rng()), torch.ones(50, 3, 16, 16), atol=1e-5)


@pytest.mark.parametrize(
    ("caption", "source", "may"),
    [
        ("otter", "animals-nature", True),
        ("person running: light skin tone", "people-body", True),
        ("person running facing right", "people-body", False),
        ("backhand index pointing left", "people-body", False),
        ("two-thirty", "travel-places", False),
        ("flag: Ireland", "flags", False),
        ("Japanese bargain button", "symbols", False),
    ],
)
def test_what_may_be_mirrored(caption, source, may):
    assert is_turnable(caption, source) is may


def test_captions():
    draws = [reword(["a b c", "other"], "food drink", 0.5, np.random.default_rng(i)) for i in range(2000)]
    names = {name.replace("food drink: ", "").replace(", food drink", "") for name in draws}
    assert names == {"a b c", "b c", "a c", "a b", "other"}
    assert 0.42 < np.mean(["other" in name for name in draws]) < 0.58
    assert 0.25 < np.mean(["food" in name for name in draws]) < 0.35
    alone = {reword(["otter"], "animals", 1.0, np.random.default_rng(i)) for i in range(300)}
    assert alone == {"otter", "animals: otter", "otter, animals"}


def test_unknown_words_leave_the_frame_alone():
    tokens = np.tile(np.array([START_OF_TEXT, 320, 321, 322, START_OF_TEXT + 1, 0, 0]), (3000, 1))
    changed = unknown(tokens, rng())
    assert np.array_equal(changed[:, [0, 4, 5, 6]], tokens[:, [0, 4, 5, 6]])
    share = (changed != tokens)[:, 1:4].mean()
    assert 0.04 < share < 0.06 and changed.min() >= 0 and changed.max() == START_OF_TEXT + 1
