"""Source -> splits, with extra images added to the training set."""

from __future__ import annotations

import functools
import logging
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config import DataSettings, ExtraImages, UserError
from experiments.config.targets import locate
from experiments.config.wording import counted
from experiments.data.decoding import pictures_in, read_picture
from experiments.data.images import Images, Splits, joined
from experiments.data.sources import Source
from experiments.data.splitting import split
from experiments.files.cache import Files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExtraListing:
    """Extra pictures that are not read yet, each with its label."""

    files: Files
    labels: tuple[str, ...]


def load_splits(config: DataSettings, seed: int) -> Splits:
    """The images of the configured source, split; the same object as in an earlier call if no file has changed since.

    Raises:
        UserError: if data is missing, broken, or too small for the split.
    """
    return _load(config, seed, _source(config).listing(), _list_extra(config.extra))


def load_all(config: DataSettings, seed: int) -> Images:
    """Every image of the configured source, for an evaluation.

    Raises:
        UserError: as `load_splits`.
    """
    images = _source(config).read_all()
    return joined(list(load_splits(config, seed).parts().values())) if images is None else images


def _source(config: DataSettings) -> Source[Any, Any]:
    source_class = locate("data", config._target_, Source, "experiments.data.Source")
    if missing := getattr(source_class, "__abstractmethods__", ()):
        raise UserError(f"data._target_={config._target_}: the class lacks {', '.join(sorted(missing))}")
    return source_class(config)


@functools.lru_cache(maxsize=4)  # consecutive runs of a process often differ in everything but the data
def _load(config: DataSettings, seed: int, listing: Hashable, extra: ExtraListing) -> Splits:
    source = _source(config)
    train, test = source.read(listing, seed)
    _check_read(config, train, test)
    training, validation = split(train.labels, config.validation_size, config.split, seed, "data.validation_size")
    splits = Splits(train[training], train[validation], test)
    if source.may_hold_copies:
        splits = drop_duplicates_across_splits(splits)
    return _add_extra(splits, extra, config.image_size) if extra.labels else splits


def _check_read(config: DataSettings, train: Images, test: Images) -> None:
    size = config.image_size
    for name, images in (("training", train), ("test", test)):
        if images.shape[2:] != (size, size):
            raise UserError(
                f"data.image_size={size}: {config._target_} returns {name} images of {images.shape[2]}x{images.shape[3]}"
            )
    if train.classes != test.classes:
        raise UserError(f"data._target_={config._target_}: training and test images must have the same class names")


def drop_duplicates_across_splits(splits: Splits) -> Splits:
    """Splits without shared images: copies of test images are removed from training and validation, those of validation images from training.

    Raises:
        UserError: if nothing is left to train on, or to validate on.
    """
    train, validation, test = (images.pixel_hashes() for images in splits.parts().values())
    keep_train = ~np.isin(train, np.concatenate([validation, test]))
    keep_validation = ~np.isin(validation, test)
    dropped = (~keep_train).sum() + (~keep_validation).sum()
    if not (keep_train.any() and keep_validation.any()):
        raise UserError("data: without duplicates, no image is left to train on, or to validate on")
    if not dropped:
        return splits
    found = counted(dropped, "image is a duplicate", "images are duplicates")
    log.warning("%s of validation or test images: not used for training", found)
    return Splits(splits.train[keep_train], splits.validation[keep_validation], splits.test)


def _list_extra(extra: tuple[ExtraImages, ...]) -> ExtraListing:
    labelled = [(path, entry.label) for entry in extra for path in _pictures(Path(entry.path).expanduser())]
    return ExtraListing(Files.snapshot(path for path, _ in labelled), tuple(label for _, label in labelled))


def _add_extra(splits: Splits, extra: ExtraListing, image_size: int) -> Splits:
    """Splits with extra images in the training set; new labels become new classes after the known ones."""
    new = dict.fromkeys(label for label in extra.labels if label not in splits.classes)
    classes = splits.classes + tuple(new)
    pixels = np.stack([read_picture(Path(path), image_size) for path in extra.files.paths])
    labels = np.array([classes.index(label) for label in extra.labels], dtype=np.int64)
    added = Images(pixels, labels, classes)

    held_out = np.concatenate([splits.validation.pixel_hashes(), splits.test.pixel_hashes()])
    shared = np.isin(added.pixel_hashes(), held_out)
    if shared.any():
        names = ", ".join(path for path, hit in zip(extra.files.paths, shared) if hit)
        raise UserError(
            f"data.extra: {names} is also in the validation or test set; an image must be in one split only"
        )
    train, validation, test = (
        Images(images.source, images.labels, classes, images.indices) for images in splits.parts().values()
    )
    return Splits(joined([train, added]), validation, test)


def _pictures(path: Path) -> list[Path]:
    if path.is_dir():
        pictures = pictures_in(path)
        if not pictures:
            raise UserError(f"data.extra: there are no pictures in {path}")
        return pictures
    if not path.exists():
        raise UserError(f"data.extra: there is no file or folder {path}")
    return [path]
