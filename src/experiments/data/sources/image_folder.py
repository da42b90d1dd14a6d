"""One folder of pictures per class -> images."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.config import ImageFolderSettings, UserError
from experiments.config.splits import SPLITS
from experiments.config.wording import counted
from experiments.data.finding import Finding, tell_once
from experiments.data.images import Images
from experiments.data.sources.class_names import readable
from experiments.data.sources.pictures import SPLIT_OF, Listing, PictureSource
from experiments.files.cache import Files

log = logging.getLogger(__name__)

Folders = Mapping[str, Sequence[Path]]  # of classes or splits, by their names


class ImageFolder(PictureSource[ImageFolderSettings]):
    """The pictures in ROOT/train/CLASS, ROOT/test/CLASS and perhaps ROOT/validation/CLASS, or in ROOT/CLASS, of which
    `test_size` are the test set. With ROOT/train/CLASS and ROOT/validation/CLASS only, the latter are the test set."""

    @property
    def root(self) -> Path:
        root = self.settings.folder
        if not os.path.isdir(root):  # noqa: PTH112
            raise UserError(f"data.root={root}: there is no such folder")
        return root

    def listing(self) -> tuple[Listing, ...]:
        """(training, test) or (training, validation, test) pictures, or (all,) if the folders at the root are classes.

        Raises:
            UserError: if there are no pictures, a folder cannot be read, or a split has a class that the training set lacks.
        """
        root, finding = self.root, Finding()
        train, *held_out = self._parts(root, finding)
        folders = finding.folders(train)
        finding.check()
        if len(folders) < 2:
            raise UserError(
                f"{train}: must contain at least two folders of pictures, one per class; {_content(train, folders)}"
            )
        classes = tuple(folders)
        names = readable(classes, self.settings.class_names)
        listings = [_list_classes(train, [folders], classes, finding)]
        for part in held_out:
            folders = finding.folders(part)
            if unknown := sorted(set(folders) - set(classes)):
                raise UserError(f"{part}: {', '.join(unknown)} has no folder of the same name in {train}")
            listings.append(_list_classes(part, [folders], classes, finding, partly=True))
        finding.tell(root)
        return tuple(dataclasses.replace(listing, classes=names) for listing in listings)

    def read_all(self) -> Images:
        """Every picture; any number of classes."""
        root, finding = self.root, Finding()
        parts = [finding.folders(part) for part in self._parts(root, finding)]
        classes = tuple(sorted({name for folders in parts for name in folders}))
        listing = _list_classes(root, parts, classes, finding, partly=True)
        finding.tell(root)
        return self.read_list(dataclasses.replace(listing, classes=readable(classes, self.settings.class_names)))

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
        _take_validation_as_test(root, found, finding)
        if missing := {"train", "test"} - found.keys():
            raise UserError(
                f"{root}: must contain both train/ and test/ (or val/), or one folder per class; it contains {', '.join(folders)}, "
                f"but no {' and no '.join(sorted(missing))} folder"
            )
        return [found[name] for name in SPLITS if name in found]


def _take_validation_as_test(root: Path, found: dict[str, Path], finding: Finding) -> None:
    """Without a test folder, or with one that has no folders of classes, use the validation folder: ImageNet's test set has no labels."""
    if "validation" not in found or ("test" in found and finding.folders(found["test"])):
        return
    why = f"{found['test'].name}/ has no folders of classes" if "test" in found else "there is no test/"
    found["test"] = found.pop("validation")
    tell_once(f"{root}: {found['test'].name}/ is the test set, because {why}; the validation set is taken from train/")


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
        parts = {SPLIT_OF[name.lower()] for name in splits}
        enough = "train" in parts and len(parts) > 1
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
