"""One folder of pictures per class -> images, decoded once and cached."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from experiments.config import ImageFolderSettings, UserError
from experiments.config.splits import SPLITS
from experiments.config.wording import counted
from experiments.data.decoding import decoder, read_pictures, refuse
from experiments.data.finding import Finding
from experiments.data.images import Images
from experiments.data.pixels import Pixels, images_per_chunk
from experiments.data.prefetch import prefetch
from experiments.data.sources.source import Source
from experiments.data.splitting import check_sizes, split
from experiments.files.cache import Files, cached
from experiments.files.limits import usable_cpus
from experiments.files.verified import Chunks

log = logging.getLogger(__name__)

Folders = Mapping[str, Sequence[Path]]  # of classes or splits, by their names


@dataclass(frozen=True)
class Listing:
    """Pictures that are not read yet, each with its label."""

    files: Files
    labels: tuple[int, ...]
    classes: tuple[str, ...]


SPLIT_OF = {  # the names of folders, in lower case, that are splits and not classes
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class ImageFolder(Source[ImageFolderSettings, tuple[Listing, ...]]):
    """The pictures in ROOT/train/CLASS, ROOT/test/CLASS and perhaps ROOT/validation/CLASS, or in ROOT/CLASS, of which
    `test_size` are the test set."""

    may_hold_copies = True

    def listing(self) -> tuple[Listing, ...]:
        """(training, test) or (training, validation, test) pictures, or (all,) if the folders at the root are classes.

        Raises:
            UserError: if there are no pictures, a folder cannot be read, or a split has a class that the training set lacks.
        """
        root, finding = self._root(), Finding()
        train, *held_out = self._parts(root, finding)
        folders = finding.folders(train)
        finding.check()
        if len(folders) < 2:
            raise UserError(
                f"{train}: must contain at least two folders of pictures, one per class; {_content(train, folders)}"
            )
        classes = tuple(folders)
        listings = [_list_classes(train, [folders], classes, finding)]
        for part in held_out:
            folders = finding.folders(part)
            if unknown := sorted(set(folders) - set(classes)):
                raise UserError(f"{part}: {', '.join(unknown)} has no folder of the same name in {train}")
            listings.append(_list_classes(part, [folders], classes, finding, partly=True))
        finding.tell(root)
        return tuple(listings)

    def read(self, listing: tuple[Listing, ...], seed: int) -> tuple[Images, ...]:
        check_sizes(self.settings, *(len(part.labels) for part in listing))
        images: list[Images] = []
        problems: list[str] = []
        for part in listing:
            try:
                images.append(self._read(part))
            except UserError as error:  # broken pictures of the other splits are reported as well
                problems.append(str(error))
        if problems:
            raise UserError("\n".join(problems))
        first, *others = images
        _check_range(self._root(), first)
        if others:
            return first, *others
        how = "random" if self.settings.split == "random" else "stratified"
        train, test = split(first, self.settings.test_size, how, seed, "data.test_size")
        return first[train], first[test]

    def read_all(self) -> Images:
        """Every picture; any number of classes."""
        root, finding = self._root(), Finding()
        parts = [finding.folders(part) for part in self._parts(root, finding)]
        classes = tuple(sorted({name for folders in parts for name in folders}))
        listing = _list_classes(root, parts, classes, finding, partly=True)
        finding.tell(root)
        return self._read(listing)

    def _root(self) -> Path:
        root = Path(os.path.expanduser(self.settings.root))  # noqa: PTH111 - as in the check of the settings
        if not os.path.isdir(root):  # noqa: PTH112
            raise UserError(f"data.root={root}: there is no such folder")
        return root

    def _parts(self, root: Path, finding: Finding) -> list[Path]:
        """The folders that hold the folders of the classes: [root], or those of the splits in their order.

        Raises:
            UserError: the layout is unclear, or a split is missing.
        """
        if self.settings.layout == "classes":
            return [root]
        folders = finding.folders(root)
        finding.check()
        splits = [name for name in folders if name.lower() in SPLIT_OF]
        others = [name for name in folders if name not in splits]
        if self.settings.layout == "auto":
            if not splits:
                return [root]
            _check_auto(root, folders, splits, others)
        elif others:
            log.warning("%s: %s ignored, because data.layout=splits", root, ", ".join(others))
        found: dict[str, Path] = {}
        for name in splits:
            part = SPLIT_OF[name.lower()]
            if part in found:
                raise UserError(f"{root}: {found[part].name} and {name} are both the {part} set; keep one")
            found[part] = folders[name][0]
        if missing := {"train", "test"} - found.keys():
            raise UserError(
                f"{root}: must contain both train/ and test/, or one folder per class; it contains {', '.join(folders)}, "
                f"but no {' and no '.join(sorted(missing))} folder"
            )
        return [found[name] for name in SPLITS if name in found]

    def _read(self, listing: Listing) -> Images:
        pixels = _pixels(listing.files, self._root(), self.settings.image_size, self.settings.cache)
        return Images(pixels, np.array(listing.labels, dtype=np.int64), listing.classes)


def _content(root: Path, folders: Folders) -> str:
    """What is in a folder with fewer than two classes, and where the classes may be instead."""
    inside = Finding()
    if not folders:
        pictures = len(inside.pictures(root))
        hint = f", but {counted(pictures, 'picture')}: is the folder above it meant?" if pictures else ""
        return f"it contains no folders{hint}"
    ((only, (path, *_)),) = folders.items()
    hint = f": is data.root={path} meant?" if len(inside.folders(path)) > 1 else ""
    return f"it contains only {only}{hint}"


def _check_auto(root: Path, folders: Folders, splits: list[str], others: list[str]) -> None:
    """Check that folders with names of splits are clearly splits, or clearly classes."""
    of_classes = "if all of them are classes, set data.layout=classes"
    if others:
        enough = {"train", "test"} <= {SPLIT_OF[name.lower()] for name in splits}
        of_splits = f"; to use only {', '.join(splits)}, as splits, set data.layout=splits" if enough else ""
        raise UserError(
            f"{root}: {', '.join(splits)} may be splits or classes, beside {', '.join(others)}; {of_classes}{of_splits}"
        )
    if not any(Finding().folders(path) for name in splits for path in folders[name]):
        raise UserError(
            f"{root}: {', '.join(splits)} must be splits, but there are no folders of classes in them; {of_classes}"
        )


def _list_classes(
    root: Path, parts: Sequence[Folders], classes: tuple[str, ...], finding: Finding, partly: bool = False
) -> Listing:
    """The pictures of all classes, part by part; with `partly`, some classes may have none.

    Raises:
        UserError: there are no pictures, or something cannot be read.
    """
    paths: list[str] = []
    labels: list[int] = []
    for folders in parts:
        for label, name in enumerate(classes):
            pictures = [picture for folder in folders.get(name, ()) for picture in finding.pictures(folder)]
            paths += pictures
            labels += [label] * len(pictures)
    finding.check()
    if not paths:
        raise UserError(f"{root}: must contain one folder of pictures per class; there are no pictures in any folder")
    empty = [name for label, name in enumerate(classes) if label not in set(labels)] if not partly else []
    if empty:
        raise UserError(f"{root}: there are no pictures in {', '.join(empty)}")
    return Listing(Files.snapshot(paths), tuple(labels), classes)


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


@functools.lru_cache(maxsize=3)  # of each split: another split of the same pictures need not read them again
def _pixels(files: Files, root: Path, image_size: int, cache: str) -> Pixels:
    """Pixels (N, 3, image_size, image_size), from the cache if no file has changed since; named relative to `root`."""
    key = ("image_folder", decoder(), image_size, files.digest)
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
    threads = usable_cpus()  # Pillow releases the interpreter lock

    def chunks() -> Iterator[np.ndarray]:
        problems: list[str] = []
        read = functools.partial(read_pictures, image_size=image_size)
        results = prefetch(read, parts, threads, 2 * threads)
        for pixels, found in track(results, "decoding pictures", total=len(parts)):
            problems += found
            yield pixels
        refuse(problems)

    return Chunks((len(paths), *shape), chunks())
