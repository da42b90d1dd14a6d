"""Row numbers for training and for a held-out part that share no image."""

from __future__ import annotations

import numpy as np

from experiments.config import UserError


def split(labels: np.ndarray, size: int | float, how: str, seed: int, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Divide rows into (kept, held out), each in ascending order.

    Args:
        labels: shape (N,); one label a row.
        size: how many rows to hold out, or the share of them where it is a float.
        how: `random`, `stratified` (the same share of every class), or `first` (the first `size` rows are held out).
        key: the configuration key that `size` comes from, for messages.

    Raises:
        UserError: where `size` leaves no row on one of the sides, or a class is too small to stratify.
    """
    total = len(labels)
    count = round(size * total) if isinstance(size, float) else size
    if not 1 <= count < total:
        raise UserError(f"{key}={size}: must leave at least 1 of the {total:,} images on either side")
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
        raise UserError(f"{key}={count}: {error} Take data.split=random, or give each class more pictures") from None
