"""What a report tells of, and its page: HTML that asks for nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.config import Config
from experiments.config.command_line import mask_passwords
from experiments.reports import drawing
from experiments.reports.content import Content, augmented_rows
from experiments.reports.drawing import Figure
from experiments.reports.html import render, sprite
from experiments.training.evaluation import Evaluation, wilson_interval

PICTURES = 1200  # in the page, at most
MATRIX = 40  # classes in the page's matrix, at most


def page(content: Content, drawn: Mapping[str, Figure], configuration: str) -> str:
    test, classes = content.evaluation, content.images.classes
    mistakes, unsure, cells = _chosen(content)
    shown = {int(row): None for rows in (mistakes, unsure, *cells.values()) for row in rows}
    place = {row: index for index, row in enumerate(shown)}

    def item(row: int) -> dict[str, Any]:
        true, said = classes[content.images.labels[row]], classes[content.predicted[row]]
        return {"place": place[int(row)], "true": true, "said": said, "probability": float(content.confidence[row])}

    in_matrix = _in_matrix(test)
    shares = test.confusion / np.maximum(test.support, 1)[:, None]
    mean, accuracy, share = content.calibration
    return render(
        "report.html.j2",
        name=content.name,
        command=mask_passwords(content.command),
        test=test,
        interval=wilson_interval(int(np.trace(test.confusion)), int(test.confusion.sum())),
        calibration_error=float((share * np.abs(accuracy - mean)).sum()),
        cards=_cards(content),
        statement=content.protocol,
        note=content.note,
        tta=content.config.evaluation.tta,
        split=content.split,
        figures={
            name: drawing.svg(drawn[name]) for name in ("curves", "calibration", "class_balance") if name in drawn
        },
        classes=classes,
        matrix=[
            [
                {"true": int(true), "said": int(said), "count": int(count), "share": float(shares[true, said])}
                for said, count in zip(in_matrix, test.confusion[true, in_matrix])
            ]
            for true in in_matrix
        ],
        in_matrix=in_matrix.tolist(),
        cells={
            f"{true},{said}": [[place[int(row)], round(float(content.confidence[row]), 3)] for row in rows]
            for (true, said), rows in cells.items()
        },
        rows=_class_rows(content),
        balance=content.class_counts,
        balancing=_balancing(content.config),
        mistakes=[item(row) for row in mistakes],
        unsure=[item(row) for row in unsure],
        sprite=sprite(content.images[list(shown)].pixels),
        layers=content.layers,
        parameters=sum(count for _, _, count in content.layers),
        configuration=configuration,
        environment=content.environment,
        augmented=_augmented(content),
    )


def _chosen(content: Content) -> tuple[np.ndarray, np.ndarray, dict[tuple[int, int], np.ndarray]]:
    """Rows of the pictures to show: confident mistakes, unsure right ones, and of each cell those it was surest of."""
    labels, said = content.images.labels, content.predicted
    surest_first = np.argsort(-content.confidence, kind="stable")
    wrong = (said != labels)[surest_first]
    shown = set(_in_matrix(content.evaluation).tolist())
    by_cell: dict[tuple[int, int], list[int]] = {}
    for row in surest_first:
        if labels[row] in shown and said[row] in shown:
            by_cell.setdefault((int(labels[row]), int(said[row])), []).append(int(row))
    a_cell = max(1, (PICTURES - 48) // max(len(by_cell), 1))
    cells = {cell: np.array(rows[: min(a_cell, 24)]) for cell, rows in by_cell.items()}
    return surest_first[wrong][:24], surest_first[~wrong][::-1][:12], cells


def _in_matrix(test: Evaluation) -> np.ndarray:
    """The classes of the page's matrix: all, or of very many those with the most mistakes."""
    mistakes = test.confusion.sum(axis=0) + test.confusion.sum(axis=1) - 2 * np.diag(test.confusion)
    return np.sort(np.argsort(-mistakes, kind="stable")[:MATRIX])


def _cards(content: Content) -> list[tuple[str, str]]:
    if not content.history:
        return [(f"{len(content.images):,}", "pictures")]
    best = content.history[content.best_epoch - 1]
    seconds = sum(epoch["epoch_seconds"] for epoch in content.history)
    speed = np.mean([epoch["images_per_second"] for epoch in content.history])
    return [
        (f"{best['val/accuracy']:.1%}".replace("%", " %"), f"validation accuracy, epoch {content.best_epoch}"),
        (f"{len(content.history)}", "epochs"),
        (f"{seconds:,.0f} s" if seconds < 6000 else f"{seconds / 60:,.0f} min", "training and validation"),
        (f"{speed:,.0f}", "images a second"),
    ]


def _class_rows(content: Content) -> list[dict[str, Any]]:
    test, images = content.evaluation, content.images
    trained = next(iter(content.class_counts.values()))
    share = trained / max(trained.sum(), 1)
    settings, present = content.config.training, trained > 0
    drawn = present / max(present.sum(), 1) if settings.sampler == "balanced" else share
    weights = present / np.maximum(trained, 1) if settings.class_weights == "balanced" else present
    learned = drawn * weights / max((drawn * weights).sum(), np.finfo(float).tiny)
    columns = zip(images.classes, test.precision, test.recall, test.f1, test.support, trained, share, learned)
    keys = ("name", "precision", "recall", "f1", "support", "trained", "share", "learned")
    return [dict(zip(keys, row)) for row in columns]


def _balancing(config: Config) -> str:
    weights, sampler = config.training.class_weights, config.training.sampler
    if weights == sampler == "balanced":
        return "Balanced twice: rare classes were drawn more often, and weighed more in the loss."
    if sampler == "balanced":
        return "training.sampler=balanced: every class was drawn alike often, rare ones with repetition."
    if weights == "balanced":
        return (
            "training.class_weights=balanced: every class weighed the same in the loss, however many pictures it has."
        )
    return "Every training picture counted once (training.class_weights=balanced or training.sampler=balanced change that)."


def _augmented(content: Content) -> dict[str, Any] | None:
    """Rows of pictures with their names, and which keys changed them."""
    if content.augmented is None:
        return None
    return {
        "changes": [f"augment.{key}={value}" for key, value in content.config.augment.active.items()],
        "rows": list(zip(augmented_rows(content.augmented), map(sprite, content.augmented))),
    }
