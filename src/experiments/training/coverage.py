"""Selective prediction: the accuracy of the most confident predictions, if the others are left undecided.

Coverage.of(probabilities, labels).decided_at(0.95)       # the largest part of the images with this accuracy
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

FILE, COLUMNS = "coverage.csv", ("threshold", "coverage", "accuracy", "images")
MOST = 1000  # rows of the file


@dataclass(frozen=True)
class Coverage:
    """Accuracy at coverage: one row per threshold, from the highest to the lowest, (rows,) each.

    Attributes:
        threshold: of the confidence, the probability of the predicted class; an image with at least this one is decided.
        coverage: the fraction of all images that is decided.
        accuracy: of these.
        images: how many they are.
    """

    threshold: np.ndarray
    coverage: np.ndarray
    accuracy: np.ndarray
    images: np.ndarray

    @classmethod
    def of(cls, probabilities: np.ndarray, labels: np.ndarray) -> Coverage:
        """From probabilities (N, classes) and true classes (N,); every confidence that occurs is a threshold."""
        confidence = probabilities.max(axis=1)
        order = np.argsort(-confidence, kind="stable")
        falling, right = confidence[order], (probabilities.argmax(axis=1) == labels)[order]
        last = np.flatnonzero(np.append(falling[1:] < falling[:-1], True))  # of the images with the same confidence
        return cls(falling[last], (last + 1) / len(labels), np.cumsum(right)[last] / (last + 1), last + 1)

    def thinned(self) -> Coverage:
        """At most `MOST` rows at equal distances, the last one among them."""
        rows = np.unique(np.linspace(0, len(self.images) - 1, min(MOST, len(self.images))).round().astype(int))
        return Coverage(self.threshold[rows], self.coverage[rows], self.accuracy[rows], self.images[rows])

    def rows(self) -> Iterator[tuple[float, ...]]:
        """The rows of the file."""
        columns = (self.threshold.astype(float), self.coverage, self.accuracy, self.images)
        return zip(*(column.tolist() for column in columns))

    @classmethod
    def read(cls, text: str) -> Coverage:
        """The content of the file.

        Raises:
            ValueError: it is damaged.
        """
        head, *rows = csv.reader(io.StringIO(text))
        table = np.array(rows, dtype=float).reshape(-1, len(COLUMNS))
        if tuple(head) != COLUMNS or not len(table) or not np.isfinite(table).all():
            raise ValueError("it is not a table of coverage")
        return cls(*table.T)

    def decided_at(self, accuracy: float) -> int | None:
        """The row with the largest coverage that has at least this accuracy; None if no row has."""
        rows = np.flatnonzero(self.accuracy >= accuracy)
        return int(rows[-1]) if len(rows) else None
