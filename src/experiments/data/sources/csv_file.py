"""A CSV file with a line per picture -> images, decoded once and cached.

    path,label,split,group
    cats/1.jpg,cat,train,anna
    dogs/7.jpg,dog,test,bert

The columns split and group may be missing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.config import CsvSettings, UserError
from experiments.config.splits import SPLITS
from experiments.config.wording import counted
from experiments.data.decoding import list_problems
from experiments.data.finding import tell_once
from experiments.data.images import Images
from experiments.data.sources.class_names import readable
from experiments.data.sources.pictures import Listing, PictureSource
from experiments.data.sources.table import Row, find_problems, read_table
from experiments.files.cache import Files


@dataclass(frozen=True)
class TableListing(Listing):
    """The pictures of a table; `table` is the SHA-256 of its file."""

    table: str = ""


class CsvFile(PictureSource[CsvSettings]):
    """The pictures that a CSV file names, with their labels, and perhaps with their splits and groups."""

    @property
    def root(self) -> Path:
        return self.settings.folder

    @property
    def _file(self) -> Path:
        return Path(os.path.expanduser(self.settings.file))  # noqa: PTH111

    def listing(self) -> tuple[Listing, ...]:
        """(training, test) or (training, validation, test) pictures, or (all,) without a column of splits.

        Raises:
            UserError: the file cannot be read, or lines of it cannot be used: all of them are listed.
        """
        rows, digest = self._rows()
        parts = {name: [row for row in rows if row.split == name] for name in SPLITS}
        if not any(parts.values()):
            parts = {"train": rows}
        self._check_parts(parts)
        classes = _in_order({row.label for row in parts["train"]})
        if len(classes) < 2:
            raise UserError(
                f"{self._file}: all pictures to train on are of the class {classes[0]}; there must be at least two classes"
            )
        self._check_groups(parts)
        return tuple(self._list(part, classes, digest) for part in parts.values() if part)

    def read_all(self) -> Images:
        """Every picture; any number of classes."""
        rows, digest = self._rows()
        return self.read_list(self._list(rows, _in_order({row.label for row in rows}), digest))

    def _rows(self) -> tuple[list[Row], str]:
        """The lines of the file that name a picture, and the SHA-256 of the file."""
        try:
            content = self._file.read_bytes()
        except OSError as error:
            raise UserError(f"data.file={self._file}: cannot be read ({error.strerror})") from None
        rows = read_table(content, self.settings, str(self.root))
        if not rows:
            raise UserError(f"{self._file}: names no pictures")
        self._refuse(find_problems(rows, str(self.root)))
        return rows, hashlib.sha256(content).hexdigest()

    def _refuse(self, problems: Sequence[str]) -> None:
        if problems:
            raise UserError(list_problems(f"{self._file}: {counted(len(problems), 'line')}", problems))

    def _check_parts(self, parts: dict[str, list[Row]]) -> None:
        """Check that there are pictures to train on, of each class; without a test set, take the validation set as such."""
        if not parts["train"]:
            raise UserError(f"{self._file}: no picture has {self.settings.split_column}=train")
        known = {row.label for row in parts["train"]}
        self._refuse(
            [
                f"line {row.line}: no picture of {row.label} is in the training set"
                for name, part in parts.items()
                for row in part
                if row.label not in known
            ]
        )
        if parts.get("validation") and not parts["test"]:
            parts["test"] = parts.pop("validation")
            tell_once(
                f"{self._file}: the pictures of validation are the test set, because no picture has "
                f"{self.settings.split_column}=test; the validation set is taken from those of training"
            )

    def _check_groups(self, parts: dict[str, list[Row]]) -> None:
        """Check that no group is in several splits, and, if splits are drawn, that none holds a whole class."""
        column = self.settings.group_column
        split_of: dict[str, Row] = {}
        problems = []
        for row in (row for part in parts.values() for row in part if row.group):
            first = split_of.setdefault(row.group, row)
            if first.split != row.split:
                problems.append(
                    f"line {row.line}: {column}={row.group} is in {row.split}, but on line {first.line} in {first.split}"
                )
        self._refuse(problems)
        drawn = sum(map(bool, parts.values())) < 3 and (self.settings.split == "stratified" or self.settings.folds)
        groups: dict[str, list[Row]] = {}
        for row in parts["train"] if drawn else ():
            groups.setdefault(row.label, []).append(row)
        self._refuse(
            [
                f"line {rows[0].line}: {column}={rows[0].group} holds all {len(rows):,} pictures of {label}, which cannot be in "
                "several splits; add groups, or set data.split=random"
                for label, rows in groups.items()
                if rows[0].group and len(rows) > 1 and len({row.group for row in rows}) == 1
            ]
        )

    def _list(self, rows: Sequence[Row], classes: tuple[str, ...], table: str) -> TableListing:
        numbers: dict[str | int, int] = {}
        names = (row.group or row.line for row in rows)  # a picture without a group is one by itself
        groups = [numbers.setdefault(name, len(numbers)) for name in names] if any(row.group for row in rows) else []
        label_of = {name: label for label, name in enumerate(classes)}
        labels = tuple(label_of[row.label] for row in rows)
        files = Files.snapshot(row.path for row in rows)
        return TableListing(files, labels, readable(classes, self.settings.class_names), tuple(groups), table)


def _in_order(labels: set[str]) -> tuple[str, ...]:
    """The labels in the order of their names, or of their values if all are whole numbers."""
    if all(label.isascii() and label.isdigit() for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))
