"""What the sources of picture files have in common: lists of files with their labels -> images, decoded once and cached."""

from __future__ import annotations

import logging
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from experiments.config import PictureSettings, UserError
from experiments.config.wording import counted, named
from experiments.data.broken import find_broken, relative_to
from experiments.data.images import Images
from experiments.data.reading import read_files
from experiments.data.sources.source import Source
from experiments.data.splitting import check_folds, check_sizes, refuse_folds, split
from experiments.files.cache import Files

log = logging.getLogger(__name__)

SPLIT_OF = {  # the names of splits, in lower case
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class Listing:
    """Pictures that are not read yet, each with its label, and perhaps with the number of its group."""

    files: Files
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    groups: tuple[int, ...] = ()


PicturesOf = TypeVar("PicturesOf", bound=PictureSettings)


class PictureSource(Source[PicturesOf, tuple[Listing, ...]]):
    """Reads picture files: (training, test) or (training, validation, test) lists of them, or (all,), of which `test_size`
    are the test set."""

    may_hold_copies = True

    @property
    @abstractmethod
    def root(self) -> Path:
        """The folder that the names of the pictures are relative to."""

    def files(self, listing: tuple[Listing, ...]) -> tuple[str, ...]:
        return tuple(path for part in listing for path in part.files.paths)

    def read(self, listing: tuple[Listing, ...], seed: int) -> tuple[Images, ...]:
        check_sizes(self.settings, *(len(part.labels) for part in listing))
        self._check_folds(listing)
        images: list[Images] = []
        problems: list[str] = []
        for part in self._usable(listing):
            try:
                images.append(self.read_part(part))
            except UserError as error:  # broken pictures of the other splits are reported as well
                problems.append(str(error))
        if problems:
            raise UserError("\n".join(problems))
        first, *others = images
        _check_range(self.root, first)
        if others:
            return first, *others
        how = "random" if self.settings.split == "random" else "stratified"
        train, test = split(first, self.settings.test_size, how, seed, "data.test_size")
        return first[train], first[test]

    def _check_folds(self, listing: tuple[Listing, ...]) -> None:
        """Refuse folds that are not possible, before the pictures are decoded."""
        if len(listing) == 3:
            refuse_folds(self.settings.folds)
        elif self.settings.folds is not None:
            check_folds(np.bincount(listing[0].labels), listing[0].classes, self.settings.folds)

    def read_list(self, listing: Listing) -> Images:
        """The pictures of one list, of any number of classes."""
        (usable,) = self._usable((listing,))
        return self.read_part(usable)

    def read_part(self, listing: Listing) -> Images:
        pixels = read_files(listing.files, self.root, self.settings.decoding, self.settings.cache)
        groups = np.array(listing.groups, dtype=np.int64) if listing.groups else None
        labels = np.array(listing.labels, dtype=np.int64)
        return Images(pixels, labels, listing.classes, groups=groups)

    def _usable(self, listing: tuple[Listing, ...]) -> tuple[Listing, ...]:
        """The lists without broken pictures, if these are to be left out.

        Raises:
            UserError: no picture of a class is left to train on, or none of a split.
        """
        if not self.settings.skip_broken:
            return listing
        broken = [find_broken(part.files, self.settings.cache) for part in listing]
        usable = tuple(_without(part, found) for part, found in zip(listing, broken))
        self.skipped = tuple(relative_to(str(self.root), problem) for found in broken for problem in found.values())
        if not self.skipped:
            return listing
        files = counted(len(self.skipped), "broken picture")
        names = named([problem.partition(": ")[0] for problem in self.skipped])
        log.warning("%s: %s left out: %s", self.root, files, names)
        first = {listing[0].classes[label] for label in set(listing[0].labels) - set(usable[0].labels)}
        if first:
            raise UserError(f"{self.root}: all pictures of {named(sorted(first))} are broken: {self.skipped[0]}")
        if not all(part.labels for part in usable):
            raise UserError(f"{self.root}: all pictures of a split are broken: {self.skipped[-1]}")
        return usable


def _without(listing: Listing, broken: dict[int, str]) -> Listing:
    kept = [index for index in range(len(listing.labels)) if index not in broken]
    if len(kept) == len(listing.labels):
        return listing
    files = Files.snapshot(listing.files.paths[index] for index in kept)
    labels, groups = (tuple(each[index] for index in kept if each) for each in (listing.labels, listing.groups))
    return Listing(files, labels, listing.classes, groups)


def _check_range(root: Path, images: Images) -> None:
    """Warn of pictures that are nearly black, or of one grey; healthy ones are known after the first chunk."""
    low, high = 255, 0
    for chunk in images.chunks():
        low, high = min(low, int(chunk.min())), max(high, int(chunk.max()))
        if high - low > 25:
            return
    log.warning(
        "%s: the pictures use less than a tenth of the range, only %s to %s of 255; if their files hold values of 10 or 12 "
        "bits as if they were of 16, scale them first",
        root,
        low,
        high,
    )
