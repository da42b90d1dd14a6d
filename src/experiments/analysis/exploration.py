"""The tables, figures and files of scripts/explore.py."""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from experiments.analysis import figures
from experiments.analysis.duplicates import Duplicates, Pair, Place
from experiments.analysis.picture_files import Headers, sizes_figure
from experiments.analysis.statistics import PixelStatistics, ratio
from experiments.config.foreign import cell
from experiments.config.wording import counted, percent, shortened
from experiments.data import Splits
from experiments.reports.drawing import save
from experiments.reports.figures import class_balance

CLASS_ROWS = 40  # rows of the table of classes
MANY = 0.2  # fraction of a split; for CIFAR-10, known for its near duplicates, it is 0.023
PAIR_ROWS = 10  # rows of the table of pairs


def pixel_lines(splits: Splits, pixels: PixelStatistics) -> Iterator[str]:
    """Shape and range, and mean and standard deviation of the training set as overrides of train.py."""
    counts = ", ".join(f"{len(images):,} {name}" for name, images in splits.parts().items())
    channels, height, width = splits.image_shape
    yield f"images     {counts}; {counted(channels, 'channel')} of {height} x {width}, uint8"
    yield f"range      {pixels.lowest} to {pixels.highest} in training; scaled to 0..1 for the network"
    mean, std = (",".join(f"{value:.4f}" for value in values) for values in (pixels.mean, pixels.std))
    yield f"mean, std  of red, green, blue in training, scaled:  data.mean=[{mean}] data.std=[{std}]"
    if min(pixels.std) < 5e-5:
        yield "           a constant channel has a std of 0, which cannot be divided by; set it to 1"


