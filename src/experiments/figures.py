"""Arrays -> matplotlib figures."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from PIL.Image import Image

from experiments.data import Images

BLUE, ORANGE, GREY = "#3366cc", "#e07020", "#888888"


class Figure(matplotlib.figure.Figure):
    """Shows itself in a notebook, whatever backend that has."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=80)
        return buffer.getvalue()


def svg(figure: Figure) -> str:
    """The figure as an <svg> element whose words stay text."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


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


def learning_rates(rates: np.ndarray, losses: np.ndarray, smoothed: np.ndarray, suggestion: float) -> Figure:
    """The loss of each batch, and smoothed, against the learning rate, (steps,) each, with the suggested rate marked."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color=GREY, lw=0.7, alpha=0.7, label="batch")
    axes.plot(rates, smoothed, color=BLUE, label="smoothed")
    axes.axvline(suggestion, color=ORANGE, ls="--", lw=1, label=f"suggested: {suggestion:.2g}")
    low, high = smoothed.min(), smoothed[: smoothed.argmin() + 1].max()
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss", title="Loss at a rising learning rate")
    axes.set_ylim(low - 0.2 * (high - low), high + 0.5 * (high - low))  # not where it has exploded
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
        names = [shown(name) for name in classes]
        axes.set_xticks(range(count), names, rotation=90 if count > 5 else 0, fontsize=9 if count <= 25 else 5)
        axes.set_yticks(range(count), names, fontsize=9 if count <= 25 else 5)
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
    bars.barh(range(len(names)), probabilities, color=colors)
    bars.set_yticks(range(len(names)), [shown(name) for name in names])
    for place, probability in enumerate(probabilities):
        inside = probability > 0.7
        x, align = (probability - 0.02, "right") if inside else (probability + 0.02, "left")
        bars.text(x, place, f"{probability:.1%}", va="center", ha=align, color="white" if inside else "black")
    bars.set(xlim=(0, 1), title=f"{shown(top[0][0])}: {top[0][1]:.1%}", xticks=[])
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


def contact_sheet(images: Images, classes: Sequence[str], title: str) -> Figure:
    """The first ten pictures of each class in a row, of up to 25 classes, which may go by other names here."""
    rows = [np.flatnonzero(images.labels == label)[:10] for label in range(min(len(classes), 25))]
    columns = max(5, *(len(row) for row in rows))  # 5 leave room for the title
    figure = Figure(figsize=(3.0 + 0.8 * columns, 0.7 + 0.8 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        for column, index in enumerate(row):
            _picture(axes, images.picture(index), column, place)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(len(rows) - 0.5, -0.5), aspect="equal", xticks=[], title=title)
    axes.set_yticks(range(len(rows)), [shown(name) for name in classes[: len(rows)]])
    _frameless(axes)
    return figure


def augmentation(pictures: np.ndarray, rows: Sequence[str]) -> Figure:
    """Rows of uint8 pictures, (rows, columns, 3, H, W), in each column the same one after other changes."""
    step = -(-max(pictures.shape[3:]) // 64)
    pictures = pictures[..., ::step, ::step]
    gap = max(1, pictures.shape[-1] // 16)
    opaque = np.full_like(pictures[:, :, :1], 255)
    framed = np.pad(np.concatenate([pictures, opaque], axis=2), [(0, 0)] * 3 + [(0, gap)] * 2)  # gaps are transparent
    height = framed.shape[3]
    sheet = framed.transpose(0, 3, 1, 4, 2).reshape(len(rows) * height, -1, 4)
    inch, names = 0.75, 0.75  # of a picture; left of the first
    size = names + inch * pictures.shape[1], inch * len(rows)
    figure = Figure(figsize=size)
    axes = figure.add_axes((names / size[0], 0.0, 1 - names / size[0], 1.0))  # laying it out would take twice as long
    axes.imshow(sheet, interpolation="nearest")
    axes.set_yticks([height * (row + 0.5) - gap / 2 for row in range(len(rows))], rows)
    axes.set_xticks([])
    _frameless(axes)
    return figure


def class_balance(counts: np.ndarray, classes: Sequence[str], splits: Sequence[str], title: str) -> Figure:
    """Pictures a class, a colour a split: bars, or above 60 classes a curve over the classes from large to small.

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
        axes.set_yticks(range(len(classes)), [shown(name) for name in classes])
        axes.set(ylim=(len(classes) - 0.5, -0.5), xlabel="pictures")
    else:
        for split, name in enumerate(splits):
            axes.plot(np.arange(1, len(classes) + 1), -np.sort(-counts[:, split]), color=colors[split], label=name)
        axes.set(xlabel="class, the largest first (in each split)", ylabel="pictures", xlim=(1, len(classes)))
        axes.set_ylim(bottom=0)
    (axes.xaxis if bars else axes.yaxis).set_major_locator(MaxNLocator(integer=True))
    axes.set_title(title)
    axes.grid(alpha=0.3, axis="x" if bars else "both")
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=len(splits))
    return figure


def picture_pairs(pairs: Sequence[tuple[np.ndarray, np.ndarray]], captions: Sequence[str], title: str) -> Figure:
    """Pairs of uint8 pictures of shape (3, H, W), side by side, a caption of up to three lines under each pair."""
    columns = min(6, len(pairs))
    rows = -(-len(pairs) // columns)
    wide, high, inch = 2.3, 1.6, 0.8  # of a pair with its caption in widths of a picture; of such a width
    figure = Figure(figsize=(max(inch * wide * columns, 5), inch * high * rows + 0.5), layout="constrained")
    axes = figure.subplots()
    for place, ((first, second), caption) in enumerate(zip(pairs, captions)):
        x, y = wide * (place % columns), high * (place // columns)
        _picture(axes, first, x, y)
        _picture(axes, second, x + 1, y)
        axes.text(x - 0.46, y + 0.52, shown(caption, 120), fontsize=6.5, va="top", linespacing=1.2)
    axes.set(xlim=(-0.5, wide * columns - 0.7), ylim=(high * rows - 0.55, -0.5), aspect="equal", xticks=[], yticks=[])
    axes.set_title(title)
    _frameless(axes)
    return figure


def _picture(axes: Axes, pixels: np.ndarray, x: float, y: float) -> None:
    """One picture, a little less than 1 wide, around (x, y)."""
    step = -(-max(pixels.shape[1:]) // 128)  # more than 128 pixels a side do not show on a sheet
    half = 0.47
    picture = pixels[:, ::step, ::step].transpose(1, 2, 0)
    axes.imshow(picture, extent=(x - half, x + half, y + half, y - half), interpolation="nearest")


def shown(text: str, longest: int = 24) -> str:
    """As matplotlib can draw it: no mathematics between dollar signs, nothing that UTF-8 lacks, not too long."""
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return text.encode("utf-8", "replace").decode().replace("$", r"\$")


def _frameless(axes: Axes) -> None:
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
