"""The figures of the scripts: predictions, the learning rate range test, sheets of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL.Image import Image

from experiments.analysis.pictures import SEEN
from experiments.config.wording import percent
from experiments.data import Images
from experiments.reports.drawing import BLUE, GREY, ORANGE, Figure, draw_image, hide_frame, printable


def learning_rates(lrs: np.ndarray, losses: np.ndarray, smoothed: np.ndarray, suggestion: float) -> Figure:
    """The loss of each batch, raw and smoothed, against the learning rate, (steps,) each; the suggested one is marked."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(lrs, losses, color=GREY, lw=0.7, alpha=0.7, label="batch")
    axes.plot(lrs, smoothed, color=BLUE, label="smoothed")
    axes.axvline(suggestion, color=ORANGE, ls="--", lw=1, label=f"suggested: {suggestion:.2g}")
    low, high = smoothed.min(), smoothed[: smoothed.argmin() + 1].max()
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss", title="Loss at a rising learning rate")
    axes.set_ylim(low - 0.2 * (high - low), high + 0.5 * (high - low))  # without the part where the loss explodes
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def prediction(picture: Image, pixels: np.ndarray, top: Sequence[tuple[str, float]]) -> Figure:
    """The picture, the pixels that the network gets (uint8 (3, H, W)), and the most probable classes as bars."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    original, resized, bars = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
    original.imshow(picture)
    original.set_title("picture")
    resized.imshow(pixels.transpose(1, 2, 0), interpolation="nearest")
    resized.set_title(f"{SEEN} ({pixels.shape[2]}x{pixels.shape[1]})")
    for axes in (original, resized):
        axes.set_axis_off()
    names, probabilities = zip(*reversed(top))
    colors = [GREY] * (len(names) - 1) + [BLUE]
    bars.barh(range(len(names)), probabilities, color=colors)
    bars.set_yticks(range(len(names)), [printable(name) for name in names])
    for place, probability in enumerate(probabilities):
        inside = probability > 0.7
        x, align = (probability - 0.02, "right") if inside else (probability + 0.02, "left")
        bars.text(x, place, percent(probability), va="center", ha=align, color="white" if inside else "black")
    bars.set(xlim=(0, 1), title=f"{printable(top[0][0])}: {percent(top[0][1])}", xticks=[])
    bars.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def contact_sheet(images: Images, classes: Sequence[str], title: str) -> Figure:
    """The first ten images of each class in a row, for up to 25 classes; `classes` are the names to show."""
    rows = [np.flatnonzero(images.labels == label)[:10] for label in range(min(len(classes), 25))]
    columns = max(5, *(len(row) for row in rows))  # 5 leave room for the title
    figure = Figure(figsize=(3.0 + 0.8 * columns, 0.7 + 0.8 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        for column, index in enumerate(row):
            draw_image(axes, images.image(index), column, place)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(len(rows) - 0.5, -0.5), aspect="equal", xticks=[], title=title)
    axes.set_yticks(range(len(rows)), [printable(name) for name in classes[: len(rows)]])
    hide_frame(axes)
    return figure


def image_pairs(pairs: Sequence[tuple[np.ndarray, np.ndarray]], captions: Sequence[str], title: str) -> Figure:
    """Pairs of uint8 images (3, H, W), side by side, with a caption of some lines under each pair."""
    columns = min(6, len(pairs))
    rows = -(-len(pairs) // columns)
    lines = max(caption.count("\n") + 1 for caption in captions)
    wide, high, inch = 2.3, 1.15 + 0.15 * lines, 0.8  # a pair with its caption, in widths of an image; such a width
    figure = Figure(figsize=(max(inch * wide * columns, 5), inch * high * rows + 0.5), layout="constrained")
    axes = figure.subplots()
    for place, ((first, second), caption) in enumerate(zip(pairs, captions)):
        x, y = wide * (place % columns), high * (place // columns)
        draw_image(axes, first, x, y)
        draw_image(axes, second, x + 1, y)
        axes.text(x - 0.46, y + 0.52, printable(caption, 250), fontsize=6.5, va="top", linespacing=1.2)
    axes.set(xlim=(-0.5, wide * columns - 0.7), ylim=(high * rows - 0.55, -0.5), aspect="equal", xticks=[], yticks=[])
    axes.set_title(title)
    hide_frame(axes)
    return figure
