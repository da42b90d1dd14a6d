"""A run -> the files that it leaves: one self-contained HTML page, figures, tables."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from experiments.config.foreign import cell, mask_passwords
from experiments.reports.content import Content
from experiments.reports.drawing import save_figures
from experiments.reports.figures import FIGURES
from experiments.reports.page import page
from experiments.training import coverage


def write(folder: Path, content: Content) -> None:
    """Write all files of the report into `folder`."""
    configuration = yaml.safe_dump(mask_passwords(content.config.to_dict()), sort_keys=False, allow_unicode=True)
    figures = save_figures(folder / "figures", FIGURES, content)
    (folder / "report.html").write_text(page(content, figures, configuration), encoding="utf-8")
    classes = content.images.classes
    (folder / "config.yaml").write_text(configuration, encoding="utf-8")
    report = json.dumps(content.evaluation.report(classes), indent=2, ensure_ascii=False)
    (folder / "classification_report.json").write_text(report, encoding="utf-8")
    matrix = ([name, *map(int, row)] for name, row in zip(classes, content.evaluation.confusion))
    _write_csv(folder / "confusion_matrix.csv", ["true class", *classes], matrix)
    if content.calibration and content.calibration.validation:
        _write_csv(folder / coverage.FILE, coverage.COLUMNS, content.calibration.validation.rows())
    if content.corrupted:
        _write_csv(folder / "corruptions.csv", ["group", "corruption", "strength", "accuracy"], content.corrupted.table)
    if content.history:
        names = list(
            dict.fromkeys(name for epoch in content.history for name in epoch)
        )  # the first may lack a new metric
        epochs = ([number, *map(epoch.get, names)] for number, epoch in enumerate(content.history, start=1))
        _write_csv(folder / "history.csv", ["epoch", *names], epochs)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([map(cell, row) for row in (header, *rows)])