def balance_lines(counts: np.ndarray, classes: Sequence[str]) -> Iterator[RenderableType]:
    """Images of each class in each split, and its percentage of training; if there are many classes, the largest and the smallest."""
    order = np.argsort(-counts[:, 0], kind="stable")
    cut = len(classes) > CLASS_ROWS
    table = Table("class", "train", "% of train", "validation", "test", box=None, padding=(0, 3, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    total = max(int(counts[:, 0].sum()), 1)
    for row, label in enumerate(order if cut else range(len(classes))):
        if cut and CLASS_ROWS // 2 <= row < len(classes) - CLASS_ROWS // 2:
            if row == CLASS_ROWS // 2:
                table.add_row("…")
            continue
        train, validation, test = (f"{count:,}" for count in counts[label])
        table.add_row(Text(on_terminal(classes[label])), train, percent(counts[label, 0] / total), validation, test)
    yield table
    if cut:
        yield f"the {CLASS_ROWS // 2} largest and the {CLASS_ROWS // 2} smallest of {len(classes):,} classes"
    largest, smallest = order[0], order[-1]
    if counts[smallest, 0] == 0:
        empty = int((counts[:, 0] == 0).sum())
        yield Text(
            f"no image in training: {empty:,} of {len(classes):,} classes, for example {on_terminal(classes[smallest])}"
        )
    else:
        yield Text(
            f"largest / smallest class in training: {ratio(counts[:, 0]):.2f} "
            f"({on_terminal(classes[largest])} {counts[largest, 0]:,}, "
            f"{on_terminal(classes[smallest])} {counts[smallest, 0]:,})"
        )


def duplicate_lines(duplicates: Duplicates, similarity: float) -> Iterator[RenderableType]:
    """The numbers of duplicates in each two splits, and the most similar pairs across splits and within a split."""
    table = Table("", "exact pairs", "near pairs", "images in them", box=None, padding=(0, 3, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    for overlap in duplicates.overlaps:
        name = f"within {overlap.first}" if overlap.first == overlap.second else f"{overlap.first} / {overlap.second}"
        images = f"{overlap.images:,} ({percent(overlap.images / overlap.size)} of {overlap.second})"
        table.add_row(name, f"{overlap.exact:,}", f"{overlap.near:,}", images)
    yield table
    yield f"near: a similarity of at least {similarity:g}; exact: every pixel is the same"
    if any(overlap.near and overlap.images > MANY * overlap.size for overlap in duplicates.overlaps):
        yield "most of these are probably not copies: images that all look similar (digits, scans, a fixed camera) need a"
        yield "higher --similarity, such as 0.97; see the sheets of pairs"
    for across, where in ((True, "across splits"), (False, "within a split")):
        pairs = [pair for pair in duplicates.pairs if pair.across == across]
        if pairs:
            yield ""
            yield f"{where}, the {min(PAIR_ROWS, len(pairs)):,} most similar of {counted(duplicates.count(across), 'pair')}"
            yield pair_table(pairs[:PAIR_ROWS])


def pair_table(pairs: Sequence[Pair]) -> Table:
    table = Table("similarity", "image (split, name, class)", "duplicate of", box=None, padding=(0, 3, 0, 0))
    for pair in pairs:
        value = "exact" if pair.exact else f"{pair.similarity:.3f}"
        table.add_row(value, Text(named(pair.first)), Text(named(pair.second)))
    return table


def named(place: Place) -> str:
    """The split, the name, and the class if it is not the folder in the name."""
    name = place.name if len(place.name) <= 40 else f"…{place.name[-39:]}"
    label = "" if Path(place.name).parent.name == place.label else on_terminal(place.label)
    return f"{place.split} {on_terminal(name, 40)} {label}".rstrip()


def on_terminal(text: str, longest: int = 30) -> str:
    """A class name or a file's on one line, at most `longest` characters, without characters that a terminal or UTF-8 cannot show."""
    clean = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return shortened(clean, longest)


SHEET_PAIRS = 48  # pairs on a sheet
CAPTION = 34  # characters per line of a caption; more would reach into the next pair


def write(
    folder: Path, splits: Splits, counts: np.ndarray, duplicates: Duplicates, headers: Headers | None = None
) -> Iterator[Path]:
    """Write all files, replacing those of an earlier call, and yield the path of each.

    Args:
        headers: of the picture files, if the images come from such files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("duplicates_*.png"), *folder.glob("sizes.png")):  # there may be no duplicates now
        old.unlink()
    sizes = [("sizes", sizes_figure(headers))] if headers and len(headers.sizes) else []
    for name, figure in (*sizes, *_figures(splits, counts, duplicates)):
        save(figure, folder / f"{name}.png")
        yield folder / f"{name}.png"
    with (folder / "duplicates.csv").open("w", encoding="utf-8", errors="replace", newline="") as file:
        table = csv.writer(file)
        table.writerow(("similarity", "exact", "split", "name", "class", "other_split", "other_name", "other_class"))
        for pair in duplicates.pairs:
            places = (value for place in (pair.first, pair.second) for value in (place.split, place.name, place.label))
            table.writerow((f"{pair.similarity:.4f}", pair.exact, *map(cell, places)))
    yield folder / "duplicates.csv"


def _figures(splits: Splits, counts: np.ndarray, duplicates: Duplicates) -> Iterator[tuple[str, Figure]]:
    classes = [on_terminal(name) for name in splits.classes]
    many = f": 25 of {len(splits.classes):,} classes" if len(splits.classes) > 25 else ""
    title = f"Training images{many}"
    yield "images", figures.contact_sheet(splits.train, classes, title)
    yield "class_balance", class_balance(counts, classes, tuple(splits.parts()), "Images per class")
    for across, name in ((True, "across"), (False, "within")):
        pairs = [pair for pair in duplicates.pairs if pair.across == across]
        if pairs:
            where = "across splits" if across else "within a split"
            title = f"Duplicates {where}: the {min(SHEET_PAIRS, len(pairs))} most similar of {counted(duplicates.count(across), 'pair')}"
            yield f"duplicates_{name}", _pairs(splits, pairs[:SHEET_PAIRS], title)


def _pairs(splits: Splits, pairs: list[Pair], title: str) -> Figure:
    parts = splits.parts()
    images = [
        (parts[pair.first.split].image(pair.first.index), parts[pair.second.split].image(pair.second.index))
        for pair in pairs
    ]
    captions = [
        "\n".join(
            ["exact" if pair.exact else f"{pair.similarity:.3f}"]
            + [line for place in (pair.first, pair.second) for line in textwrap.wrap(named(place), CAPTION)]
        )
        for pair in pairs
    ]
    return figures.image_pairs(images, captions, title)
