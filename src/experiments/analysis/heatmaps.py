"""A figure of heatmaps over their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from experiments.data.decoding import CENTRE
from experiments.reports.drawing import Figure

# Inches: the figure, its margins, the heading of a row, the space between panels, the scale, and the three panels together.
WIDTH, MARGIN, HEADING, GAP, SCALE, PANELS = 9.6, 0.2, 0.65, 0.15, 0.13, 8.1
WIDEST = 2.0  # aspect ratio of a panel; with more, the third panel is narrower than its heading


@dataclass(frozen=True)
class Heatmap:
    """One row of `draw`.

    Attributes:
        original: uint8 (h, w, 3), of any size.
        values: float (H, W), drawn over the part of `original` that the network gets.
        pixels: what the network gets, uint8 (H, W, 3).
        headings: of the three panels.
        unit: of `values`.
        fit: how `pixels` were made from `original`: squash, crop or pad.
    """

    original: np.ndarray
    values: np.ndarray
    pixels: np.ndarray
    headings: tuple[str, str, str]
    unit: str
    fit: str = "squash"

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """(left, right, bottom, top) of what the network gets, in pixels of the original; padding is beyond its borders."""
        height, width = self.original.shape[:2]
        whole = np.array_equal(self.original, self.pixels)  # of an archive, which has nothing larger
        squares = {"crop": CENTRE * min(width, height), "pad": max(width, height)}
        across, down = (width, height) if whole or self.fit == "squash" else (squares[self.fit],) * 2
        left, top = (width - across) / 2 - 0.5, (height - down) / 2 - 0.5
        return left, left + across, top + down, top

    @property
    def panels(self) -> tuple[float, float]:
        """(width, height) of the first two panels, in inches; the third is a square of this height."""
        height, width = self.original.shape[:2]
        aspect = min(max(width / height, 1), WIDEST)
        return aspect * PANELS / (2 * aspect + 1), PANELS / (2 * aspect + 1)


def draw(rows: Sequence[Heatmap]) -> Figure:
    """One row per image: the original, the heatmap over it, and what the network gets.

    Red is evidence for the class, blue against it. Every row has a separate scale up to the 99.5th percentile, so that a
    single pixel cannot make all others pale. A row of a wide image is lower, with wide panels.
    """
    shapes = [row.panels for row in rows]
    total = MARGIN + sum(HEADING + height for *_, height in shapes)
    figure = Figure(figsize=(WIDTH, total))
    bottom = total
    for row, (wide, height) in zip(rows, shapes):
        bottom -= HEADING + height
        left, panels = MARGIN, []
        for width in (wide, wide, height, SCALE):
            panels.append(figure.add_axes((left / WIDTH, bottom / total, width / WIDTH, height / total)))
            left += width + GAP
        original, overlay, pixels, scale = panels
        for axes, heading in zip((original, overlay, pixels), row.headings):
            axes.set_title(heading, fontsize=9, parse_math=False)  # a file name may contain a $
            axes.set_axis_off()
            axes.set_anchor("N")  # so that a wide image stays below its heading
        original.imshow(row.original)
        pixels.imshow(row.pixels)
        _draw_heatmap(figure, overlay, scale, row)
    return figure


def _draw_heatmap(figure: Figure, axes: Axes, scale: Axes, row: Heatmap) -> None:
    """Draw the values in colour over the original in pale greys; they are transparent where they are near 0."""
    grey = axes.imshow(255 - (255 - row.original.mean(axis=2)) * 0.7, cmap="gray", vmin=0, vmax=255)
    limit = float(np.percentile(np.abs(row.values), 99.5)) or float(np.abs(row.values).max()) or 1.0
    opacity = np.clip(np.abs(row.values) / limit, 0, 1) ** 0.7 * 0.85
    signed = row.values.min() < 0
    image = axes.imshow(
        row.values, cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=opacity, interpolation="bilinear",
        extent=row.extent,
    )  # fmt: skip
    left, right, bottom, top = grey.get_extent()
    axes.set(xlim=(left, right), ylim=(bottom, top))  # without the padding
    bar = figure.colorbar(image, cax=scale, boundaries=np.linspace(-limit if signed else 0, limit, 200))
    ticks = [-limit, 0.0, limit] if signed else [0.0, limit]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    bar.ax.tick_params(labelsize=7)
    bar.set_label(row.unit, fontsize=8)
