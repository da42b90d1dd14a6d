"""A figure of heatmaps over their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from experiments.data.decoding import CENTRE
from experiments.reports.drawing import Figure


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


def draw(rows: Sequence[Heatmap]) -> Figure:
    """One row per image: the original, the heatmap over it, and what the network gets.

    Red is evidence for the class, blue against it. Every row has a separate scale up to the 99.5th percentile, so that a
    single pixel cannot make all others pale.
    """
    figure = Figure(figsize=(9.6, 3.4 * len(rows)))
    inches = figure.get_figheight()  # so that the margins do not depend on the number of rows
    grid = figure.add_gridspec(
        len(rows), 4, width_ratios=(1, 1, 1, 0.05), left=0.02, right=0.91, wspace=0.06, hspace=0.27,
        bottom=0.1 / inches, top=1 - 0.65 / inches,
    )  # fmt: skip
    for number, row in enumerate(rows):
        original, overlay, pixels, scale = (figure.add_subplot(grid[number, column]) for column in range(4))
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
