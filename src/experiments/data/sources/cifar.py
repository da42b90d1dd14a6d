"""CIFAR-10 and CIFAR-100 from their official "python version" (Krizhevsky, "Learning multiple layers of features from
tiny images", 2009): pickles of uint8 rows, read without letting a pickle run code."""

from __future__ import annotations

import codecs
import functools
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from experiments.config import CifarSettings, UserError
from experiments.data.images import Images
from experiments.files.cache import Files, cached

TRAINING, TEST = 50_000, 10_000  # pictures
_reconstruct = np.zeros(0).__reduce__()[0]  # how numpy itself rebuilds an array, under the two names that it had


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


def list_files(config: CifarSettings) -> Files:
    """The files of the data set, class names last; downloaded where `config.root` does not hold them.

    Raises:
        UserError: where they cannot be had.
    """
    layout = LAYOUTS[config.name]
    root = Path(config.root).expanduser()
    folder = root / layout.folder
    files = (*layout.train, layout.test, layout.meta)
    if not all((folder / file).exists() for file in files):
        from experiments.files.download import fetch  # a quarter of a second of imports

        fetch(config.urls, config.sha256, root, layout.folder, files)
    return Files.now(folder / file for file in files)


@functools.lru_cache(maxsize=2)  # another split of the same pictures needs no second look at them
def read(config: CifarSettings, files: Files) -> tuple[Images, Images]:
    """(training, test): 50,000 and 10,000 pictures of 32x32.

    Raises:
        UserError: where the files are not what they should be.
    """
    layout = LAYOUTS[config.name]
    *batches, meta = map(Path, files.paths)
    names = _read(meta).get(layout.names)
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise UserError(f"{meta}: holds no list of class names; delete {meta.parent} to download it again")
    classes = tuple(name.decode() for name in names)
    pixels, labels = cached(
        config.cache,
        (config.name, files.states),
        ("pixels", "labels"),
        lambda: _decoded(batches, layout, len(classes)),
    )
    images = Images(pixels, labels, classes)
    return images[:TRAINING], images[TRAINING:]


def _decoded(files: Sequence[Path], layout: _Layout, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels, training first."""
    pixels = np.empty((TRAINING + TEST, 3, 32, 32), dtype=np.uint8)
    labels = np.empty(len(pixels), dtype=np.int64)
    start = 0
    for file in files:  # straight into place: at no time are there two copies of all
        count = TEST if file.name == layout.test else TRAINING // len(layout.train)
        rows = slice(start, start + count)
        pixels[rows], labels[rows] = _batch(file, layout, count, classes)
        start += count
    return pixels, labels


def _batch(path: Path, layout: _Layout, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    content = _read(path)
    pixels, labels = content.get(b"data"), np.asarray(content.get(layout.labels, []))
    if not isinstance(pixels, np.ndarray) or pixels.shape != (count, 3072) or pixels.dtype != np.uint8:
        found = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise UserError(
            f"{path}: its pixels are {found}, not uint8 ({count}, 3072); delete {path.parent} to start afresh"
        )
    if labels.shape != (count,) or labels.dtype.kind != "i" or not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(f"{path}: its labels are not {count:,} numbers from 0 to {classes - 1}; delete {path.parent}")
    return pixels.reshape(count, 3, 32, 32), labels.astype(np.int64)


def _read(path: Path) -> dict[bytes, Any]:
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="bytes").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise UserError(
            f"{path}: not the file that it should be ({error}); delete {path.parent} to start afresh"
        ) from None
    return content if isinstance(content, dict) else {}


class _ArrayUnpickler(pickle.Unpickler):
    """Admits numpy arrays beside plain containers, and refuses every other name that a pickle may ask for."""

    ADMITTED: ClassVar = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("_codecs", "encode"): codecs.encode,  # how Python 3 writes bytes in the old protocols
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data file needs") from None
