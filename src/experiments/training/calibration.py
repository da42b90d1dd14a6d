"""How far predicted probabilities can be trusted."""

from __future__ import annotations

import numpy as np

BINS = 15  # of the calibration, as Guo et al. have it


def calibration(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean confidence, accuracy, share of all) of `BINS` equal intervals of confidence; 0 where a bin is empty.

    Guo et al., "On calibration of modern neural networks", 2017; their expected calibration error is
    `sum(share * abs(accuracy - confidence))`.
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sums = (np.bincount(bins, weights=values, minlength=BINS) for values in (confidence, right))
    mean, accuracy = (total / np.maximum(counts, 1) for total in sums)
    return mean, accuracy, counts / len(confidence)
