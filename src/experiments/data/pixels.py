"""Where pixels are: in an array in memory, or in a file that is mapped into memory."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import math
import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.config.data import Decoding
from experiments.files.cache import Cached, Files
from experiments.files.limits import memory_limit

CHUNK = 1 << 20  # bytes: a chunk of this size stays in a core's cache until it is used
LARGE = 1 << 30  # bytes; a larger file, or one above an eighth of the memory limit, is not kept in memory


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """The picture files that images are decoded from, in the order of the images.

    Attributes:
        contents: a 16-byte hash of the content of each file, shape (M,).
        cache: the folder for what is made of them; None to keep it in memory.
    """

    files: Files
    contents: np.ndarray
    decoding: Decoding
    cache: str | None

    def __getitem__(self, indices: np.ndarray) -> PictureFiles:
        """Some of the files."""
        paths = tuple(self.files.paths[index] for index in indices.tolist())
        digest = hashlib.sha256(self.files.digest.encode() + indices.tobytes()).hexdigest()
        return dataclasses.replace(self, files=Files(paths, digest), contents=self.contents[indices])

    @classmethod
    def joined(cls, parts: Sequence[PictureFiles]) -> PictureFiles:
        """All files of the parts, which are decoded as those of the first."""
        paths = tuple(path for part in parts for path in part.files.paths)
        digest = hashlib.sha256(" ".join(part.files.digest for part in parts).encode()).hexdigest()
        contents = np.concatenate([part.contents for part in parts])
        return dataclasses.replace(parts[0], files=Files(paths, digest), contents=contents)


class Pixels:
    """Pixels of images, which all splits of a data set share. Read-only.

    Attributes:
        array: uint8, shape (M, 3, H, W), 0 to 255.
        name_of: index of an image -> its name; a function, because a million names would need 100 MB.
        files: the photographs that the images show; None if the images themselves are all that is known.
    """

    on_the_fly = False

    def __init__(
        self,
        array: np.ndarray | Cached,
        name_of: Callable[[int], str] = "image[{}]".format,
        files: PictureFiles | None = None,
    ) -> None:
        self._cached = array if isinstance(array, Cached) else Cached(read_only(array))
        array = self.array
        assert array.dtype == np.uint8 and array.ndim == 4 and array.shape[1] == 3, (array.dtype, array.shape)
        self.name_of = name_of
        self.files = files

    def __len__(self) -> int:
        return len(self.array)

    @property
    def array(self) -> np.ndarray:
        return self._cached.array

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return self.array.shape[1:]

    @property
    def chunk_size(self) -> int:
        """Images per chunk."""
        return images_per_chunk(self.image_shape)

    @functools.cached_property
    def streamed(self) -> bool:
        """Whether the pixels are in a file that is too large to be kept in memory."""
        return mapped_file(self.array) is not None and is_large(self.array.nbytes)

    @functools.cached_property
    def hashes(self) -> np.ndarray:
        """A 16-byte hash of the pixels of each image, shape (M,): equal images have equal hashes."""
        images = (image for chunk in self.chunks(np.arange(len(self.array))) for image in chunk)
        return np.array([hash_of(image.data) for image in images], dtype="V16")

    def take(self, indices: np.ndarray) -> np.ndarray:
        """A copy of the images at `indices`, uint8 (len(indices), 3, H, W).

        Pages of a streamed file are released at once, because they would count as memory of this process.
        """
        pixels = self._cached.verified(indices).take(indices, axis=0)
        if self.streamed and (file := mapped_file(self.array)):
            with contextlib.suppress(AttributeError):  # Windows has no madvise
                file.madvise(mmap.MADV_DONTNEED)  # the operating system's own cache keeps them
        return pixels

    def image(self, index: int) -> np.ndarray:
        """One image, uint8 (3, H, W), read-only."""
        return self._cached.verified(np.array([index]))[index]

    def chunks(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """Copies of the images at `indices`, chunk by chunk, so that there is never a copy of all."""
        for start in range(0, len(indices), self.chunk_size):
            yield self.take(indices[start : start + self.chunk_size])


def hash_of(content: bytes | memoryview) -> bytes:
    """16 bytes: equal contents have equal ones."""
    return hashlib.blake2b(content, digest_size=16).digest()


def mapped_file(array: np.ndarray) -> mmap.mmap | None:
    """The mapped file behind an array."""
    base: object = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.obj if isinstance(base, memoryview) else base.base
    return base if isinstance(base, mmap.mmap) else None


def is_large(nbytes: int) -> bool:
    """Whether a file of this size is not to be kept in memory."""
    return nbytes > min(LARGE, memory_limit() // 8)


def archive_names(training: int) -> Callable[[int], str]:
    """Index of an image -> its name, for an archive of `training` training images and then the test images."""
    return lambda index: f"train[{index}]" if index < training else f"test[{index - training}]"


def images_per_chunk(image_shape: Sequence[int]) -> int:
    """Images of this shape in a chunk of about `CHUNK` bytes; at least 1."""
    return max(1, CHUNK // math.prod(image_shape))


def read_only(array: np.ndarray) -> np.ndarray:
    """The array itself if it cannot be written to, else a view that cannot."""
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array
