"""Source -> splits, with extra images added to the training set."""

from __future__ import annotations

import dataclasses
import functools
import logging
import unicodedata
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config import DataSettings, ExtraImages, UserError
from experiments.config.data import Decoding
from experiments.config.targets import locate
from experiments.config.wording import counted, named
from experiments.data.corrections import Correction, correct_parts, corrected, read_corrections
from experiments.data.finding import pictures_in
from experiments.data.images import Images, Splits, joined
from experiments.data.reading import read_few
from experiments.data.sources import Source
from experiments.data.splitting import fold, refuse_folds, split
from experiments.files.cache import Files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExtraListing:
    """Extra pictures that are not read yet, each with its label."""

    files: Files
    labels: tuple[str, ...]


def load_splits(config: DataSettings, keep_copies: bool = False) -> Splits:
    """The images of the configured source, split; the same object as in an earlier call if no file has changed since.

    Args:
        keep_copies: the splits may share images, as they never do for a run; to look for them.

    Raises:
        UserError: if data is missing, broken, or too small for the split.
    """
    corrections = read_corrections(config)
    return _load(config, _source(config).listing(), _list_extra(config.extra), corrections, keep_copies)


def load_all(config: DataSettings) -> Images:
    """Every image of the configured source, and the extra images, for an evaluation.

    Raises:
        UserError: as `load_splits`.
    """
    source = _source(config)
    images = source.read_all()
    if images is None:
        return joined(list(load_splits(config).parts().values()))
    (images,) = correct_parts([images], read_corrections(config), config, source.skipped)
    extra = _list_extra(config.extra)
    return joined(_with_extra([images], extra, config.decoding)) if extra.labels else images


def list_files(config: DataSettings) -> tuple[str, ...]:
    """The paths of the picture files of the configured source, also of broken ones; none if it reads other files.

    Raises:
        UserError: if data is missing.
    """
    source = _source(config)
    return source.files(source.listing())


def _source(config: DataSettings) -> Source[Any, Any]:
    source_class = locate("data", config._target_, Source, "experiments.data.Source")
    if missing := getattr(source_class, "__abstractmethods__", ()):
        raise UserError(f"data._target_={config._target_}: the class lacks {', '.join(sorted(missing))}")
    return source_class(config)


@functools.lru_cache(maxsize=4)  # consecutive runs of a process often differ in everything but the data
def _load(
    config: DataSettings,
    listing: Hashable,
    extra: ExtraListing,
    corrections: tuple[Correction, ...],
    keep_copies: bool,
) -> Splits:
    source = _source(config)
    train, *given, test = source.read(listing, config.seed)
    _check_read(config, train, *given, test)
    if given:
        refuse_folds(config.folds)
        splits = Splits(train, given[0], test, skipped=source.skipped, drawn=False)
    else:
        training, validation = _divide(config, train)
        splits = Splits(train[training], train[validation], test, skipped=source.skipped)
    splits = corrected(splits, corrections, config)
    if source.may_hold_copies and not keep_copies:
        splits = drop_duplicates_across_splits(splits)
    return _add_extra(splits, extra, config.decoding) if extra.labels else splits


def _divide(config: DataSettings, train: Images) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images to train on, and of those for validation."""
    if config.folds is not None and config.fold is not None:
        return fold(train, config.folds, config.fold, config.seed)
    return split(train, config.validation_size, config.split, config.seed, "data.validation_size")


def _check_read(config: DataSettings, *parts: Images) -> None:
    size = config.image_size
    for images in parts:
        if images.shape[2:] != (size, size):
            raise UserError(
                f"data.image_size={size}: {config._target_} returns images of {images.shape[2]}x{images.shape[3]}"
            )
    if len({images.classes for images in parts}) > 1:
        raise UserError(f"data._target_={config._target_}: the images of all splits must have the same class names")


def drop_duplicates_across_splits(splits: Splits) -> Splits:
    """Splits without shared images: copies of test images are removed from training and validation, those of validation images from training.

    Raises:
        UserError: if nothing is left to train on, or to validate on.
    """
    train, validation, test = (images.pixel_hashes() for images in splits.parts().values())
    keep_train = ~np.isin(train, np.concatenate([validation, test]))
    keep_validation = ~np.isin(validation, test)
    dropped = [*splits.train[~keep_train].names, *splits.validation[~keep_validation].names]
    if not (keep_train.any() and keep_validation.any()):
        raise UserError("data: without duplicates, no image is left to train on, or to validate on")
    if not dropped:
        return splits
    found = counted(len(dropped), "copy", "copies")
    log.warning("%s of validation or test images: not used for training (%s)", found, named(dropped))
    return dataclasses.replace(splits, train=splits.train[keep_train], validation=splits.validation[keep_validation])


def _list_extra(extra: tuple[ExtraImages, ...]) -> ExtraListing:
    labelled = [
        (path, unicodedata.normalize("NFC", entry.label))
        for entry in extra
        for path in _pictures(Path(entry.path).expanduser())
    ]
    return ExtraListing(Files.snapshot(path for path, _ in labelled), tuple(label for _, label in labelled))


def _add_extra(splits: Splits, extra: ExtraListing, decoding: Decoding) -> Splits:
    """Splits with extra images in the training set."""
    *parts, added = _with_extra(list(splits.parts().values()), extra, decoding)
    train, validation, test = parts
    held_out = np.concatenate([validation.pixel_hashes(), test.pixel_hashes()])
    shared = np.isin(added.pixel_hashes(), held_out)
    if shared.any():
        names = ", ".join(path for path, hit in zip(extra.files.paths, shared) if hit)
        raise UserError(
            f"data.extra: {names} is also in the validation or test set; an image must be in one split only"
        )
    return dataclasses.replace(splits, train=joined([train, added]), validation=validation, test=test)


def _with_extra(parts: list[Images], extra: ExtraListing, decoding: Decoding) -> list[Images]:
    """The parts, and the extra images as one more; new labels become new classes of all, after the known ones."""
    known = parts[0].classes
    classes = known + tuple(dict.fromkeys(label for label in extra.labels if label not in known))
    pixels = read_few(extra.files, decoding, parts[0].source.on_the_fly)
    labels = np.array([classes.index(label) for label in extra.labels], dtype=np.int64)
    added = Images(pixels, labels, classes)
    return [*(Images(part.source, part.labels, classes, part.indices) for part in parts), added]


def _pictures(path: Path) -> list[Path]:
    if path.is_dir():
        pictures = pictures_in(path)
        if not pictures:
            raise UserError(f"data.extra: there are no pictures in {path}")
        return pictures
    if not path.exists():
        raise UserError(f"data.extra: there is no file or folder {path}")
    return [path]
