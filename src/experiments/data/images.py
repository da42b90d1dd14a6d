"""The two containers that every source fills: `Images`, and `Splits` of them."""

from __future__ import annotations

import functools
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Images:
    """Pictures with their labels.

    Attributes:
        pixels: uint8, shape (N, 3, H, W), 0 to 255.
        labels: int64, shape (N,), indices into `classes`.
        classes: the class names.
    """

    pixels: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        assert self.pixels.dtype == np.uint8 and self.pixels.ndim == 4 and self.pixels.shape[1] == 3, self.pixels.shape
        assert self.labels.dtype == np.int64 and self.labels.shape == self.pixels.shape[:1], self.labels.shape

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: np.ndarray | slice) -> Images:
        return Images(self.pixels[rows], self.labels[rows], self.classes)

    @property
    def class_counts(self) -> np.ndarray:
        """Images a class, shape (classes,)."""
        return np.bincount(self.labels, minlength=len(self.classes))

    @property
    def balancing_weights(self) -> np.ndarray:
        """Images / (classes x images of the class), shape (classes,): with these, every class weighs the same.

        Classes without images have weight 0, and do not count as classes.
        """
        counts = self.class_counts
        return np.where(counts > 0, len(self) / (np.maximum(counts, 1) * (counts > 0).sum()), 0.0)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over shape, classes, labels and pixels, as 64 hexadecimal digits."""
        digest = hashlib.sha256(repr((self.pixels.shape, self.classes)).encode())
        digest.update(np.ascontiguousarray(self.labels).data)
        digest.update(np.ascontiguousarray(self.pixels).data)
        return digest.hexdigest()

    def fingerprints(self) -> np.ndarray:
        """A 16-byte hash of each picture's pixels, shape (N,): equal pictures have equal hashes."""
        hashes = [hashlib.blake2b(picture.tobytes(), digest_size=16).digest() for picture in self.pixels]
        return np.array(hashes, dtype="V16")


@dataclass(frozen=True)
class Splits:
    """What a run trains on, selects on and is tested on; all three share their class names."""

    train: Images
    validation: Images
    test: Images

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every picture."""
        return self.train.pixels.shape[1:]

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over the three digests: changes with any pixel, label, class name or place in a split."""
        with ThreadPoolExecutor(min(3, os.cpu_count() or 1)) as pool:  # hashing releases the interpreter lock
            digests = list(pool.map(lambda images: images.digest, (self.train, self.validation, self.test)))
        return hashlib.sha256("".join(digests).encode()).hexdigest()
