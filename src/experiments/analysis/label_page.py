"""A label check -> its files: one self-contained HTML page, and the tables that data.exclude and data.relabel read."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.analysis.label_check import LabelCheck, Suspect, check_labels
from experiments.analysis.picture_problems import Problem, find_problems
from experiments.config import Config
from experiments.config.foreign import cell
from experiments.config.wording import counted, percent
from experiments.reports.html import count_card, render, sprite
from experiments.runs.evaluations import log_label_check
from experiments.runs.finished import load_run

SUSPECTS, PAIRS, PER_PROBLEM = 300, 60, 24  # shown in the page, at most; the tables have all
MANY = 0.1  # of the labels; if more are suspicious, the networks are usually wrong, and not the labels
PAGE, LABELS, DUPLICATES, PICTURES = "report.html", "labels.csv", "duplicates.csv", "pictures.csv"


@dataclass(frozen=True)
class Found:
    """Everything that a check has found.

    Attributes:
        common: kinds of problems that belong to the data set, with the fraction of its pictures.
        column: path or index, the column of the tables that names the pictures.
    """

    title: str
    command: str
    folds: int
    labels: LabelCheck
    problems: Sequence[Problem]
    common: dict[str, float]
    column: str

    @property
    def metrics(self) -> dict[str, float]:
        """Counts for MLflow."""
        return {
            "labels/checked": int(self.labels.checked.sum()),
            "labels/suspicious": len(self.labels.suspects),
            "labels/duplicates_of_two_classes": self.labels.pair_count,
            "pictures/problems": len(self.problems),
            "pictures/unreadable": len(self.labels.skipped),
            "labels/cross_validated_accuracy": self.labels.accuracy,
        }

    @property
    def weak(self) -> str:
        """Says that the networks may be too weak for a list that is worth reading; empty if they seem good enough."""
        if len(self.labels.suspects) <= MANY * self.labels.checked.sum():
            return ""
        share = percent(self.labels.accuracy, 0)
        return f"The networks predict only {share} of the labels. Unless so many are wrong, use more epochs or a better network."


def check_and_write(
    configs: Sequence[Config], run_ids: Sequence[str], command: str, similarity: float, test: bool
) -> Iterator[str]:
    """Check the data with the finished runs of its folds, write and log the files, and yield what is to be printed.

    Args:
        configs, run_ids: of each fold.
        command: the command line, for the page.
        similarity: of near duplicates, see `find_duplicates`.
        test: check the labels of the test images, too.
    """
    config, uri = configs[0], configs[0].tracking.uri
    assert uri is not None
    runs = [load_run(run_id, uri=uri, trust=True) for run_id in run_ids]
    labels = check_labels(runs, [one.data for one in configs], similarity, test)
    problems, common = find_problems(labels.images, config.data.folder)
    column = "path" if config.data.of_files else "index"
    found = Found(config.data.title, command, len(runs), labels, problems, common, column)
    identity = hashlib.sha256(" ".join(run_ids).encode()).hexdigest()[:6]
    folder = Path(config.outputs) / "labels" / f"{config.data.title}-{identity}"
    files = list(write(folder, found))
    log_label_check(config, f"labels of {config.data.title}", runs, found.metrics, folder)
    yield ""
    yield from lines(found, folder)
    yield ""
    yield from map(str, files)


def write(folder: Path, found: Found) -> Iterator[Path]:
    """Write all files, replacing those of an earlier check, and yield the path of each."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PAGE).write_text(_page(found), encoding="utf-8", errors="replace")
    yield folder / PAGE
    names, splits = found.labels.images.names, found.labels.splits
    tables = {LABELS: _label_rows(found), DUPLICATES: _pair_rows(found), PICTURES: _problem_rows(found)}
    for name, rows in tables.items():
        header, *others = rows
        named = ([names[row[0]], splits[row[0]], *row[1:]] if isinstance(row[0], int) else row for row in others)
        _write_csv(folder / name, [found.column, "split", *header], named)
        yield folder / name


def _label_rows(found: Found) -> Iterator[Sequence[Any]]:
    """The columns after the name and the split, then (index, their values); `label` is the suggested one."""
    yield "given", "label", "score", "probability", "probability_of_given"
    for one in found.labels.suspects:
        numbers = (f"{value:.4f}" for value in (one.score, one.probability, one.of_given))
        yield one.index, one.given, one.suggested, *numbers


def _pair_rows(found: Found) -> Iterator[Sequence[Any]]:
    """A row for each image of a pair, so that data.exclude leaves out both."""
    yield "given", "duplicate", "duplicate_given", "similarity", "exact"
    for pair in found.labels.pairs:
        both = found.labels.indices(pair)
        for index, place, other in ((both[0], pair.first, pair.second), (both[1], pair.second, pair.first)):
            yield index, place.label, other.name, other.label, f"{pair.similarity:.4f}", pair.exact


