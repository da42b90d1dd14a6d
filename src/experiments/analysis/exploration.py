"""What exploring prints."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from experiments.analysis import figures
from experiments.analysis.duplicates import Duplicates, Pair, Place
from experiments.analysis.statistics import Pixels, ratio
from experiments.data import Splits
from experiments.reports.drawing import save
from experiments.reports.figures import class_balance

CLASS_ROWS = 40  # rows of the table of classes
ALIKE = 0.2  # share of a split; in CIFAR-10, known for its near duplicates, it is 0.023
PAIR_ROWS = 10  # rows of the table of pairs


def pixel_lines(splits: Splits, pixels: Pixels) -> Iterator[str]:
    """Shape, range, and the mean and deviation of the training set as they can be typed behind train.py."""
    counts = [len(part) for part in (splits.train, splits.validation, splits.test)]
    channels, height, width = splits.image_shape
    yield (
        f"pictures   {counts[0]:,} train, {counts[1]:,} validation, {counts[2]:,} test; "
        f"{channels} channels of {height} x {width}, {splits.train.source.dtype}"
    )
    yield f"range      {pixels.lowest} to {pixels.highest} in training; a network gets them scaled to 0..1"
    mean, std = (",".join(f"{value:.4f}" for value in values) for values in (pixels.mean, pixels.std))
    yield f"mean, std  of red, green, blue in training, scaled:  data.mean=[{mean}] data.std=[{std}]"
    if min(pixels.std) < 5e-5:
        yield "           a channel that never changes has a std of 0, which cannot be divided by: give it 1"


def balance_lines(counts: np.ndarray, classes: Sequence[str]) -> Iterator[RenderableType]:
    """Pictures of each class in each split and the class's share of training; the extremes where there are many."""
    order = np.argsort(-counts[:, 0], kind="stable")
    cut = len(classes) > CLASS_ROWS
    table = Table("class", "train", "share", "validation", "test", box=None, padding=(0, 3, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    total = max(int(counts[:, 0].sum()), 1)
    for place, row in enumerate(order if cut else range(len(classes))):
        if cut and CLASS_ROWS // 2 <= place < len(classes) - CLASS_ROWS // 2:
            if place == CLASS_ROWS // 2:
                table.add_row("…")
            continue
        train, validation, test = (f"{count:,}" for count in counts[row])
        table.add_row(Text(printable(classes[row])), train, f"{counts[row, 0] / total:.1%}", validation, test)
    yield table
    if cut:
        yield f"the {CLASS_ROWS // 2} largest and the {CLASS_ROWS // 2} smallest of {len(classes):,} classes"
    largest, smallest = order[0], order[-1]
    if counts[smallest, 0] == 0:
        empty = int((counts[:, 0] == 0).sum())
        yield Text(
            f"no picture in training: {empty:,} of {len(classes):,} classes, {printable(classes[smallest])} for one"
        )
    else:
        yield Text(
            f"largest / smallest class in training: {ratio(counts[:, 0]):.2f} "
            f"({printable(classes[largest])} {counts[largest, 0]:,}, "
            f"{printable(classes[smallest])} {counts[smallest, 0]:,})"
        )


def duplicate_lines(duplicates: Duplicates, similarity: float) -> Iterator[RenderableType]:
    """What every two splits share, and the most similar pairs across splits and within them."""
    table = Table("", "exact pairs", "near pairs", "pictures in them", box=None, padding=(0, 3, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    for overlap in duplicates.overlaps:
        name = f"within {overlap.first}" if overlap.first == overlap.second else f"{overlap.first} / {overlap.second}"
        concerned = f"{overlap.pictures:,} ({overlap.pictures / overlap.size:.1%} of {overlap.second})"
        table.add_row(name, f"{overlap.exact:,}", f"{overlap.near:,}", concerned)
    yield table
    yield f"near: a similarity of at least {similarity:g}; exact: every pixel is the same"
    if any(overlap.near and overlap.pictures > ALIKE * overlap.size for overlap in duplicates.overlaps):
        yield "so many are hardly copies: pictures that all look alike (digits, scans, a fixed camera) need a higher"
        yield "--similarity, such as 0.97; look at the sheets of pairs"
    for across, where in ((True, "across splits"), (False, "within a split")):
        pairs = [pair for pair in duplicates.pairs if pair.across == across]
        if pairs:
            yield ""
            yield f"{where}, the {min(PAIR_ROWS, len(pairs)):,} most similar of {duplicates.count(across):,} pairs"
            yield pair_table(pairs[:PAIR_ROWS])


def pair_table(pairs: Sequence[Pair]) -> Table:
    table = Table("similarity", "picture (split, row, class)", "is also", box=None, padding=(0, 3, 0, 0))
    for pair in pairs:
        value = "exact" if pair.exact else f"{pair.similarity:.3f}"
        table.add_row(value, Text(named(pair.first)), Text(named(pair.second)))
    return table


def named(place: Place) -> str:
    return f"{place.split} {place.row} {printable(place.label)}"


def printable(label: str) -> str:
    """A class name on one line, at most 30 characters, without what a terminal or UTF-8 cannot show."""
    clean = "".join(mark if mark.isprintable() else "\N{REPLACEMENT CHARACTER}" for mark in label)
    return clean if len(clean) <= 30 else clean[:29] + "…"


SHEET_PAIRS = 48  # on a sheet


def write(folder: Path, splits: Splits, counts: np.ndarray, duplicates: Duplicates) -> Iterator[Path]:
    """Write all files, over those of an earlier look, and give the path of each."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("duplicates_*.png"):  # a look that finds none leaves no sheet of an earlier one
        old.unlink()
    for name, figure in _figures(splits, counts, duplicates):
        save(figure, folder / f"{name}.png")
        yield folder / f"{name}.png"
    with (folder / "duplicates.csv").open("w", encoding="utf-8", errors="replace", newline="") as file:
        table = csv.writer(file)
        table.writerow(("similarity", "exact", "split", "row", "class", "other_split", "other_row", "other_class"))
        for pair in duplicates.pairs:
            places = (value for place in (pair.first, pair.second) for value in (place.split, place.row, place.label))
            table.writerow((f"{pair.similarity:.4f}", pair.exact, *places))
    yield folder / "duplicates.csv"


def _figures(splits: Splits, counts: np.ndarray, duplicates: Duplicates) -> Iterator[tuple[str, Figure]]:
    classes = [printable(name) for name in splits.classes]
    many = f": 25 of {len(splits.classes):,} classes" if len(splits.classes) > 25 else ""
    title = f"Training pictures{many}"
    yield "pictures", figures.contact_sheet(splits.train, classes, title)
    names = ("train", "validation", "test")
    yield "class_balance", class_balance(counts, classes, names, "Pictures of each class")
    for across, name in ((True, "across"), (False, "within")):
        pairs = [pair for pair in duplicates.pairs if pair.across == across]
        if pairs:
            where = "across splits" if across else "within a split"
            title = f"Duplicates {where}: the {min(SHEET_PAIRS, len(pairs))} most similar of {duplicates.count(across):,} pairs"
            yield f"duplicates_{name}", _pairs(splits, pairs[:SHEET_PAIRS], title)


def _pairs(splits: Splits, pairs: list[Pair], title: str) -> Figure:
    parts = splits.parts()
    pictures = [
        (parts[pair.first.split].picture(pair.first.row), parts[pair.second.split].picture(pair.second.row))
        for pair in pairs
    ]
    captions = [
        f"{'exact' if pair.exact else f'{pair.similarity:.3f}'}\n{named(pair.first)}\n{named(pair.second)}"
        for pair in pairs
    ]
    return figures.image_pairs(pictures, captions, title)
