"""Source -> splits, with pictures of one's own added to the training set."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from experiments.config import Cifar, Data, Extra, ImageFolder, UserError
from experiments.data import cifar, digits, folder
from experiments.data.images import Images, Splits
from experiments.data.pictures import pictures_in, read_picture
from experiments.data.splitting import split

log = logging.getLogger(__name__)


def load(config: Data, seed: int) -> Splits:
    """The images that `config` names, split and complete.

    Raises:
        UserError: where data is missing, broken, or too small for the split.
    """
    train, test = _read(config, seed)
    kept, held_out = split(train.labels, config.validation_size, config.split, seed, "data.validation_size")
    splits = Splits(train[kept], train[held_out], test)
    if isinstance(config, ImageFolder):
        splits = _apart(splits)
    return _with_extra(splits, config.extra, config.image_size) if config.extra else splits


def _read(config: Data, seed: int) -> tuple[Images, Images]:
    """Training images (validation is still among them) and test images."""
    if isinstance(config, Cifar):
        return cifar.load(config)
    if isinstance(config, ImageFolder):
        return folder.load(config, seed)
    return digits.load(config.image_size)


def _apart(splits: Splits) -> Splits:
    """Splits without the copies of a picture: one that is tested does not train or validate, nor one that validates train."""
    train, validation, test = (images.fingerprints() for images in (splits.train, splits.validation, splits.test))
    trains = ~np.isin(train, np.concatenate([validation, test]))
    validates = ~np.isin(validation, test)
    dropped = (~trains).sum() + (~validates).sum()
    if dropped:
        log.warning(
            "%s pictures are copies of others in the validation or test set: left out of training", f"{dropped:,}"
        )
    if not (trains.any() and validates.any()):
        raise UserError("data: without copies of the same pictures nothing is left to train on, or to validate with")
    return Splits(splits.train[trains], splits.validation[validates], splits.test) if dropped else splits


def _with_extra(splits: Splits, extra: tuple[Extra, ...], image_size: int) -> Splits:
    """Splits with one's own pictures in the training set; new labels become new classes, behind the known ones."""
    labelled = [(path, entry.label) for entry in extra for path in _pictures(Path(entry.path).expanduser())]
    new = dict.fromkeys(label for _, label in labelled if label not in splits.classes)
    classes = splits.classes + tuple(new)
    pixels = np.stack([read_picture(path, image_size) for path, _ in labelled])
    labels = np.array([classes.index(label) for _, label in labelled], dtype=np.int64)
    added = Images(pixels, labels, classes)

    held_out = np.concatenate([splits.validation.fingerprints(), splits.test.fingerprints()])
    shared = np.isin(added.fingerprints(), held_out)
    if shared.any():
        names = ", ".join(str(path) for (path, _), hit in zip(labelled, shared) if hit)
        raise UserError(
            f"data.extra: {names} is also in the validation or test set; a picture must be in one of them only"
        )
    train = Images(
        np.concatenate([splits.train.pixels, pixels]), np.concatenate([splits.train.labels, labels]), classes
    )
    renamed = (Images(images.pixels, images.labels, classes) for images in (splits.validation, splits.test))
    return Splits(train, *renamed)


def _pictures(path: Path) -> list[Path]:
    if path.is_dir():
        found = pictures_in(path)
        if not found:
            raise UserError(f"data.extra: {path} holds no pictures")
        return found
    if not path.exists():
        raise UserError(f"data.extra: there is no file or folder {path}")
    return [path]