def _problem_rows(found: Found) -> Iterator[Sequence[Any]]:
    yield "given", "problem", "score"
    images = found.labels.images
    for problem in found.labels.skipped:
        name, _, reason = problem.partition(": ")
        yield name, "", "", f"unreadable: {reason}", ""
    for one in found.problems:
        yield one.index, images.classes[images.labels[one.index]], one.kind, f"{one.score:.4f}"


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        csv.writer(file).writerows([map(cell, row) for row in (header, *rows)])


def _page(found: Found) -> str:
    labels, images = found.labels, found.labels.images
    kinds = list(dict.fromkeys(one.kind for one in found.problems))
    of_kind = {kind: [one for one in found.problems if one.kind == kind] for kind in kinds}
    suspects, pairs = labels.suspects[:SUSPECTS], labels.pairs[:PAIRS]
    shown = [one.index for one in suspects] + [index for pair in pairs for index in labels.indices(pair)]
    shown += [one.index for group in of_kind.values() for one in group[:PER_PROBLEM]]
    places = {index: place for place, index in enumerate(dict.fromkeys(shown))}

    def item(index: int) -> dict[str, Any]:
        given, known = images.classes[images.labels[index]], labels.checked[index]
        most = int(labels.probabilities[index].argmax()) if known else 0
        return {
            "place": places[index],
            "name": images.name(index),
            "given": given,
            "predicted": images.classes[most] if known else "",
            "probability": float(labels.probabilities[index, most]) if known else 0.0,
            "of_given": float(labels.probabilities[index, images.labels[index]]) if known else 0.0,
        }

    return render(
        "labels.html.j2",
        found=found,
        labels=labels,
        cards=_cards(found),
        sprite=sprite(images[list(places)].pixels),
        suspects=[item(one.index) for one in suspects],
        rows=[[found.column, "given", "label"], *_chosen(found, suspects)],
        pairs=[(pair, [item(index) for index in labels.indices(pair)]) for pair in pairs],
        problems={
            kind: (len(group), [item(one.index) for one in group[:PER_PROBLEM]]) for kind, group in of_kind.items()
        },
    )


def _chosen(found: Found, suspects: Sequence[Suspect]) -> Iterator[list[object]]:
    """What the page saves of each suspect."""
    yield from ([cell(found.labels.images.name(one.index)), cell(one.given), cell(one.suggested)] for one in suspects)


def _cards(found: Found) -> list[tuple[str, str]]:
    labels = found.labels
    return [
        count_card(len(labels.suspects), "suspicious label"),
        (f"{int(labels.checked.sum()):,}", "labels checked"),
        (percent(labels.accuracy), f"of the training labels predicted, {found.folds} folds"),
        count_card(
            labels.pair_count,
            "pair of near duplicates with different labels",
            "pairs of near duplicates with different labels",
        ),
        count_card(len(found.problems) + len(labels.skipped), "picture with a problem", "pictures with problems"),
    ]


def lines(found: Found, folder: Path) -> Iterator[str]:
    """What is printed: the counts, the most suspicious labels, and what can be done."""
    labels, images = found.labels, found.labels.images
    checked = int(labels.checked.sum())
    yield f"{counted(len(labels.suspects), 'suspicious label')} of {checked:,} checked; the networks predict {percent(labels.accuracy)}"
    if found.weak:
        yield found.weak
    for one in labels.suspects[:10]:
        yield f"  {images.name(one.index)}: {one.given}, predicted as {one.suggested} {percent(one.probability, 0)}"
    yield f"{counted(labels.pair_count, 'pair')} of near duplicates with different labels"
    kinds = [one.kind for one in found.problems]
    counts = [f"{kinds.count(kind):,} {kind}" for kind in dict.fromkeys(kinds)]
    counts += [f"{len(labels.skipped):,} unreadable"] if labels.skipped else []
    yield f"pictures with problems: {', '.join(counts) or 'none'}"
    for kind, fraction in found.common.items():
        yield f"  {kind}: {percent(fraction, 0)} of the pictures, so it belongs to the data set"
    if labels.suspects:
        yield ""
        yield f"look at them:    {folder / PAGE}; select the wrong ones, and save them as {LABELS} in this folder"
        yield f"leave them out:  the same keys for train.py, and data.exclude={LABELS}"
        yield f"correct them:    the same keys for train.py, and data.relabel={LABELS} (gives them the predicted labels)"
