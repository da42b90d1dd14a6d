"""Indices of images for training, and of held-out images."""

from __future__ import annotations

import numpy as np

from experiments.config import UserError
from experiments.config.wording import counted


def split(labels: np.ndarray, size: int | float, how: str, seed: int, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Split indices 0 to N - 1 into (kept, held out), each in ascending order.

    Args:
        labels: shape (N,).
        size: how many images to hold out: a number, or a fraction if it is a float.
        how: `random`, `stratified` (the same fraction of every class), or `first` (the first `size` images are held out).
        key: the configuration key of `size`, for messages.

    Raises:
        UserError: if one of the two parts would be empty, or a class is too small to stratify.
    """
    total = len(labels)
    count = round(size * total) if isinstance(size, float) else size
    if not 1 <= count < total:
        raise UserError(f"{key}={size}: must leave at least 1 of the {counted(total, 'image')} in each part")
    if how == "first":
        held_out = np.arange(count)
    elif how == "random":
        held_out = np.random.default_rng(seed).permutation(total)[:count]
    else:
        held_out = _stratified(labels, count, seed, key)
    kept = np.ones(total, dtype=bool)
    kept[held_out] = False
    return np.flatnonzero(kept), np.sort(held_out)


def _stratified(labels: np.ndarray, count: int, seed: int, key: str) -> np.ndarray:
    from sklearn.model_selection import train_test_split  # 1 s to import

    try:
        return train_test_split(np.arange(len(labels)), test_size=count, stratify=labels, random_state=seed)[1]
    except ValueError as error:
        raise UserError(f"{key}={count}: {error} Use data.split=random, or add images to each class") from None
