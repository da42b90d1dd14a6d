"""How well predicted probabilities match the observed accuracy."""

from __future__ import annotations

import numpy as np

BINS = 15  # as in Guo et al., 2017


def calibration(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean confidence, accuracy, fraction of all examples) in `BINS` equal intervals of confidence; 0 in an empty one.

    Guo et al., "On calibration of modern neural networks", 2017; their expected calibration error is
    `sum(fraction * abs(accuracy - confidence))`.

    Args:
        confidence: the probability of the predicted class, shape (N,).
        right: whether the predicted class is the true one, shape (N,).
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sums = (np.bincount(bins, weights=values, minlength=BINS) for values in (confidence, right))
    mean, accuracy = (total / np.maximum(counts, 1) for total in sums)
    return mean, accuracy, counts / len(confidence)
