"""A run -> the files that it leaves: one self-contained HTML page, figures, tables."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import yaml

from experiments.config.command_line import mask_passwords
from experiments.reports import figures, page
from experiments.reports.content import Content, augmented_rows
from experiments.reports.drawing import Figure


def write(folder: Path, content: Content) -> None:
    """Write all files of the report into `folder`."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    configuration = mask_passwords(yaml.safe_dump(content.config.to_dict(), sort_keys=False, allow_unicode=True))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph|constrained_layout")  # names that no font here has: a box is drawn
        drawn = _figures(content)
        for name, figure in drawn.items():
            figure.savefig(folder / "figures" / f"{name}.png", dpi=110)
            figure.set_layout_engine("none")  # it is laid out now: again, for the page, would take a second in all
        html = page.page(content, drawn, configuration)
    (folder / "report.html").write_text(html, encoding="utf-8")
    classes = content.images.classes
    (folder / "config.yaml").write_text(configuration, encoding="utf-8")
    report = json.dumps(content.evaluation.report(classes), indent=2, ensure_ascii=False)
    (folder / "classification_report.json").write_text(report, encoding="utf-8")
    matrix = ([name, *map(int, row)] for name, row in zip(classes, content.evaluation.confusion))
    _write_csv(folder / "confusion_matrix.csv", ["true class", *classes], matrix)
    if content.history:
        epochs = ([epoch, *metrics.values()] for epoch, metrics in enumerate(content.history, start=1))
        _write_csv(folder / "history.csv", ["epoch", *content.history[0]], epochs)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def _figures(content: Content) -> dict[str, Figure]:
    test, classes = content.evaluation, content.images.classes
    title = ", ".join(filter(None, [f"{test.accuracy:.2%} of {test.confusion.sum():,} right", content.note]))
    drawn = {
        "confusion_matrix": figures.confusion_matrix(test.confusion, classes, title),
        "calibration": figures.calibration(*content.calibration),
        "class_balance": figures.class_balance(
            np.stack(list(content.class_counts.values()), axis=1),
            classes,
            list(content.class_counts),
            "Pictures of each class",
        ),
    }
    if content.augmented is not None:
        drawn["augmentation"] = figures.augmentation(content.augmented, augmented_rows(content.augmented))
    return {"curves": figures.curves(content.history, content.best_epoch), **drawn} if content.history else drawn
