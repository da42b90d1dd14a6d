"""Splits: every image is in one part, and the parts follow size, seed and classes."""

import numpy as np
import pytest

from experiments.config import UserError
from experiments.data import Images, splitting

CLASSES = ("ant", "bee", "cow", "dog", "eel", "fox", "gnu", "hen", "ibex", "jay")


def split(labels, *arguments):
    labels = np.asarray(labels, dtype=np.int64)
    return splitting.split(Images(np.zeros((len(labels), 3, 1, 1), np.uint8), labels, CLASSES), *arguments)


@pytest.mark.parametrize("how", ["random", "stratified", "first"])
@pytest.mark.parametrize("size", [200, 0.2])
def test_a_split_has_every_image_in_one_part(how, size):
    labels = np.arange(1000) % 10
    kept, held_out = split(labels, size, how, 1, "key")
    assert len(held_out) == 200 and np.array_equal(np.sort(np.concatenate([kept, held_out])), np.arange(1000))


def test_first_is_the_notebooks_split():
    assert np.array_equal(split(np.zeros(10), 4, "first", 1, "key")[1], np.arange(4))


def test_random_follows_the_seed():
    parts = [split(np.zeros(1000), 100, "random", seed, "key")[1] for seed in (1, 1, 2)]
    assert np.array_equal(parts[0], parts[1]) and not np.array_equal(parts[0], parts[2])


def test_stratified_keeps_the_fractions_of_the_classes():
    labels = np.repeat([0, 1, 2], [700, 200, 100])
    assert np.bincount(labels[split(labels, 100, "stratified", 1, "key")[1]]).tolist() == [70, 20, 10]


@pytest.mark.parametrize(
    ("labels", "size", "message"),
    [
        (
            [0, 0, 0, 1],
            2,
            r"key=2 .* each needs at least 2; too few are left of bee \(1\); add images, or set data.split=random",
        ),
        (range(9), 2, r"too few are left of ant \(1\), bee \(1\), cow \(1\), dog \(1\), eel \(1\) and 4 more; add"),
        ([0, 0, 1, 1, 2, 2], 2, r"key=2 holds out 2 of 6 images, fewer than the 3 classes; change key, or set"),
        ([0, 0, 1, 1, 2, 2], 0.67, r"key=0\.67 leaves 2 of 6 images, fewer than the 3 classes; change key, or set"),
    ],
)
def test_a_class_too_small_to_stratify_is_named(labels, size, message):
    with pytest.raises(UserError, match=rf"^data\.split=stratified: .*{message}"):
        split(labels, size, "stratified", 1, "key")


def test_the_first_of_images_that_are_sorted_by_class_are_refused():
    with pytest.raises(UserError, match=r"data\.split=first: the images are sorted by class.*data\.split=stratified"):
        split(np.repeat([0, 1, 2], 10), 5, "first", 1, "key")
