"""Indices of images for training, and of held-out images."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence

import numpy as np

from experiments.config import UserError
from experiments.config.data import PictureSettings
from experiments.config.wording import counted, named
from experiments.data.grouping import check_groups, has_groups, hold_out_groups
from experiments.data.images import Images

log = logging.getLogger(__name__)


def split(images: Images, size: int | float, how: str, seed: int, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Split indices 0 to N - 1 into (kept, held out), each in ascending order; a group is in one part as a whole.

    Args:
        size: how many images to hold out: a number, or a fraction if it is a float; of groups, as close to it as possible.
        how: `random`, `stratified` (the same fraction of every class), or `first` (the first `size` images are held out).
        key: the configuration key of `size`, for messages.

    Raises:
        UserError: if one of the two parts would be empty, a class is too small to stratify, the first images are of one
            class because the images are sorted by class, or a group holds a whole class.
    """
    total = len(images)
    count = held_out_count(total, size, key)
    if has_groups(images):
        held_out = hold_out_groups(images, count, how, seed, f"{key}={size}")
    elif how == "first":
        _check_order(images.labels)
        held_out = np.arange(count)
    elif how == "random":
        held_out = np.random.default_rng(seed).permutation(total)[:count]
    else:
        _check_classes(images, size, count, key)
        held_out = _stratified(images.labels, count, seed)
    return _without(held_out, total), np.sort(held_out)


def fold(images: Images, folds: int, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split indices 0 to N - 1 into (kept, held out): fold `number` of `folds` is held out; each index in one fold.

    Every fold has the same fraction of every class, as nearly as the groups allow, each of which is in one fold.

    Raises:
        UserError: a class has fewer images than there are folds, or a group holds a whole class.
    """
    check_folds(images.class_counts, images.classes, folds)
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # 1 s to import

    grouped = has_groups(images)
    if grouped:
        check_groups(images, f"data.folds={folds}", folds)
    divide = (StratifiedGroupKFold if grouped else StratifiedKFold)(folds, shuffle=True, random_state=seed)
    parts = divide.split(np.zeros(len(images)), images.labels, images.groups if grouped else None)
    held_out = next(itertools.islice(parts, number, None))[1]
    kept = _without(held_out, len(images))
    _check_fold(images, kept, held_out, f"data.fold={number}")
    return kept, held_out


def check_folds(counts: np.ndarray, classes: Sequence[str], folds: int) -> None:
    """Check that each class has at least as many images as there are folds, given the images per class, (classes,).

    Raises:
        UserError: one has fewer.
    """
    few = [f"{classes[label]} ({counts[label]})" for label in np.flatnonzero((counts > 0) & (counts < folds)).tolist()]
    if few:
        rarest = int(counts[counts > 0].min())
        advice = f"set data.folds to at most {rarest}, or add images" if rarest > 1 else "add images"
        raise UserError(
            f"data.folds={folds}: each class must have an image in every fold; too few images are there of "
            f"{named(few)}; {advice}"
        )


def _without(held_out: np.ndarray, total: int) -> np.ndarray:
    kept = np.ones(total, dtype=bool)
    kept[held_out] = False
    return np.flatnonzero(kept)


def refuse_folds(folds: int | None) -> None:
    """Raise a `UserError` if there are folds, because the data has a validation set of its own."""
    if folds is not None:
        raise UserError(
            f"data.folds={folds}: the data has a validation set of its own, so its training images are not divided; "
            "set data.folds=null data.fold=null"
        )


def _check_fold(images: Images, kept: np.ndarray, held_out: np.ndarray, key: str) -> None:
    """Check that groups have left some images of each class to train on; warn of classes that are not validated on."""
    if missing := _missing(images, kept):
        raise UserError(
            f"{key}: holds out all groups of {named(missing)}; set data.seed to another number, or add groups"
        )
    if missing := _missing(images, held_out):
        log.warning("%s: no validation image of %s, which has fewer groups than there are folds", key, named(missing))


def _missing(images: Images, part: np.ndarray) -> list[str]:
    """The classes that have images, but none in this part."""
    there = np.bincount(images.labels[part], minlength=len(images.classes))
    return [images.classes[label] for label in np.flatnonzero((images.class_counts > 0) & (there == 0))]


def check_sizes(settings: PictureSettings, train: int, *others: int) -> None:
    """Check from the numbers of pictures, before they are decoded and kept in the cache, that no split will be empty.

    Args:
        others: of the validation set and the test set, or of the test set, as far as they are given.

    Raises:
        UserError: one would be empty.
    """
    if not others:
        train -= held_out_count(train, settings.test_size, "data.test_size")
    if len(others) < 2 and settings.folds is None:
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
