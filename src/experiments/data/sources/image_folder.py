"""One folder of pictures per class -> images, decoded once and cached."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from experiments.config import ImageFolderSettings, UserError
from experiments.data.decoding import files_in, is_picture, read_picture
from experiments.data.images import Images
from experiments.data.pixels import Pixels, images_per_chunk
from experiments.data.prefetch import prefetch
from experiments.data.sources.source import Source
from experiments.data.splitting import split
from experiments.files.cache import Chunks, Files, cached
from experiments.files.limits import usable_cpus

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listing:
    """Pictures that are not read yet, each with its label."""

    files: Files
    labels: tuple[int, ...]
    classes: tuple[str, ...]


class ImageFolder(Source[ImageFolderSettings, tuple[Listing, ...]]):
    """The pictures in ROOT/train/CLASS and ROOT/test/CLASS, or in ROOT/CLASS, of which `test_size` are the test set."""

    may_hold_copies = True

    def listing(self) -> tuple[Listing, ...]:
        """(training, test) pictures, or (all,) if there are no folders `train` and `test`.

        Raises:
            UserError: if there are no pictures, or `test` has a class that `train` lacks.
        """
        root = self._root()
        _check_layout(root)
        has_split = (root / "train").is_dir() and (root / "test").is_dir()
        folder = root / "train" if has_split else root
        classes = _class_names(folder)
        if len(classes) < 2:
            raise UserError(
                f"{folder}: must contain at least two folders of pictures, one per class; it contains {len(classes)}"
            )
        if not has_split:
            return (_list_classes(root, classes),)
        unknown = sorted(set(_class_names(root / "test")) - set(classes))
        if unknown:
            raise UserError(f"{root / 'test'}: {', '.join(unknown)} has no folder of the same name in {root / 'train'}")
        return _list_classes(folder, classes), _list_classes(root / "test", classes)

    def read(self, listing: tuple[Listing, ...], seed: int) -> tuple[Images, Images]:
        first, *others = map(self._read, listing)
        if others:
            return first, others[0]
        how = "random" if self.settings.split == "random" else "stratified"
        train, test = split(first, self.settings.test_size, how, seed, "data.test_size")
        return first[train], first[test]

    def read_all(self) -> Images:
        """Every picture; any number of classes."""
        root = self._root()
        parts = [root / name for name in ("train", "test") if (root / name).is_dir()] or [root]
        classes = tuple(sorted({name for part in parts for name in _class_names(part)}))
        listing = _list_pictures(parts, classes)
        if not listing.labels:
            raise UserError(
                f"{root}: must contain one folder of pictures per class; there are no pictures in any folder"
            )
        return self._read(listing)

    def _root(self) -> Path:
        root = Path(self.settings.root).expanduser()
        if not root.is_dir():
            raise UserError(f"data.root={root}: there is no such folder")
        return root

    def _read(self, listing: Listing) -> Images:
        pixels = _pixels(listing.files, self._root(), self.settings.image_size, self.settings.cache)
        return Images(pixels, np.array(listing.labels, dtype=np.int64), listing.classes)


def _check_layout(root: Path) -> None:
    """Folders such as `train` and `test` are splits, not classes."""
    names = {entry.name.lower() for entry in root.iterdir() if entry.is_dir()}
    if names & {"train", "test"} and not {"train", "test"} <= names:
        raise UserError(
            f"{root}: must contain both train/ and test/, or one folder per class; it contains {', '.join(sorted(names))}"
        )
    if {"train", "test"} <= names and names & {"val", "valid", "validation"}:
        log.warning(
            "%s: its validation folder is not used; data.validation_size sets how many images of train/ validate", root
        )


def _class_names(folder: Path) -> tuple[str, ...]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for name in names:
        if name.encode("utf-8", "ignore").decode() != name:
            raise UserError(f"{folder}: the name of the folder {name!r} is not UTF-8; rename it")
    return tuple(names)


def _list_classes(folder: Path, classes: tuple[str, ...]) -> Listing:
    """The pictures of all classes; in a folder `test` some classes may have none."""
    listing = _list_pictures([folder], classes)
    present = set(listing.labels)
    empty = [name for label, name in enumerate(classes) if label not in present]
    if empty and (folder.name != "test" or not present):
        raise UserError(f"{folder}: there are no pictures in {', '.join(empty)}")
    return listing


def _list_pictures(parts: Sequence[Path], classes: tuple[str, ...]) -> Listing:
    paths: list[str] = []
    labels: list[int] = []
    for part in parts:
        ignored = 0
        for label, name in enumerate(classes):
            files = list(files_in(part / name))
            pictures = [file for file in files if is_picture(file)]
            paths += pictures
            labels += [label] * len(pictures)
            ignored += len(files) - len(pictures)
        if ignored:
            log.warning("%s: %s files are ignored: their extensions are not those of pictures", part, f"{ignored:,}")
    return Listing(Files.snapshot(paths), tuple(labels), classes)


@functools.lru_cache(maxsize=2)  # training and test: another split of the same pictures need not read them again
def _pixels(files: Files, root: Path, image_size: int, cache: str) -> Pixels:
    """Pixels (N, 3, image_size, image_size), from the cache if no file has changed since; named relative to `root`."""
    key = ("image_folder", image_size, files.digest)
    (pixels,) = cached(cache, key, ("pixels",), lambda: (_decoded(files.paths, image_size),))
    start = os.path.join(root, "")  # noqa: PTH118 - a Path has no separator at its end

    def name_of(index: int) -> str:
        name = files.paths[index].removeprefix(start).replace(os.sep, "/")
        return os.fsencode(name).decode("utf-8", "backslashreplace")  # a name that is not UTF-8 could not be written

    return Pixels(pixels, name_of)


def _decoded(paths: Sequence[str], image_size: int) -> Chunks:
    shape = (3, image_size, image_size)
    count = images_per_chunk(shape)
    parts = [paths[start : start + count] for start in range(0, len(paths), count)]

    def read(part: Sequence[str]) -> np.ndarray:
        return np.ascontiguousarray([read_picture(Path(file), image_size) for file in part])

    threads = usable_cpus()  # Pillow releases the interpreter lock
    chunks = track(prefetch(read, parts, threads, 2 * threads), "decoding pictures", total=len(parts))
    return Chunks((len(paths), *shape), iter(chunks))
