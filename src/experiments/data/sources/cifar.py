"""CIFAR-10 and CIFAR-100 from their official "python version" (Krizhevsky, "Learning multiple layers of features from
tiny images", 2009): pickles of uint8 rows, read without letting a pickle run code."""

from __future__ import annotations

import codecs
import functools
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from experiments.config import CifarSettings, UserError
from experiments.config.defaults import default
from experiments.data.decoding import is_picture
from experiments.data.images import Images
from experiments.data.pixels import Pixels, archive_names
from experiments.data.sources.source import Source
from experiments.files.cache import Files, cached

TRAINING, TEST = CifarSettings.training_images, 10_000  # images
_reconstruct = np.zeros(0).__reduce__()[0]  # how NumPy itself rebuilds an array, under the two names that it has had


@dataclass(frozen=True)
class _Layout:
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: bytes
    names: bytes


LAYOUTS = {
    "cifar10": _Layout(
        folder="cifar-10-batches-py",
        train=tuple(f"data_batch_{number}" for number in range(1, 6)),
        test="test_batch",
        meta="batches.meta",
        labels=b"labels",
        names=b"label_names",
    ),
    "cifar100": _Layout(
        folder="cifar-100-python",
        train=("train",),
        test="test",
        meta="meta",
        labels=b"fine_labels",
        names=b"fine_label_names",
    ),
}


class Cifar(Source[CifarSettings, Files]):
    """50,000 training and 10,000 test images of 32x32 pixels in ten or a hundred classes."""

    def listing(self) -> Files:
        """The files of the data set, class names last; downloaded if `root` does not contain them.

        Raises:
            UserError: if they cannot be downloaded.
        """
        layout = LAYOUTS[self.settings.name]
        root = Path(os.path.expanduser(self.settings.root))  # noqa: PTH111 - that of Path raises an error for an unknown user
        folder = root / layout.folder
        files = (*layout.train, layout.test, layout.meta)
        if not all(os.path.exists(folder / file) for file in files):  # noqa: PTH110 - false if the name is too long
            _refuse_pictures(root, self.settings.root)
            from experiments.files.download import fetch  # its imports take a quarter of a second

            fetch(self.settings.urls, self.settings.sha256, root, layout.folder, files)
        return Files.snapshot(folder / file for file in files)

    def read(self, listing: Files, seed: int) -> tuple[Images, Images]:
        images = _images(self.settings.name, listing, self.settings.cache)
        return images[:TRAINING], images[TRAINING:]


def _refuse_pictures(root: Path, typed: str) -> None:
    """Refuse to download into a folder of the user's pictures, one folder per class."""
    chosen = typed != default("data.root") and os.path.isdir(root)  # noqa: PTH112 - false if the name is too long
    if chosen and any(is_picture(path.name) for path in root.glob("*/*")):
        raise UserError(f"data.root={typed}: contains folders of pictures; to train on them, add data=image_folder")


@functools.lru_cache(maxsize=2)  # another split of the same images need not read them again
def _images(name: str, files: Files, cache: str) -> Images:
    """All images, training first.

    Raises:
        UserError: if the files are damaged.
    """
    layout = LAYOUTS[name]
    *batches, meta = map(Path, files.paths)
    names = _read(meta).get(layout.names)
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise UserError(f"{meta}: contains no list of class names; delete {meta.parent} to download it again")
    classes = tuple(name.decode() for name in names)
    pixels, labels = cached(
        cache, (name, files.digest), ("pixels", "labels"), lambda: _decoded(batches, layout, len(classes))
    )
    return Images(Pixels(pixels, archive_names(TRAINING)), labels.array, classes)


def _decoded(files: Sequence[Path], layout: _Layout, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels, training first."""
    pixels = np.empty((TRAINING + TEST, 3, 32, 32), dtype=np.uint8)
    labels = np.empty(len(pixels), dtype=np.int64)
    start = 0
    for file in files:  # directly into place, so that there are never two copies of all
        count = TEST if file.name == layout.test else TRAINING // len(layout.train)
        part = slice(start, start + count)
        pixels[part], labels[part] = _batch(file, layout, count, classes)
        start += count
    return pixels, labels


def _batch(path: Path, layout: _Layout, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    content = _read(path)
    pixels, labels = content.get(b"data"), np.asarray(content.get(layout.labels, []))
    if not isinstance(pixels, np.ndarray) or pixels.shape != (count, 3072) or pixels.dtype != np.uint8:
        found = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise UserError(
            f"{path}: its pixels are {found}, not uint8 ({count}, 3072); delete {path.parent} to download it again"
        )
    if labels.shape != (count,) or labels.dtype.kind != "i" or not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(
            f"{path}: its labels are not {count:,} numbers from 0 to {classes - 1}; delete {path.parent} to download it again"
        )
    return pixels.reshape(count, 3, 32, 32), labels.astype(np.int64)


def _read(path: Path) -> dict[bytes, Any]:
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="bytes").load()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise UserError(f"{path}: is damaged ({error}); delete {path.parent} to download it again") from None
    return content if isinstance(content, dict) else {}


class _ArrayUnpickler(pickle.Unpickler):
    """Allows NumPy arrays and plain containers, and refuses every other name that a pickle may ask for."""

    ALLOWED: ClassVar = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("_codecs", "encode"): codecs.encode,  # how Python 3 writes bytes in the old protocols
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data file needs") from None
