"""What all figures share: colours, SVG, names, small images."""

from __future__ import annotations

import io
import re

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes

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


def draw_picture(axes: Axes, pixels: np.ndarray, x: float, y: float) -> None:
    """One picture, a little less than 1 wide, around (x, y)."""
    step = -(-max(pixels.shape[1:]) // 128)  # more than 128 pixels a side do not show on a sheet
    half = 0.47
    picture = pixels[:, ::step, ::step].transpose(1, 2, 0)
    axes.imshow(picture, extent=(x - half, x + half, y + half, y - half), interpolation="nearest")


def printable(text: str, longest: int = 24) -> str:
    """As matplotlib can draw it: no mathematics between dollar signs, nothing that UTF-8 lacks, not too long."""
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return text.encode("utf-8", "replace").decode().replace("$", r"\$")


def hide_frame(axes: Axes) -> None:
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
