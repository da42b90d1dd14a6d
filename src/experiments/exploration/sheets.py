"""What exploring leaves in files: sheets of pictures, a chart, and all pairs as a table for other programs."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments import figures
from experiments.data import Splits
from experiments.exploration.duplicates import Duplicates, Pair
from experiments.exploration.tables import named, printable

PAIRS = 48  # on a sheet


def write(folder: Path, splits: Splits, counts: np.ndarray, duplicates: Duplicates) -> Iterator[Path]:
    """Write all files, over those of an earlier look, and give the path of each."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("duplicates_*.png"):  # a look that finds none leaves no sheet of an earlier one
        old.unlink()
    for name, figure in _figures(splits, counts, duplicates):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # a script that no installed font has is drawn as boxes
            figure.savefig(folder / f"{name}.png", dpi=110)
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
    yield "class_balance", figures.class_balance(counts, classes, names, "Pictures of each class")
    for across, name in ((True, "across"), (False, "within")):
        pairs = [pair for pair in duplicates.pairs if pair.across == across]
        if pairs:
            where = "across splits" if across else "within a split"
            title = (
                f"Duplicates {where}: the {min(PAIRS, len(pairs))} most similar of {duplicates.count(across):,} pairs"
            )
            yield f"duplicates_{name}", _pairs(splits, pairs[:PAIRS], title)


def _pairs(splits: Splits, pairs: list[Pair], title: str) -> Figure:
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    pictures = [
        (parts[pair.first.split].picture(pair.first.row), parts[pair.second.split].picture(pair.second.row))
        for pair in pairs
    ]
    captions = [
        f"{'exact' if pair.exact else f'{pair.similarity:.3f}'}\n{named(pair.first)}\n{named(pair.second)}"
        for pair in pairs
    ]
    return figures.picture_pairs(pictures, captions, title)
