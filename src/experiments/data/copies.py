"""Copies of photographs, of their own shapes and somewhat larger than the images, in one file that is mapped into memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from experiments.config import UserError
from experiments.data.decoding import decoder
from experiments.data.photographs import reduced, reduced_size, upright_size
from experiments.data.pixels import PictureFiles, is_large, mapped_file
from experiments.data.prefetch import prefetch
from experiments.files.cache import Cached, cached
from experiments.files.limits import usable_cpus
from experiments.files.verified import BLOCK, Chunks

STORED = 1.3  # the shorter side of a copy, at most, in sides of an image; larger copies gain detail and take more space
PART = 8  # photographs that a thread reads at a time


class Copies:
    """One copy per photograph; a photograph that is not larger is kept as it is.

    Attributes:
        shorter: the shorter side of a copy, at most.
        nbytes: of all copies.
    """

    def __init__(self, files: PictureFiles) -> None:
        self.shorter = round(STORED * files.decoding.image_size)
        paths, fit = files.files.paths, files.decoding.fit
        key = ("copies", decoder(fit), self.shorter, files.files.digest)
        if files.cache is None:
            chunks, sizes = _made(paths, self.shorter)
            self._copies, known = Cached(chunks.joined()), sizes
        else:
            make = lambda: _made(paths, self.shorter)  # noqa: E731
            self._copies, stored = cached(files.cache, key, ("copies", "sizes"), make)
            known = stored.verified(np.arange(len(stored.array)))
        self._sizes = known
        self._starts = np.concatenate([[0], np.cumsum(_bytes(known))])
        self.nbytes = int(self._starts[-1])

    def picture(self, index: int) -> np.ndarray:
        """One copy, uint8 (height, width, 3), read-only."""
        start, stop = self._starts[index : index + 2].tolist()
        width, height = self._sizes[index].tolist()
        array = self._copies.verified(np.append(np.arange(start, stop, BLOCK), stop - 1))
        return array[start:stop].reshape(height, width, 3)

    def release(self) -> None:
        """Forget the pages that were read, if all of them would fill the memory; the system's own cache keeps them."""
        file = mapped_file(self._copies.array)
        if file is not None and is_large(self.nbytes) and hasattr(file, "madvise"):  # Windows has no madvise
            file.madvise(mmap.MADV_DONTNEED)


def _bytes(sizes: np.ndarray) -> np.ndarray:
    product: np.ndarray = 3 * sizes.prod(axis=1, dtype=np.int64)
    return product


def _made(paths: Sequence[str], shorter: int) -> tuple[Chunks, np.ndarray]:
    """All copies, one after the other, and their sizes: int64 (N, 2), width and height."""
    threads = usable_cpus()  # what decodes releases the interpreter lock

    def size_of(path: str) -> tuple[int, int]:
        return reduced_size(shorter, *upright_size(Path(path)))

    sizes = np.array(list(prefetch(size_of, paths, threads, 64)), dtype=np.int64).reshape(-1, 2)
    parts = [slice(start, start + PART) for start in range(0, len(paths), PART)]

    def read(part: slice) -> np.ndarray:
        copies = [reduced(Path(path), shorter) for path in paths[part]]
        for path, copy, (width, height) in zip(paths[part], copies, sizes[part].tolist()):
            if copy.shape != (height, width, 3):
                raise UserError(f"{path}: has changed while it was read; start again")
        return np.concatenate([copy.ravel() for copy in copies])

    def chunks() -> Iterator[np.ndarray]:
        results = prefetch(read, parts, threads, 2 * threads)
        yield from track(results, "storing photographs for crops", total=len(parts))

    return Chunks((int(_bytes(sizes).sum()),), chunks()), sizes
