"""Pixels and labels in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.data import Images, Splits


@dataclass(frozen=True)
class Pixels:
    """The pixels of a set of pictures.

    Attributes:
        lowest, highest: of all channels, 0 to 255.
        mean, std: a channel (red, green, blue), of pixels scaled to 0..1: what `data.mean` and `data.std` take.
    """

    lowest: int
    highest: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def measure(images: Images) -> Pixels:
    """Exact, from a histogram a channel: no copy of the pixels in floats, which would take four times their memory."""
    counts = np.zeros((3, 256))
    for piece in images.pieces():  # bincount turns bytes into 8-byte integers, so a part at a time
        for channel in range(3):
            counts[channel] += np.bincount(piece[:, channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ values
    std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(axis=1))
    present = np.flatnonzero(counts.sum(axis=0))
    return Pixels(int(present[0]), int(present[-1]), tuple(mean.tolist()), tuple(std.tolist()))


def balance(splits: Splits) -> np.ndarray:
    """Pictures of each class in each split, shape (classes, 3): training, validation, test."""
    parts = (splits.train, splits.validation, splits.test)
    return np.stack([np.bincount(part.labels, minlength=len(splits.classes)) for part in parts], axis=1)


def ratio(counts: np.ndarray) -> float:
    """Pictures of the largest class over those of the smallest; infinite where a class has none."""
    return float(counts.max() / counts.min()) if counts.min() else float("inf")
