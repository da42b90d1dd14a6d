"""A folder of pictures a class -> images, decoded once and kept in a cache."""

from __future__ import annotations

import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.progress import track

from experiments.config import ImageFolder, UserError
from experiments.data.images import Images
from experiments.data.pictures import pictures_in, read_picture
from experiments.data.splitting import split

log = logging.getLogger(__name__)


def load(config: ImageFolder, seed: int) -> tuple[Images, Images]:
    """(training, test) from `root/train` and `root/test`, or from `root` with `test_size` of it held out.

    Raises:
        UserError: where there are no pictures, one is broken, or `test/` has a class that `train/` lacks.
    """
    root = Path(config.root).expanduser()
    _check_layout(root)
    has_split = (root / "train").is_dir() and (root / "test").is_dir()
    folder = root / "train" if has_split else root
    classes = _classes(folder)
    if len(classes) < 2:
        raise UserError(f"{folder}: must hold at least two folders of pictures, one a class; it holds {len(classes)}")
    if not has_split:
        images = _read(root, classes, config)
        how = "random" if config.split == "random" else "stratified"
        kept, held_out = split(images.labels, config.test_size, how, seed, "data.test_size")
        return images[kept], images[held_out]
    unknown = sorted(set(_classes(root / "test")) - set(classes))
    if unknown:
        raise UserError(f"{root / 'test'}: {', '.join(unknown)} has no folder of the same name in {root / 'train'}")
    return _read(folder, classes, config), _read(root / "test", classes, config)


def load_all(config: ImageFolder) -> Images:
    """Every picture, training and test alike, for an evaluation; any number of classes.

    Raises:
        UserError: where there are no pictures, or one is broken.
    """
    root = Path(config.root).expanduser()
    parts = [root / name for name in ("train", "test") if (root / name).is_dir()] or [root]
    classes = tuple(sorted({name for part in parts for name in _classes(part)}))
    files = [(file, label) for part in parts for label, name in enumerate(classes) for file in pictures_in(part / name)]
    if not files:
        raise UserError(f"{root}: must hold folders of pictures, one a class; there are no pictures in any")
    labels = np.array([label for _, label in files], dtype=np.int64)
    return Images(_decoded([file for file, _ in files], config), labels, classes)


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


def _read(folder: Path, classes: tuple[str, ...], config: ImageFolder) -> Images:
    files = [(file, label) for label, name in enumerate(classes) for file in pictures_in(folder / name)]
    labels = np.array([label for _, label in files], dtype=np.int64)
    empty = [name for name, count in zip(classes, np.bincount(labels, minlength=len(classes))) if not count]
    if empty and (folder.name != "test" or not files):
        raise UserError(f"{folder}: there are no pictures in {', '.join(empty)}")
    ignored = sum(file.is_file() for name in classes for file in (folder / name).rglob("[!.]*")) - len(files)
    if ignored:
        log.warning("%s: %s files are ignored, because their endings are not those of pictures", folder, f"{ignored:,}")
    return Images(_decoded([file for file, _ in files], config), labels, classes)


def _decoded(files: list[Path], config: ImageFolder) -> np.ndarray:
    """Pixels of `files`, shape (N, 3, image_size, image_size), from the cache where no file has changed since."""
    states = ((file, file.stat()) for file in files)
    listing = [(str(file.resolve()), state.st_size, state.st_mtime_ns) for file, state in states]
    key = hashlib.sha256(repr((config.image_size, listing)).encode()).hexdigest()[:32]
    cached = Path(config.cache) / f"{key}.npy"
    if cached.exists():
        return np.load(cached, allow_pickle=False)
    pixels = np.empty((len(files), 3, config.image_size, config.image_size), dtype=np.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the interpreter lock
        decoded = pool.map(lambda file: read_picture(file, config.image_size), files)
        for row, picture in enumerate(track(decoded, "decoding pictures", total=len(files))):
            pixels[row] = picture
    cached.parent.mkdir(parents=True, exist_ok=True)
    partial = cached.with_suffix(f".{os.getpid()}.part")
    with partial.open("wb") as file:
        np.save(file, pixels)
    partial.replace(cached)
    return pixels
