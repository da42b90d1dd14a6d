"""Splits: every image is in one part, and the parts follow size, seed and classes."""

import numpy as np
import pytest

from experiments.config import UserError
from experiments.data.splitting import split


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


def test_a_class_too_small_to_stratify_is_reported():
    with pytest.raises(UserError, match=r"key=2.*data\.split=random"):
        split(np.array([0, 0, 0, 1]), 2, "stratified", 1, "key")
