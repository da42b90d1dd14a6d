"""What all figures share: colours, saving, SVG, names, small images, and the form of a table of figures."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes

from experiments.config.wording import shortened
from experiments.reports import fonts

BLUE, ORANGE, GREY = "#3366cc", "#e07020", "#888888"
SERIES = (BLUE, ORANGE, "#2a9d5c", "#a040a0", "#c02040")  # of lines in one figure
LIGHT = {"back": "#fff", "ink": "#1c2430", "soft": "#5d6878", "line": "#dde2e9", "card": "#f5f7fa"}
LIGHT |= {"blue": BLUE, "accent": "#2457b8"}
DARK = {"back": "#14181f", "ink": "#e4e8ee", "soft": "#98a3b3", "line": "#2f3744", "card": "#1d232d"}
DARK |= {"blue": "#6092f0", "accent": "#8db4ff"}  # of pages; the same names as in LIGHT

Subject = TypeVar("Subject")


class Figure(matplotlib.figure.Figure):
    """A figure that a notebook displays with any backend."""

    def _repr_png_(self) -> bytes:
        fonts.complete(self)
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=80)
        return buffer.getvalue()


@dataclass(frozen=True)
class PageFigure(Generic[Subject]):
    """A row of the table of a page's figures; `Subject` is what the page is about.

    Attributes:
        name: of the file, figures/<name>.png.
        draw: returns the figure; called only if `applies` returns True.
        template: shows the figure in the page; by default as SVG.
    """

    name: str
    heading: str
    caption: str
    draw: Callable[[Subject], Figure]
    applies: Callable[[Subject], bool] = lambda _: True
    template: str = "figure.html.j2"


def save_figures(
    folder: Path, table: Sequence[PageFigure[Subject]], subject: Subject
) -> list[tuple[PageFigure[Subject], Figure]]:
    """Save every figure that applies to `subject` in `folder`, remove the files of all others, and return (row, figure)."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for row in table:
        path = folder / f"{row.name}.png"
        if row.applies(subject):
            figure = row.draw(subject)
            save(figure, path)
            drawn.append((row, figure))
        else:
            path.unlink(missing_ok=True)
    return drawn


def save(
    figure: matplotlib.figure.Figure, path: Path, dpi: float = 110, metadata: dict[str, str] | None = None
) -> None:
    """Write the figure as PNG, with a font for every character.

    The layout is computed once, here. Matplotlib would draw the whole figure twice for it, and twice again for `svg`.
    """
    fonts.complete(figure)
    with _quiet():
        if figure.axes and (layout := figure.get_layout_engine()):
            figure.dpi = dpi
            layout.execute(figure)
            figure.set_layout_engine(None)
        figure.savefig(path, dpi=dpi, metadata=metadata)


def svg(figure: matplotlib.figure.Figure) -> str:
    """The figure as an <svg> element whose words stay text."""
    buffer = io.StringIO()
    with (
        _quiet(),
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report", "font.family": "sans-serif"}),
    ):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warning about characters that no installed font has (`fonts` names them once), nor about a figure that is too full."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph|constrained_layout")
        yield


def draw_image(axes: Axes, pixels: np.ndarray, x: float, y: float) -> None:
    """Draw an image (3, H, W), a little less than 1 wide, around (x, y)."""
    step = -(-max(pixels.shape[1:]) // 128)  # more than 128 pixels per side do not show on a sheet
    half = 0.47
    image = pixels[:, ::step, ::step].transpose(1, 2, 0)
    axes.imshow(image, extent=(x - half, x + half, y + half, y - half), interpolation="nearest")


def printable(text: str, longest: int = 24) -> str:
    """The text as matplotlib can draw it: cut to `longest` characters, without those that UTF-8 lacks, dollar signs escaped."""
    return shortened(text, longest).encode("utf-8", "replace").decode().replace("$", r"\$")


def hide_frame(axes: Axes) -> None:
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
