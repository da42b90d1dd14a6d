"""A folder of pictures a class -> images, decoded once and kept in a cache."""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from experiments.config import ImageFolderSettings, UserError
from experiments.data.decoding import files_in, is_picture, read_picture
from experiments.data.images import PIECE, Images
from experiments.data.prefetch import prefetch
from experiments.data.splitting import split
from experiments.files.cache import Chunks, Files, cached

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listing:
    """Pictures of a folder that are not read yet, each with its label."""

    files: Files
    labels: tuple[int, ...]
    classes: tuple[str, ...]


def list_pictures(config: ImageFolderSettings) -> tuple[Listing, ...]:
    """(training, test) in `root/train` and `root/test`, or (all,) in `root`.

    Raises:
        UserError: where there are no pictures, or `test/` has a class that `train/` lacks.
    """
    root = Path(config.root).expanduser()
    _check_layout(root)
    has_split = (root / "train").is_dir() and (root / "test").is_dir()
    folder = root / "train" if has_split else root
    classes = _classes(folder)
    if len(classes) < 2:
        raise UserError(f"{folder}: must hold at least two folders of pictures, one a class; it holds {len(classes)}")
    if not has_split:
        return (_find(root, classes),)
    unknown = sorted(set(_classes(root / "test")) - set(classes))
    if unknown:
        raise UserError(f"{root / 'test'}: {', '.join(unknown)} has no folder of the same name in {root / 'train'}")
    return _find(folder, classes), _find(root / "test", classes)


def read(config: ImageFolderSettings, seed: int, found: tuple[Listing, ...]) -> tuple[Images, Images]:
    """(training, test); where there is no `test/`, `test_size` of all pictures is held out.

    Raises:
        UserError: where a picture is broken, or there are too few to split.
    """
    first, *others = (_read(part, config) for part in found)
    if others:
        return first, others[0]
    how = "random" if config.split == "random" else "stratified"
    kept_back, held_out = split(first.labels, config.test_size, how, seed, "data.test_size")
    return first[kept_back], first[held_out]


def read_all(config: ImageFolderSettings) -> Images:
    """Every picture, training and test alike, for an evaluation; any number of classes.

    Raises:
        UserError: where there are no pictures, or one is broken.
    """
    root = Path(config.root).expanduser()
    parts = [root / name for name in ("train", "test") if (root / name).is_dir()] or [root]
    classes = tuple(sorted({name for part in parts for name in _classes(part)}))
    found = _found(parts, classes)
    if not found.labels:
        raise UserError(f"{root}: must hold folders of pictures, one a class; there are no pictures in any")
    return _read(found, config)


def _check_layout(root: Path) -> None:
    """`train`, `test` and their like are splits, not classes."""
    found = {entry.name.lower() for entry in root.iterdir() if entry.is_dir()}
    if found & {"train", "test"} and not {"train", "test"} <= found:
        raise UserError(
            f"{root}: must hold both train/ and test/, or a folder a class; it holds {', '.join(sorted(found))}"
        )
    if {"train", "test"} <= found and found & {"val", "valid", "validation"}:
        log.warning("%s: its validation folder is not used; data.validation_size of train/ validates", root)


def _classes(folder: Path) -> tuple[str, ...]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for name in names:
        if name.encode("utf-8", "ignore").decode() != name:
            raise UserError(f"{folder}: the name of the folder {name!r} is not UTF-8; rename it")
    return tuple(names)


def _find(folder: Path, classes: tuple[str, ...]) -> Listing:
    found = _found([folder], classes)
    there = set(found.labels)
    empty = [name for label, name in enumerate(classes) if label not in there]
    if empty and (folder.name != "test" or not there):
        raise UserError(f"{folder}: there are no pictures in {', '.join(empty)}")
    return found


def _found(parts: Sequence[Path], classes: tuple[str, ...]) -> Listing:
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
            log.warning(
                "%s: %s files are ignored, because their endings are not those of pictures", part, f"{ignored:,}"
            )
    return Listing(Files.now(paths), tuple(labels), classes)


def _read(found: Listing, config: ImageFolderSettings) -> Images:
    pixels = _pixels(found.files, config.image_size, config.cache)
    return Images(pixels, np.array(found.labels, dtype=np.int64), found.classes)


@functools.lru_cache(maxsize=2)  # training and test: another split of the same pictures needs no second look at them
def _pixels(files: Files, image_size: int, cache: str) -> np.ndarray:
    """Shape (N, 3, image_size, image_size), from the cache where no file has changed since."""
    key = ("image_folder", image_size, files.states)
    return cached(cache, key, ("pixels",), lambda: (_decoded(files.paths, image_size),))[0]


def _decoded(paths: Sequence[str], image_size: int) -> Chunks:
    shape = (3, image_size, image_size)
    count = max(1, PIECE // math.prod(shape))
    parts = [paths[start : start + count] for start in range(0, len(paths), count)]

    def read(part: Sequence[str]) -> np.ndarray:
        pictures = [read_picture(Path(file), image_size) for file in part]  # Pillow releases the interpreter lock
        return np.ascontiguousarray(pictures)

    threads = os.cpu_count() or 1
    pieces = track(prefetch(read, parts, threads, 2 * threads), "decoding pictures", total=len(parts))
    return Chunks((len(paths), *shape), iter(pieces))
