"""A folder of pictures a class -> images, decoded once and kept in a cache."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.progress import track

from experiments.config import ImageFolder, UserError
from experiments.data.images import Images
from experiments.data.pictures import SUFFIXES, pictures_in, read_picture
from experiments.data.splitting import split


def load(config: ImageFolder, seed: int) -> tuple[Images, Images]:
    """(training, test) from `root/train` and `root/test`, or from `root` with `test_size` of it held out.

    Raises:
        UserError: where there are no pictures, one is broken, or `test/` has a class that `train/` lacks.
    """
    root = Path(config.root)
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


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))


def _read(folder: Path, classes: tuple[str, ...], config: ImageFolder) -> Images:
    files = [(file, label) for label, name in enumerate(classes) for file in pictures_in(folder / name)]
    if not files:
        raise UserError(f"{folder}: its folders hold no pictures ({', '.join(sorted(SUFFIXES))})")
    labels = np.array([label for _, label in files], dtype=np.int64)
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
