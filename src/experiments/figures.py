"""Arrays -> matplotlib figures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np
from PIL.Image import Image

BLUE, ORANGE, GREY = "#3366cc", "#e07020", "#888888"


class Figure(matplotlib.figure.Figure):
    """Shows itself in a notebook, whatever backend that has."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=80)
        return buffer.getvalue()


def curves(history: Sequence[Mapping[str, float]], best_epoch: int) -> Figure:
    """Loss and accuracy against the epoch, for training and validation, with the best epoch marked."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    epochs = np.arange(1, len(history) + 1)
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy")):
        for split, name, color in (("train", "training", ORANGE), ("val", "validation", BLUE)):
            axes.plot(epochs, [epoch[f"{split}/{metric}"] for epoch in history], "o-", ms=3, color=color, label=name)
        axes.axvline(best_epoch, color=GREY, ls="--", lw=1, label=f"best epoch: {best_epoch}")
        axes.set(xlabel="epoch", ylabel=metric, title=metric.capitalize())
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def confusion_matrix(confusion: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Counts (up to 25 classes) over a colour that shows the share of each row: true class down, prediction across."""
    count = len(classes)
    side = min(4 + 0.45 * count, 16)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    if count <= 100:
        axes.set_xticks(range(count), classes, rotation=90 if count > 5 else 0, fontsize=9 if count <= 25 else 5)
        axes.set_yticks(range(count), classes, fontsize=9 if count <= 25 else 5)
    if count <= 25:
        for true, said in np.ndindex(confusion.shape):
            color = "white" if shares[true, said] > 0.5 else "black"
            axes.text(said, true, str(confusion[true, said]), ha="center", va="center", color=color, fontsize=8)
    return figure


def prediction(picture: Image, pixels: np.ndarray, top: Sequence[tuple[str, float]]) -> Figure:
    """The original picture, what the network sees of it (uint8 (3, H, W)), and the most probable classes as bars."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    original, seen, bars = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
    original.imshow(picture)
    original.set_title("picture")
    seen.imshow(pixels.transpose(1, 2, 0), interpolation="nearest")
    seen.set_title(f"what the network sees ({pixels.shape[2]}x{pixels.shape[1]})")
    for axes in (original, seen):
        axes.set_axis_off()
    names, probabilities = zip(*reversed(top))
    colors = [GREY] * (len(names) - 1) + [BLUE]
    for bar, probability in zip(bars.barh([name[:20] for name in names], probabilities, color=colors), probabilities):
        inside = probability > 0.7
        x, align = (probability - 0.02, "right") if inside else (probability + 0.02, "left")
        middle = bar.get_y() + bar.get_height() / 2
        bars.text(x, middle, f"{probability:.1%}", va="center", ha=align, color="white" if inside else "black")
    bars.set(xlim=(0, 1), title=f"{top[0][0]}: {top[0][1]:.1%}", xticks=[])
    bars.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def calibration(confidence: np.ndarray, accuracy: np.ndarray, share: np.ndarray) -> Figure:
    """A reliability diagram: accuracy of what was said with so much confidence, over how often it was said; (bins,) each."""
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    edges = np.linspace(0, 1, len(share) + 1)
    filled = share > 0
    above.bar(edges[:-1], accuracy, width=1 / len(share), align="edge", color=BLUE, alpha=0.3, edgecolor=BLUE)
    above.plot(confidence[filled], accuracy[filled], "o-", ms=4, color=BLUE, label="the network")
    above.plot([0, 1], [0, 1], "--", color=GREY, label="as sure as it is right")
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    above.legend(loc="upper left")
    below.bar(edges[:-1], share, width=1 / len(share), align="edge", color=GREY)
    below.set(xlabel="confidence", ylabel="share of pictures")
    return figure


def class_balance(counts: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """Pictures a class, a bar a split; `counts` maps a split to (classes,)."""
    figure = Figure(figsize=(min(4 + 0.5 * len(classes), 14), 3.2), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(classes))
    width = 0.8 / len(counts)
    for index, ((split, values), color) in enumerate(zip(counts.items(), (ORANGE, BLUE, GREY))):
        axes.bar(places + (index - (len(counts) - 1) / 2) * width, values, width, color=color, label=split)
    if len(classes) <= 100:
        axes.set_xticks(places, classes, rotation=90 if len(classes) > 12 else 30 if len(classes) > 5 else 0)
    axes.set(ylabel="pictures", title="Pictures a class")
    axes.legend()
    return figure
