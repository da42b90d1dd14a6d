"""Indices of images for training, and of held-out images."""

from __future__ import annotations

import numpy as np

from experiments.config import UserError
from experiments.config.data import ImageFolderSettings
from experiments.config.wording import counted, named
from experiments.data.images import Images


def split(images: Images, size: int | float, how: str, seed: int, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Split indices 0 to N - 1 into (kept, held out), each in ascending order.

    Args:
        size: how many images to hold out: a number, or a fraction if it is a float.
        how: `random`, `stratified` (the same fraction of every class), or `first` (the first `size` images are held out).
        key: the configuration key of `size`, for messages.

    Raises:
        UserError: if one of the two parts would be empty, a class is too small to stratify, or the first images are of one
            class because the images are sorted by class.
    """
    total = len(images)
    count = held_out_count(total, size, key)
    if how == "first":
        _check_order(images.labels)
        held_out = np.arange(count)
    elif how == "random":
        held_out = np.random.default_rng(seed).permutation(total)[:count]
    else:
        _check_classes(images, size, count, key)
        held_out = _stratified(images.labels, count, seed)
    kept = np.ones(total, dtype=bool)
    kept[held_out] = False
    return np.flatnonzero(kept), np.sort(held_out)


def check_sizes(settings: ImageFolderSettings, train: int, *others: int) -> None:
    """Check from the numbers of pictures, before they are decoded and kept in the cache, that no split will be empty.

    Args:
        others: of the validation set and the test set, or of the test set, as far as they are given.

    Raises:
        UserError: one would be empty.
    """
    if not others:
        train -= held_out_count(train, settings.test_size, "data.test_size")
    if len(others) < 2:
        held_out_count(train, settings.validation_size, "data.validation_size")


def held_out_count(total: int, size: int | float, key: str) -> int:
    """How many of `total` images are held out.

    Raises:
        UserError: one of the two parts would be empty.
    """
    count = round(size * total) if isinstance(size, float) else size
    if not 1 <= count < total:
        raise UserError(f"{key}={size}: must leave at least 1 of the {counted(total, 'image')} in each part")
    return count


def _check_order(labels: np.ndarray) -> None:
    classes = len(np.unique(labels))
    if classes > 1 and np.count_nonzero(np.diff(labels)) < classes:
        raise UserError(
            "data.split=first: the images are sorted by class, so the first ones are not of all classes; "
            "set data.split=stratified, or random"
        )


def _check_classes(images: Images, size: int | float, count: int, key: str) -> None:
    """Check that every class can have an image in each of the two parts."""
    counts = images.class_counts
    few = [f"{images.classes[label]} ({counts[label]})" for label in np.flatnonzero(counts == 1)]
    classes = int((counts > 0).sum())
    advice = "or set data.split=random"
    if few:
        raise UserError(
            f"data.split=stratified: {key}={size} divides the images of every class, so each needs at least 2; "
            f"too few are left of {named(few)}; add images, {advice}"
        )
    for part, images_of_part in (("holds out", count), ("leaves", len(images) - count)):
        if images_of_part < classes:
            raise UserError(
                f"data.split=stratified: {key}={size} {part} {images_of_part:,} of {len(images):,} images, fewer than "
                f"the {classes:,} classes; change {key}, {advice}"
            )


def _stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    from sklearn.model_selection import train_test_split  # 1 s to import

    held_out: np.ndarray = train_test_split(
        np.arange(len(labels)), test_size=count, stratify=labels, random_state=seed
    )[1]
    return held_out
