"""The figures of a report: how each is drawn, and `FIGURES`, the table of them in the order of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator
from rich.cells import cell_len

from experiments.reports.content import Content, Reliability
from experiments.reports.corruptions import Corrupted
from experiments.reports.drawing import BLUE, GREY, ORANGE, SERIES, Figure, PageFigure, hide_frame, printable
from experiments.training.coverage import Coverage
from experiments.training.evaluation import wilson_interval


def curves(history: Sequence[Mapping[str, float]], best_epoch: int) -> Figure:
    """Loss and accuracy against the epoch, for training and validation, with the best epoch marked."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    epochs = np.arange(1, len(history) + 1)
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy")):
        for split, name, color in (("train", "training", ORANGE), ("val", "validation", BLUE)):
            axes.plot(
                epochs,
                [epoch.get(f"{split}/{metric}", np.nan) for epoch in history],
                "o-",
                ms=3,
                color=color,
                label=name,
            )
        axes.axvline(best_epoch, color=GREY, ls="--", lw=1, label=f"best epoch: {best_epoch}")
        axes.set(xlabel="epoch", ylabel=metric, title=metric.capitalize())
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def confusion_matrix(confusion: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Counts (up to 25 classes) over a colour that shows the fraction of the row; rows: true class, columns: predicted."""
    count = len(classes)
    side = min(4 + 0.45 * count, 16)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    fractions = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="fraction of the true class")
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    if count <= 100:
        names = [printable(name) for name in classes]
        collide = count * max(map(cell_len, names)) > 40
        axes.set_xticks(range(count), names, rotation=90 if collide else 0, fontsize=9 if count <= 25 else 5)
        axes.set_yticks(range(count), names, fontsize=9 if count <= 25 else 5)
    if count <= 25:
        for (true, predicted), number in np.ndenumerate(confusion):
            color = "white" if fractions[true, predicted] > 0.5 else "black"
            cell = axes.text(predicted, true, str(number), ha="center", va="center", color=color, fontsize=8)
            cell.set_in_layout(False)  # to measure them takes as long as to draw them
    return figure


def calibration(reliabilities: Mapping[str, Reliability]) -> Figure:
    """Reliability diagrams over a histogram of the confidence.

    Args:
        reliabilities: label -> what `training.calibration.reliability` returns, (bins,) each; before calibration if there
            are two, and after it.
    """
    figure = Figure(figsize=(5.5, 5.6), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    colors = (ORANGE, BLUE)[-len(reliabilities) :]
    for (label, (confidence, accuracy, fraction)), color in zip(reliabilities.items(), colors):
        edges, filled = np.linspace(0, 1, len(fraction) + 1), fraction > 0
        if color == BLUE:
            above.bar(edges[:-1], accuracy, 1 / len(fraction), align="edge", color=BLUE, alpha=0.2, edgecolor=BLUE)
        above.plot(confidence[filled], accuracy[filled], "o-", ms=4, color=color, label=label)
        below.stairs(fraction, edges, color=color, fill=color == BLUE, alpha=0.5 if color == BLUE else 1)
    above.plot([0, 1], [0, 1], "--", color=GREY, label="perfect calibration")
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    below.set(xlabel="confidence", ylabel="fraction\nof images")
    figure.legend(loc="outside lower center", ncols=1)  # inside, it would hide bars
    return figure


def coverage(curve: Coverage) -> Figure:
    """Accuracy of the most confident predictions against their fraction, with its 95 % interval."""
    figure = Figure(figsize=(5.5, 3.8), layout="constrained")
    axes = figure.subplots()
    thinned = curve.thinned()
    images, accuracy = thinned.images.tolist(), thinned.accuracy
    low, high = np.array([wilson_interval(round(share * n), n) for share, n in zip(accuracy, images)]).T
    axes.fill_between(thinned.coverage, low, high, color=BLUE, alpha=0.2, lw=0, label="95 % interval")
    axes.plot(thinned.coverage, accuracy, color=BLUE, label="accuracy")
    axes.set(xlabel="coverage: fraction of the images that is decided", ylabel="accuracy", xlim=(0, 1))
    axes.set_ylim(max(0, float(accuracy[-1]) - 0.1), 1.005)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    return figure


def augmentation(rows: Mapping[str, np.ndarray]) -> Figure:
    """Named rows of uint8 images, (columns, 3, H, W) each; a column shows one image, augmented differently in each row."""
    images = np.stack(list(rows.values()))
    step = -(-max(images.shape[3:]) // 64)
    images = images[..., ::step, ::step]
    gap = max(1, images.shape[-1] // 16)
    opaque = np.full_like(images[:, :, :1], 255)
    framed = np.pad(np.concatenate([images, opaque], axis=2), [(0, 0)] * 3 + [(0, gap)] * 2)  # gaps are transparent
    height = framed.shape[3]
    sheet = framed.transpose(0, 3, 1, 4, 2).reshape(len(rows) * height, -1, 4)
    inch, names = 0.75, 0.75  # inches of an image, and left of the first one
    size = names + inch * images.shape[1], inch * len(rows)
    figure = Figure(figsize=size)
    axes = figure.add_axes((names / size[0], 0.0, 1 - names / size[0], 1.0))  # a layout engine would take twice as long
    axes.imshow(sheet, interpolation="nearest")
    axes.set_yticks([height * (row + 0.5) - gap / 2 for row in range(len(rows))], list(rows))
    axes.set_xticks([])
    hide_frame(axes)
    return figure


def class_balance(counts: np.ndarray, classes: Sequence[str], splits: Sequence[str], title: str) -> Figure:
    """Images per class, one colour per split: bars, or above 60 classes a curve over the classes, the largest first.

    Args:
        counts: shape (classes, splits).
    """
    bars = len(classes) <= 60
    figure = Figure(figsize=(8, 1.5 + 0.28 * len(classes) if bars else 4.5), layout="constrained")
    axes = figure.subplots()
    colors = (ORANGE, BLUE, GREY)
    if bars:
        left = np.zeros(len(classes))
        for split, name in enumerate(splits):
            axes.barh(range(len(classes)), counts[:, split], left=left, color=colors[split], label=name)
            left += counts[:, split]
        axes.set_yticks(range(len(classes)), [printable(name) for name in classes])
        axes.set(ylim=(len(classes) - 0.5, -0.5), xlabel="images")
    else:
        for split, name in enumerate(splits):
            axes.plot(np.arange(1, len(classes) + 1), -np.sort(-counts[:, split]), color=colors[split], label=name)
        axes.set(xlabel="class, the largest first (in each split)", ylabel="images", xlim=(1, len(classes)))
        axes.set_ylim(bottom=0)
    (axes.xaxis if bars else axes.yaxis).set_major_locator(MaxNLocator(integer=True))
    axes.set_title(title)
    axes.grid(alpha=0.3, axis="x" if bars else "both")
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=len(splits))
    return figure


def corruptions(corrupted: Corrupted) -> Figure:
    """Accuracy against the strength, from 0 without corruption: a panel per group, a line per corruption."""
    groups = corrupted.by_group
    figure = Figure(figsize=(max(4.5, 2.5 * len(groups)), 4.2), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, (group, rows) in zip(panels, groups.items()):
        for (name, accuracies), color in zip(rows.items(), SERIES):
            values = [corrupted.clean, *accuracies]
            axes.plot(values, "o-", ms=3, color=color, label=name.replace("_", " "))
        axes.set(xlabel="strength", title=group.capitalize(), ylim=(0, 1), xticks=range(len(values)))
        axes.grid(alpha=0.3)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=8)  # inside, it would hide lines
    panels[0].set_ylabel("accuracy")
    return figure


FIGURES: tuple[PageFigure[Content], ...] = (
    PageFigure(
        "curves",
        "Training",
        "Loss and accuracy per epoch.",
        lambda content: curves(content.history, content.best_epoch),
        applies=lambda content: bool(content.history),
    ),
    PageFigure(
        "augmentation",
        "Augmentation",
        "Some training images without augmentation, and as the network gets them in different epochs.",
        lambda content: augmentation(content.augmented_rows),
        applies=lambda content: bool(content.augmented_rows),
        template="augmentation.html.j2",
    ),
    PageFigure(
        "corruptions",
        "Corrupted images",
        "Accuracy on the same images with common corruptions (Hendrycks & Dietterich, 2019), from strength 1 to 5. "
        "The darker a cell, the more accuracy is lost.",
        lambda content: corruptions(content.corrupted),
        applies=lambda content: bool(content.corrupted),
        template="corruptions.html.j2",
    ),
    PageFigure(
        "corruption_examples",
        "Examples of the corruptions",
        "An image without corruption, and with each corruption at strength 1 to 5.",
        lambda content: augmentation(content.corrupted.examples),
        applies=lambda content: bool(content.corrupted),
        template="corruption_examples.html.j2",
    ),
    PageFigure(
        "confusion_matrix",
        "Confusion matrix",
        "Rows: true class. Columns: predicted class. Click a cell to see its images.",
        lambda content: confusion_matrix(content.evaluation.confusion, content.images.classes, content.title),
        template="confusion_matrix.html.j2",
    ),
    PageFigure(
        "class_balance",
        "Classes",
        "Metrics and number of images per class.",
        lambda content: class_balance(
            np.stack(list(content.class_counts.values()), axis=1),
            content.images.classes,
            list(content.class_counts),
            "Images per class",
        ),
        template="class_balance.html.j2",
    ),
    PageFigure(
        "calibration",
        "Calibration",
        "Of 100 predictions with a confidence of 0.8, 80 should be correct: the curve should follow the diagonal. "
        "Below the diagonal, the network is overconfident. Where that is significantly better on the validation images, all "
        "logits are divided by a temperature, which is fitted to them.",
        lambda content: calibration(content.reliability),
    ),
    PageFigure(
        "coverage",
        "Accuracy at coverage",
        "The images are ordered by the confidence of their predictions. The curve is the accuracy of the most confident ones if "
        "the others are left undecided, as predict.py --reject does; it finds its threshold on the validation images.",
        lambda content: coverage(content.coverage),
    ),
)
