"""The two containers that every source fills: `Images`, and `Splits` of them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import mmap
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments.files import memory

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 1 << 20  # bytes: a piece that is gathered stays in a core's cache until it is used
LARGE = 1 << 30  # bytes, or an eighth of the memory that there is: pictures beyond that are read from their file


@dataclass(frozen=True)
class Images:
    """Pictures with their labels: rows of an array that all splits share, and that may be a file mapped into memory.

    Nothing here can be written to, because the next run of the same process may get the same arrays.

    Attributes:
        source: uint8, shape (M, 3, H, W), 0 to 255: these pictures, and often others.
        labels: int64, shape (N,), indices into `classes`.
        classes: the class names.
        rows: int64, shape (N,): where in `source` each picture is; without it, all are meant, in their order.
    """

    source: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    rows: np.ndarray = None  # type: ignore[assignment]  # never None once it is made

    def __post_init__(self) -> None:
        rows = np.arange(len(self.source)) if self.rows is None else self.rows
        for name, array in (("source", self.source), ("labels", self.labels), ("rows", rows)):
            object.__setattr__(self, name, _read_only(array))
        assert self.source.dtype == np.uint8 and self.source.ndim == 4 and self.source.shape[1] == 3, self.source.shape
        assert self.labels.dtype == np.int64 and self.labels.shape == self.rows.shape, self.labels.shape

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: np.ndarray | slice | Sequence[int]) -> Images:
        """Some of these pictures; no pixels are copied."""
        return Images(self.source, self.labels[rows], self.classes, self.rows[rows])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Pictures, channels, height, width."""
        return (len(self), *self.source.shape[1:])

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return len(self) * self.source[:1].nbytes

    @property
    def pixels(self) -> np.ndarray:
        """uint8, shape (N, 3, H, W): a copy, made anew each time; for a few pictures, `images[rows].pixels`."""
        return self.gathered(self.rows)

    def picture(self, row: int) -> np.ndarray:
        """One of these pictures, uint8 (3, H, W)."""
        return self.source[self.rows[row]]

    def pieces(self) -> Iterator[np.ndarray]:
        """All pixels, some pictures after others: never a copy of all."""
        for start in range(0, len(self), self.piece):
            yield self.gathered(self.rows[start : start + self.piece])

    @property
    def piece(self) -> int:
        """Pictures a piece."""
        return max(1, PIECE // max(self.source[:1].nbytes, 1))

    def gathered(self, places: np.ndarray) -> np.ndarray:
        """Pixels of the pictures at these places of `source`, uint8 (len(places), 3, H, W).

        Of a large file nothing stays mapped: a page that was touched would count as memory of this process.
        """
        pixels = self.source.take(places, axis=0)
        if self.streamed:
            assert self._file is not None
            with contextlib.suppress(AttributeError):  # Windows has no madvise
                self._file.madvise(mmap.MADV_DONTNEED)  # the system's own cache keeps it
        return pixels

    @functools.cached_property
    def streamed(self) -> bool:
        """The source is a file that is too large to be kept in memory."""
        return self._file is not None and self.source.nbytes > min(LARGE, memory.limit() // 8)

    @functools.cached_property
    def _file(self) -> mmap.mmap | None:
        """The mapped file behind the source."""
        base: object = self.source
        while isinstance(base, np.ndarray | memoryview):
            base = base.obj if isinstance(base, memoryview) else base.base
        return base if isinstance(base, mmap.mmap) else None

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
        digest = hashlib.sha256(repr((self.shape, self.classes)).encode())
        digest.update(np.ascontiguousarray(self.labels).data)
        for piece in self.pieces():
            digest.update(piece.data)
        return digest.hexdigest()

    def fingerprints(self) -> np.ndarray:
        """A 16-byte hash of each picture's pixels, shape (N,): equal pictures have equal hashes."""
        pictures = (picture for piece in self.pieces() for picture in piece)
        hashes = [hashlib.blake2b(picture.data, digest_size=16).digest() for picture in pictures]
        return np.array(hashes, dtype="V16")


def joined(parts: Sequence[Images]) -> Images:
    """All parts as one, in their order; pixels are copied only where the parts are not rows of one source."""
    source, classes = parts[0].source, parts[0].classes
    assert all(part.classes == classes for part in parts)
    labels = np.concatenate([part.labels for part in parts])
    if all(part.source is source for part in parts):
        return Images(source, labels, classes, np.concatenate([part.rows for part in parts]))
    return Images(np.concatenate([part.pixels for part in parts]), labels, classes)


def _read_only(array: np.ndarray) -> np.ndarray:
    """The array itself where it is read-only already, so that rows of one source are known to be; else a view."""
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


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
        return self.train.shape[1:]

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over the three digests: changes with any pixel, label, class name or place in a split."""
        with ThreadPoolExecutor(min(3, os.cpu_count() or 1)) as pool:  # hashing releases the interpreter lock
            digests = list(pool.map(lambda images: images.digest, (self.train, self.validation, self.test)))
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def parts(self) -> dict[str, Images]:
        """All three by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


class Batch(NamedTuple):
    """Pictures with their labels, and which of the split they are."""

    pixels: Tensor  # uint8 (batch, 3, H, W)
    labels: Tensor  # int64 (batch,)
    rows: Tensor  # int64 (batch,): their places among the images, from 0
