"""Recall, by hand and by sorting."""

import numpy as np

from tasks.train.recall import recall


def unit(shape, seed):
    rows = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_by_hand():
    image = np.eye(3, dtype=np.float32)
    text = image[[1, 0, 2]]  # the first two are swapped
    found = recall(image, text, (1, 2, 3))  # the partner of the first is as far as the third: it counts as the last
    np.testing.assert_allclose([found[f"image_to_text@{k}"] for k in (1, 2, 3)], [1 / 3, 1 / 3, 1])
    np.testing.assert_allclose([found[f"text_to_image@{k}"] for k in (1, 2, 3)], [1 / 3, 1 / 3, 1])


def test_as_sorting_finds_it():
    image, text = unit((80, 8), 0), unit((80, 8), 1) + unit((80, 8), 0)
    cosine = image @ text.T
    for k in (1, 5, 17):
        found = recall(image, text, (k,))
        best = np.argsort(-cosine, axis=1)[:, :k]
        assert np.isclose(found[f"image_to_text@{k}"], np.mean([i in row for i, row in enumerate(best)]))
        best = np.argsort(-cosine.T, axis=1)[:, :k]
        assert np.isclose(found[f"text_to_image@{k}"], np.mean([i in row for i, row in enumerate(best)]))


def test_saying_the_same_of_all_finds_nothing():
    same = np.ones((10, 4), np.float32) / 2
    assert set(recall(same, same).values()) == {0.0}
