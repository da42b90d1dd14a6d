"""The containers that every source fills: `Images`, and `Splits` of them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments.config import UserError
from experiments.config.splits import SPLITS
from experiments.data.decoding import decoder, open_picture
from experiments.data.on_the_fly import OnTheFly
from experiments.data.pixels import LARGE, PictureFiles, Pixels, read_only
from experiments.files.limits import usable_cpus

if TYPE_CHECKING:
    from torch import Tensor

Source = Pixels | OnTheFly


class Images:
    """Images with their labels: some of the images whose pixels all splits share.

    The arrays are read-only, because the next run of the same process may get the same ones.

    Args:
        pixels: uint8, shape (M, 3, H, W), 0 to 255; or the `source` of other images.
        labels: int64, shape (N,), indices into `classes`.
        classes: the class names.
        indices: int64, shape (N,): which of `pixels` these images are; by default all, in their order.
        names: the name of each of `pixels` if they are an array; by default their indices. Names are not in the digest.
        groups: int64, shape (N,): images of one group stay in one split; None if each may be in any. Not in the digest.

    Attributes:
        source: where the pixels are.
    """

    def __init__(
        self,
        pixels: np.ndarray | Source,
        labels: np.ndarray,
        classes: tuple[str, ...],
        indices: np.ndarray | None = None,
        names: Sequence[str] | None = None,
        groups: np.ndarray | None = None,
    ) -> None:
        if isinstance(pixels, np.ndarray):
            pixels = Pixels(pixels, names.__getitem__) if names else Pixels(pixels)
        self.source = pixels
        self.labels = read_only(labels)
        self.classes = classes
        self.indices = read_only(np.arange(len(self.source)) if indices is None else indices)
        self.groups = groups
        assert labels.dtype == np.int64 and labels.shape == self.indices.shape, (labels.dtype, labels.shape)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: np.ndarray | slice | Sequence[int]) -> Images:
        """Some of these images; no pixels are copied."""
        groups = None if self.groups is None else self.groups[indices]
        return Images(self.source, self.labels[indices], self.classes, self.indices[indices], groups=groups)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(images, channels, height, width)."""
        return (len(self), *self.source.image_shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return int(np.prod(self.shape))

    @property
    def pixels(self) -> np.ndarray:
        """uint8, shape (N, 3, H, W): a new copy each time; for a few images, `images[indices].pixels`."""
        return self.source.take(self.indices)

    @property
    def names(self) -> list[str]:
        """The name of each picture: the path of its file, or its index in the archive; a new list each time."""
        return [self.source.name_of(int(index)) for index in self.indices]

    def name(self, index: int) -> str:
        """The name of one picture."""
        return self.source.name_of(int(self.indices[index]))

    def image(self, index: int) -> np.ndarray:
        """The pixels of one image, uint8 (3, H, W)."""
        return self.source.image(int(self.indices[index]))

    def original(self, index: int, longest: int) -> np.ndarray:
        """The whole picture that one image shows, uint8 (height, width, 3): of its own shape, at most `longest` pixels per side.

        If its file is not known, or can no longer be read, the image itself.
        """
        if files := self.source.files:
            with contextlib.suppress(UserError):
                picture = open_picture(Path(files.files.paths[self.indices[index]]))
                picture.thumbnail((longest, longest))
                return np.asarray(picture)
        return self.image(index).transpose(1, 2, 0)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """A copy of the pixels of these images at `indices`, uint8 (len(indices), 3, H, W)."""
        return self.source.take(self.indices[indices])

    def chunks(self) -> Iterator[np.ndarray]:
        """Copies of all pixels, chunk by chunk."""
        return self.source.chunks(self.indices)

    @property
    def class_counts(self) -> np.ndarray:
        """Images per class, shape (classes,)."""
        return np.bincount(self.labels, minlength=len(self.classes))

    @property
    def balancing_weights(self) -> np.ndarray:
        """Images / (classes x images of the class), shape (classes,): with these weights, all classes count the same.

        Classes without images have weight 0, and do not count as classes.
        """
        counts = self.class_counts
        return np.where(counts > 0, len(self) / (np.maximum(counts, 1) * (counts > 0).sum()), 0.0)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over shape, classes, labels and pixels, as 64 hexadecimal digits.

        For photographs, from which random crops may be cut, the content of the files and what decodes them take the place
        of the pixels.
        """
        digest = hashlib.sha256(repr((self.shape, self.classes)).encode())
        digest.update(np.ascontiguousarray(self.labels).data)
        if files := self.source.files:
            fit = files.decoding.fit
            digest.update(repr((fit, decoder(fit), self.source.on_the_fly)).encode())
            digest.update(files.contents[self.indices].tobytes())
            return digest.hexdigest()
        for chunk in self.chunks():
            digest.update(chunk.data)
        return digest.hexdigest()

    def pixel_hashes(self) -> np.ndarray:
        """A 16-byte hash of the pixels of each image, shape (N,): equal images have equal hashes."""
        return self.source.hashes[self.indices]


def joined(parts: Sequence[Images]) -> Images:
    """All parts as one, in their order; pixels are copied only if the parts have different sources."""
    source, classes = parts[0].source, parts[0].classes
    assert all(part.classes == classes for part in parts)
    labels = np.concatenate([part.labels for part in parts])
    if all(part.source is source for part in parts):
        return Images(source, labels, classes, np.concatenate([part.indices for part in parts]))
    names = [name for part in parts for name in part.names]
    known = [part.source.files[part.indices] for part in parts if part.source.files]
    files = PictureFiles.joined(known) if len(known) == len(parts) else None
    if files and (sum(part.nbytes for part in parts) > LARGE or any(part.source.on_the_fly for part in parts)):
        hashes = np.concatenate([part.pixel_hashes() for part in parts])
        return Images(OnTheFly(files, hashes, names.__getitem__), labels, classes)
    pixels = np.concatenate([part.pixels for part in parts])
    return Images(Pixels(pixels, names.__getitem__, files), labels, classes)


@dataclass(frozen=True)
class Splits:
    """The images that a run trains on, validates on and is tested on; all three have the same class names.

    Attributes:
        skipped: the broken pictures that were left out, each with its name and what is wrong with it.
        drawn: the validation images were drawn from those for training; else the data set has some of its own.
    """

    train: Images
    validation: Images
    test: Images
    skipped: tuple[str, ...] = field(default=(), kw_only=True)
    drawn: bool = field(default=True, kw_only=True)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return self.train.shape[1:]

    def parts(self) -> dict[str, Images]:
        """All three by name."""
        return {name: getattr(self, name) for name in SPLITS}

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over the three digests: it changes with any pixel, label, class name or position in a split."""
        with ThreadPoolExecutor(min(3, usable_cpus())) as pool:  # hashing releases the interpreter lock
            digests = list(pool.map(lambda images: images.digest, self.parts().values()))
        return hashlib.sha256("".join(digests).encode()).hexdigest()


class Batch(NamedTuple):
    """A batch of images with their labels."""

    pixels: Tensor  # uint8 (batch, 3, H, W)
    labels: Tensor  # int64 (batch,)
    indices: Tensor  # int64 (batch,): the positions of the images in their split, from 0
