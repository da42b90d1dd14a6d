"""Pages: HTML that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import functools
import io
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from experiments.config.wording import counted, percent
from experiments.reports import drawing

SIDE = 96  # pixels per side of an image in the page, at most
SHARP = 48  # images with fewer pixels per side show their pixels; others are smoothed
SPRITE = 1_500_000  # bytes of all images in the page, at most


def render(template: str, **values: Any) -> str:
    """A page; `template` is a file of `templates/`."""
    return _environment().get_template(template).render(values)


@functools.cache  # with the compiled templates
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"light": drawing.LIGHT, "dark": drawing.DARK, "svg": drawing.svg}
    environment.filters |= {"percent": percent, "counted": counted}
    return environment


def count_card(count: int, one: str, many: str = "") -> tuple[str, str]:
    """A card of a page: a count, and its word; see `counted`."""
    number, _, word = counted(count, one, many).partition(" ")
    return number, word


def duration(seconds: float) -> str:
    return f"{seconds:,.{0 if seconds >= 10 else 1}f} s" if seconds < 6000 else f"{seconds / 60:,.0f} min"


def sprite(pixels: np.ndarray) -> dict[str, Any]:
    """All images (N, 3, H, W) in one, as a data URI; the number of images per row; and how a browser is to enlarge them."""
    columns = max(1, min(40, len(pixels)))
    side = min(SIDE, pixels.shape[2])
    sheet = Image.new("RGB", (columns * side, max(1, -(-len(pixels) // columns)) * side))
    for index, array in enumerate(pixels):
        image = Image.fromarray(array.transpose(1, 2, 0)).resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(image, (index % columns * side, index // columns * side))
    for quality in (88, 70, 40, 10, 0):
        buffer = io.BytesIO()
        sheet.save(buffer, "webp", quality=quality)
        if buffer.tell() <= SPRITE:
            break
    uri = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"uri": uri, "columns": columns, "rendering": "pixelated" if side <= SHARP else "auto"}
