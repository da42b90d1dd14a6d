"""Pictures that are left out, and labels that are corrected: the CSV files of `data.exclude` and `data.relabel`.

The splits are drawn before: the other pictures stay where they are.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.config import DataSettings, UserError
from experiments.config.foreign import text_of_cell
from experiments.config.wording import counted, named
from experiments.data.decoding import list_problems
from experiments.data.images import Images, Splits
from experiments.data.sources.table import read_lines

NAMES = ("path", "index")  # columns that name a picture; the first that is there is used


@dataclass(frozen=True)
class Line:
    """A line of a file: its number, from 1, the name of a picture, and its new label (empty where pictures are left out)."""

    number: int
    picture: str
    label: str


@dataclass(frozen=True)
class Correction:
    """What one of the two files says.

    Attributes:
        setting: key and value that name the file, for messages.
    """

    setting: str
    relabels: bool
    lines: tuple[Line, ...]


Place = tuple[int, int]  # which part of the data, and the index in it


def read_corrections(settings: DataSettings) -> tuple[Correction, ...]:
    """The files of data.exclude and data.relabel, if they are set.

    Raises:
        UserError: one cannot be read, or lacks a column.
    """
    files = {"exclude": settings.exclude, "relabel": settings.relabel}
    return tuple(_read(f"data.{key}={file}", file, key == "relabel") for key, file in files.items() if file is not None)


def _read(setting: str, file: str, relabels: bool) -> Correction:
    try:
        content = Path(file).expanduser().read_bytes()
    except (OSError, RuntimeError) as error:
        raise UserError(f"{setting}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    lines = read_lines(content, setting)
    number, header = next(lines, (1, []))
    picture = next((name for name in NAMES if name in header), "")
    missing = [*([] if picture else [" or ".join(NAMES)]), *(["label"] if relabels and "label" not in header else [])]
    if missing:
        there = f"the columns are {', '.join(header)}" if header else "the file is empty"
        raise UserError(f"{setting}: line {number}: there is no column {' and no column '.join(missing)}; {there}")
    rows, problems = [], []
    for number, cells in lines:
        if len(cells) == len(header):
            values = dict(zip(header, cells))
            label = unicodedata.normalize("NFC", values["label"]) if relabels else ""
            rows.append(Line(number, values[picture], label))
        else:
            problems.append(f"line {number}: has {len(cells)} cells, but the first line has {len(header)}")
    _refuse(setting, problems)
    return Correction(setting, relabels, tuple(rows))


def corrected(splits: Splits, corrections: Sequence[Correction], settings: DataSettings) -> Splits:
    """The splits without the pictures that are left out, and with the new labels.

    Raises:
        UserError: a file names a picture or a class that is not there, or too little is left.
    """
    if not corrections:
        return splits
    parts = splits.parts()
    changed = dict(zip(parts, correct_parts(list(parts.values()), corrections, settings, splits.skipped)))
    where = " ".join(correction.setting for correction in corrections)
    if empty := [name for name, images in changed.items() if not len(images)]:
        raise UserError(f"{where}: no image is left in the {empty[0]} set")
    before, after = splits.train.class_counts, changed["train"].class_counts
    if lost := [splits.classes[label] for label in np.flatnonzero((before > 0) & (after == 0))]:
        raise UserError(f"{where}: no image of {named(lost)} is left to train on")
    train, validation, test = changed.values()
    return dataclasses.replace(splits, train=train, validation=validation, test=test)


def correct_parts(
    parts: Sequence[Images], corrections: Sequence[Correction], settings: DataSettings, skipped: Sequence[str] = ()
) -> list[Images]:
    """The same for parts of the data; `skipped` are the broken pictures that were left out already.

    Raises:
        UserError: a file names a picture or a class that is not there.
    """
    places: dict[str, list[Place]] = defaultdict(list)
    for part, images in enumerate(parts):
        for index, name in enumerate(images.names):
            places[name].append((part, index))
    for problem in skipped:
        places.setdefault(problem.partition(": ")[0], [])
    labels = [images.labels.copy() for images in parts]
    kept = [np.ones(len(images), dtype=bool) for images in parts]
    for correction in corrections:
        found = _placed(correction, places, parts[0].classes, settings)
        for (part, index), line in found.items():
            if correction.relabels:
                labels[part][index] = parts[0].classes.index(line.label)
            else:
                kept[part][index] = False
    relabelled = (
        Images(images.source, of_part, images.classes, images.indices, groups=images.groups)
        for images, of_part in zip(parts, labels)
    )
    return [images[np.flatnonzero(keep)] for images, keep in zip(relabelled, kept)]


def _placed(
    correction: Correction, places: dict[str, list[Place]], classes: Sequence[str], settings: DataSettings
) -> dict[Place, Line]:
    """The line of every picture that a file names, with its label as the class is spelled."""
    found: dict[Place, Line] = {}
    problems = []
    for line in correction.lines:
        name = next((name for name in _spellings(line.picture, settings.folder) if name in places), None)
        label = next((text for text in (line.label, text_of_cell(line.label)) if text in classes), line.label)
        reason = _problem(line, name, label, correction.relabels, places, classes)
        for place in places[name] if name and not reason else ():
            first = found.setdefault(place, dataclasses.replace(line, label=label))
            if first.label != label:
                reason = f"{name} is on line {first.number} too, with the label {first.label}"
        if reason:
            problems.append(f"line {line.number}: {reason}")
    _refuse(correction.setting, problems)
    return found


def _problem(
    line: Line, name: str | None, label: str, relabels: bool, places: dict[str, list[Place]], classes: Sequence[str]
) -> str:
    """What is wrong with a line; empty if nothing is."""
    if name is None:
        return f"there is no picture {line.picture}; pictures have names such as {next(iter(places), '')}"
    if len(places[name]) > 1:
        return f"{counted(len(places[name]), 'picture')} have the name {name}"
    if relabels and label not in classes:
        near = difflib.get_close_matches(label, classes, n=1)
        return f"there is no class {label}; " + (f"did you mean {near[0]}?" if near else f"there are {named(classes)}")
    return ""


def _spellings(typed: str, folder: Path | None) -> Iterator[str]:
    """The names that a cell may mean: as it is, without the apostrophe that a spreadsheet needs, a number, a path."""
    for text in (typed, text_of_cell(typed)):
        yield text
        if folder is not None:
            inside = os.path.relpath(text, folder) if os.path.isabs(text) else os.path.normpath(text)  # noqa: PTH117
            yield inside.replace(os.sep, "/")
        elif text.isascii() and text.isdigit():
            yield f"train[{int(text)}]"
            yield f"image[{int(text)}]"  # of a custom source


def _refuse(setting: str, problems: Sequence[str]) -> None:
    if problems:
        raise UserError(list_problems(f"{setting}: {counted(len(problems), 'line')}", problems))
