"""Source -> splits, with pictures of one's own added to the training set."""

from __future__ import annotations

import dataclasses
import functools
import logging
from pathlib import Path

import numpy as np

from experiments.config import CifarSettings, DataSettings, ExtraImages, ImageFolderSettings, UserError
from experiments.data.decoding import pictures_in, read_picture
from experiments.data.images import Images, Splits, joined
from experiments.data.sources import cifar, digits, image_folder
from experiments.data.splitting import split
from experiments.files.cache import Files

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Own:
    """Pictures of one's own that are not read yet, each with its label."""

    files: Files
    labels: tuple[str, ...]


def load_splits(config: DataSettings, seed: int) -> Splits:
    """The images that `config` names, split and complete: those of an earlier call where no file has changed since.

    Raises:
        UserError: where data is missing, broken, or too small for the split.
    """
    return _loaded(config, seed, _found(config), _own(config.extra))


def _found(config: DataSettings) -> Files | tuple[image_folder.Listing, ...]:
    """What there is to read now; nothing is read yet."""
    if isinstance(config, CifarSettings):
        return cifar.list_files(config)
    return image_folder.list_pictures(config) if isinstance(config, ImageFolderSettings) else ()


@functools.lru_cache(maxsize=4)  # runs that follow each other in one process often differ in all but the data
def _loaded(config: DataSettings, seed: int, found: Files | tuple[image_folder.Listing, ...], own: Own) -> Splits:
    train, test = _read(config, seed, found)
    kept, held_out = split(train.labels, config.validation_size, config.split, seed, "data.validation_size")
    splits = Splits(train[kept], train[held_out], test)
    if isinstance(config, ImageFolderSettings):
        splits = _apart(splits)
    return _with_own(splits, own, config.image_size) if own.labels else splits


def _read(config: DataSettings, seed: int, found: Files | tuple[image_folder.Listing, ...]) -> tuple[Images, Images]:
    """Training images (validation is still among them) and test images."""
    if isinstance(found, Files):
        assert isinstance(config, CifarSettings)
        return cifar.read(config, found)
    return (
        image_folder.read(config, seed, found)
        if isinstance(config, ImageFolderSettings)
        else digits.read(config.image_size)
    )


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


def _own(extra: tuple[ExtraImages, ...]) -> Own:
    labelled = [(path, entry.label) for entry in extra for path in _pictures(Path(entry.path).expanduser())]
    return Own(Files.now(path for path, _ in labelled), tuple(label for _, label in labelled))


def _with_own(splits: Splits, own: Own, image_size: int) -> Splits:
    """Splits with one's own pictures in the training set; new labels become new classes, behind the known ones."""
    new = dict.fromkeys(label for label in own.labels if label not in splits.classes)
    classes = splits.classes + tuple(new)
    pixels = np.stack([read_picture(Path(path), image_size) for path in own.files.paths])
    labels = np.array([classes.index(label) for label in own.labels], dtype=np.int64)
    added = Images(pixels, labels, classes)

    held_out = np.concatenate([splits.validation.fingerprints(), splits.test.fingerprints()])
    shared = np.isin(added.fingerprints(), held_out)
    if shared.any():
        names = ", ".join(path for path, hit in zip(own.files.paths, shared) if hit)
        raise UserError(
            f"data.extra: {names} is also in the validation or test set; a picture must be in one of them only"
        )
    train, validation, test = (
        dataclasses.replace(images, classes=classes) for images in (splits.train, splits.validation, splits.test)
    )
    return Splits(joined([train, added]), validation, test)


def _pictures(path: Path) -> list[Path]:
    if path.is_dir():
        found = pictures_in(path)
        if not found:
            raise UserError(f"data.extra: {path} holds no pictures")
        return found
    if not path.exists():
        raise UserError(f"data.extra: there is no file or folder {path}")
    return [path]
