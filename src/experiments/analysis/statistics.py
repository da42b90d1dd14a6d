"""Statistics of pixels and labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.data import Images, Splits


@dataclass(frozen=True)
class PixelStatistics:
    """Statistics of the pixels of a set of images.

    Attributes:
        lowest, highest: of all channels, 0 to 255.
        mean, std: per channel (red, green, blue), of pixels scaled to 0..1, as `data.mean` and `data.std` take them.
    """

    lowest: int
    highest: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def measure(images: Images) -> PixelStatistics:
    """Exact statistics from one histogram per channel: a copy of the pixels as floats would take four times their memory."""
    counts = np.zeros((3, 256))
    for chunk in images.chunks():  # bincount converts bytes to 8-byte integers, so it gets a chunk at a time
        for channel in range(3):
            counts[channel] += np.bincount(chunk[:, channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    fractions = counts / counts.sum(axis=1, keepdims=True)
    mean = fractions @ values
    std = np.sqrt((fractions * (values - mean[:, None]) ** 2).sum(axis=1))
    present = np.flatnonzero(counts.sum(axis=0))
    return PixelStatistics(int(present[0]), int(present[-1]), tuple(mean.tolist()), tuple(std.tolist()))


def balance(splits: Splits) -> np.ndarray:
    """Images of each class in each split, shape (classes, 3): training, validation, test."""
    return np.stack([images.class_counts for images in splits.parts().values()], axis=1)


def ratio(counts: np.ndarray) -> float:
    """Images of the largest class divided by those of the smallest; infinite if a class has none."""
    return float(counts.max() / counts.min()) if counts.min() else float("inf")
