"""Pages: HTML that asks for nothing from elsewhere."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

SIDE = 48  # pixels of a picture in the page, at most
SPRITE = 1_500_000  # bytes of all pictures in the page, at most


def render(template: str, **values: Any) -> str:
    """A page; `template` is a file of `templates/`."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True).get_template(template).render(values)


def sprite(pixels: np.ndarray) -> dict[str, Any]:
    """All pictures (N, 3, H, W) in one, as a data address, and how many stand in a row."""
    columns = max(1, min(40, len(pixels)))
    side = min(SIDE, pixels.shape[2])
    sheet = Image.new("RGB", (columns * side, max(1, -(-len(pixels) // columns)) * side))
    for index, picture in enumerate(pixels):
        image = Image.fromarray(picture.transpose(1, 2, 0)).resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(image, (index % columns * side, index // columns * side))
    for quality in (88, 70, 40, 10, 0):
        buffer = io.BytesIO()
        sheet.save(buffer, "webp", quality=quality)
        if buffer.tell() <= SPRITE:
            break
    return {"uri": f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}", "columns": columns}
