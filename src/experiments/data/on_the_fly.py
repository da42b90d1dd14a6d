"""Images that are decoded from their files whenever they are read, because all of them would take too much space."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from experiments.data.pixels import PictureFiles, images_per_chunk
from experiments.data.prefetch import prefetch
from experiments.data.squares import read_picture
from experiments.files.limits import usable_cpus


class OnTheFly:
    """The same as `Pixels`, without an array.

    Attributes:
        hashes: a 16-byte hash of the pixels of each image, shape (M,).
        name_of: index of an image -> its name.
        streamed: always, because other threads must decode while the network trains.
    """

    on_the_fly = True
    streamed = True

    def __init__(self, files: PictureFiles, hashes: np.ndarray, name_of: Callable[[int], str]) -> None:
        self.files = files
        self.hashes = hashes
        self.name_of = name_of

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        size = self.files.decoding.image_size
        return (3, size, size)

    @property
    def chunk_size(self) -> int:
        return images_per_chunk(self.image_shape)

    def image(self, index: int) -> np.ndarray:
        """One image, uint8 (3, H, W)."""
        decoding = self.files.decoding
        return read_picture(Path(self.files.files.paths[index]), decoding.image_size, decoding.fit)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices`, uint8 (len(indices), 3, H, W)."""
        pixels = np.empty((len(indices), *self.image_shape), dtype=np.uint8)
        start = 0
        for chunk in self.chunks(indices):
            pixels[start : start + len(chunk)] = chunk
            start += len(chunk)
        return pixels

    def chunks(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """The images at `indices`, chunk by chunk, decoded by several threads."""
        parts = [indices[start : start + self.chunk_size] for start in range(0, len(indices), self.chunk_size)]
        threads = workers(self.files.decoding.workers)
        return prefetch(self._decode, parts, threads, 2 * threads)

    def _decode(self, indices: np.ndarray) -> np.ndarray:
        return np.stack([self.image(index) for index in indices.tolist()])


def workers(chosen: int | None) -> int:
    """The number of threads that decode: data.workers."""
    return usable_cpus() if chosen is None else chosen
