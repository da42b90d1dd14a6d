"""The page of a report: HTML that loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.config import Config
from experiments.config.foreign import mask_passwords
from experiments.config.metrics import EVALUATED
from experiments.config.wording import counted, percent
from experiments.reports.content import Content
from experiments.reports.drawing import Figure, PageFigure
from experiments.reports.html import count_card, duration, render, sprite
from experiments.training.evaluation import Evaluation

IMAGES = 1200  # in the page, at most
MISTAKES, LEAST_CONFIDENT, PER_CELL = 24, 12, 24  # of these images, at most
MATRIX = 40  # classes in the page's matrix, at most


def page(content: Content, figures: Sequence[tuple[PageFigure[Content], Figure]], configuration: str) -> str:
    """The page as HTML.

    Args:
        figures: rows of the table of figures that apply to `content`, and what they have drawn.
        configuration: as YAML.
    """
    return render(
        "report.html.j2",
        content=content,
        evaluation=content.evaluation,
        classes=content.images.classes,
        command=mask_passwords(content.command),
        configuration=configuration,
        scores=_scores(content.evaluation),
        cards=_cards(content),
        figures=figures,
        matrix_classes=_matrix_classes(content.evaluation).tolist(),
        rows=_class_rows(content),
        macro=_macro(content.evaluation),
        balancing=_balancing(content.config),
        augmentations=_augmentations(content.config),
        augmented={name: sprite(images) for name, images in content.augmented_rows.items()},
        corrupted=content.corrupted,
        examples={name: sprite(images) for name, images in content.corrupted.examples.items()},
        **_thumbnails(content),
    )


def _thumbnails(content: Content) -> dict[str, Any]:
    """The images that the page shows, all in one sprite, and the places in it of the images of each list and each cell."""
    labels, predicted, confidence = content.images.labels, content.predicted, content.confidence
    order = np.argsort(-confidence, kind="stable")
    wrong = (predicted != labels)[order]
    lists = {"mistakes": order[wrong][:MISTAKES], "least_confident": order[~wrong][::-1][:LEAST_CONFIDENT]}
    cells = _cells(content, order)
    shown = {int(index): None for indices in (*lists.values(), *cells.values()) for index in indices}
    places = {index: place for place, index in enumerate(shown)}
    classes = content.images.classes

    def thumbnail(index: int) -> dict[str, Any]:
        names = {"true": classes[labels[index]], "predicted": classes[predicted[index]]}
        return {
            "place": places[int(index)],
            "probability": float(confidence[index]),
            "name": content.images.name(index),
            **names,
        }

    return {
        "sprite": sprite(content.images[list(shown)].pixels),
        "cells": {
            f"{true},{predicted}": [
                [places[index], round(float(confidence[index]), 3), content.images.name(index)] for index in indices
            ]
            for (true, predicted), indices in cells.items()
        },
        **{name: [thumbnail(index) for index in indices] for name, indices in lists.items()},
    }


def _cells(content: Content, order: np.ndarray) -> dict[tuple[int, int], list[int]]:
    """(true class, predicted class) -> indices of the first images in `order`, for each cell of the page's matrix."""
    shown = set(_matrix_classes(content.evaluation).tolist())
    cells: dict[tuple[int, int], list[int]] = {}
    for index in order:
        cell = int(content.images.labels[index]), int(content.predicted[index])
        if shown.issuperset(cell):
            cells.setdefault(cell, []).append(int(index))
    per_cell = max(1, (IMAGES - MISTAKES - LEAST_CONFIDENT) // max(len(cells), 1))
    return {cell: indices[: min(per_cell, PER_CELL)] for cell, indices in cells.items()}


def _matrix_classes(evaluation: Evaluation) -> np.ndarray:
    """The classes of the page's matrix: all, or if there are too many, those with the most mistakes."""
    confusion = evaluation.confusion
    mistakes = confusion.sum(axis=0) + confusion.sum(axis=1) - 2 * np.diag(confusion)
    return np.sort(np.argsort(-mistakes, kind="stable")[:MATRIX])


def _scores(evaluation: Evaluation) -> dict[str, float]:
    """The other metrics of an evaluation, beside its accuracy and its loss."""
    return {
        name.replace("_", " ").replace("f1", "F1"): getattr(evaluation, name)
        for name in EVALUATED
        if name not in ("accuracy", "loss")
    }


def _cards(content: Content) -> list[tuple[str, str]]:
    if not content.history:
        images = count_card(len(content.images), "image")
        if not content.corrupted:
            return [images]
        ratio = f"{content.corrupted.ratio:.3f} of the accuracy without corruption"
        return [images, (percent(content.corrupted.mean), f"mean accuracy on corrupted images, {ratio}")]
    kept = content.history[content.kept_epoch - 1]
    seconds = sum(epoch["epoch_seconds"] for epoch in content.history)
    speed = np.mean([epoch["images_per_second"] for epoch in content.history])
    return [
        (percent(kept.get("val/accuracy", np.nan)), f"validation accuracy, epoch {content.kept_epoch}"),
        count_card(len(content.history), "epoch"),
        (duration(seconds), "training and validation"),
        (f"{speed:,.0f}", "images per second"),
    ]


def _class_rows(content: Content) -> list[dict[str, Any]]:
    """Metrics per class, and its fraction of the training images and of the training loss, without and with balancing."""
    evaluation, images = content.evaluation, content.images
    trained = next(iter(content.class_counts.values()))
    fraction = trained / max(trained.sum(), 1)
    settings, present = content.config.training, (trained > 0).astype(float)
    drawn = present / max(present.sum(), 1) if settings.sampler == "balanced" else fraction
    weights = present / np.maximum(trained, 1) if settings.class_weights == "balanced" else present
    weighted = drawn * weights / max((drawn * weights).sum(), np.finfo(float).tiny)
    scores = (evaluation.precision, evaluation.recall, evaluation.f1, evaluation.support)
    keys = ("name", "precision", "recall", "f1", "support", "trained", "fraction", "weighted")
    return [dict(zip(keys, row)) for row in zip(images.classes, *scores, trained, fraction, weighted)]


def _macro(evaluation: Evaluation) -> str:
    """What macro F1 is, and how scikit-learn's "macro avg" differs from it."""
    absent = int((evaluation.support == 0).sum())
    if not absent:
        return "Macro F1 is the mean F1 of all classes."
    average = evaluation.f1.mean()
    return (
        f'Macro F1 ({evaluation.macro_f1:.3f}) is the mean F1 of the classes with images. The row "macro avg" of '
        f"classification_report.json ({average:.3f}), which is scikit-learn's, also counts {counted(absent, 'class', 'classes')} "
        "without images, with an F1 of 0."
    )


def _balancing(config: Config) -> str:
    weights, sampler = config.training.class_weights, config.training.sampler
    if weights == sampler == "balanced":
        return "Balanced twice: rare classes are drawn more often and have a larger weight in the loss."
    if sampler == "balanced":
        return "training.sampler=balanced: every class is drawn equally often; images of rare classes are repeated."
    if weights == "balanced":
        return (
            "training.class_weights=balanced: every class has the same weight in the loss, however many images it has."
        )
    return "Every training image counts the same (training.class_weights=balanced or training.sampler=balanced change that)."


def _augmentations(config: Config) -> list[str]:
    """The settings that augment images, as they are typed."""
    return [f"augment.{key}={value}" for key, value in config.augment.active.items()]
