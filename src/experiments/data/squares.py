"""A picture of any shape -> the square of pixels that a network takes. Training, prediction and explanation all use this."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from experiments.config import UserError
from experiments.data.decoding import open_picture, resize


def read_pictures(paths: Sequence[str], image_size: int, fit: str = "squash") -> tuple[np.ndarray, list[str]]:
    """(pixels, uint8 (N, 3, image_size, image_size); messages about those that cannot be read, whose pixels are 0)."""
    pixels = np.zeros((len(paths), 3, image_size, image_size), dtype=np.uint8)
    problems = []
    for index, path in enumerate(paths):
        try:
            pixels[index] = read_picture(Path(path), image_size, fit)
        except UserError as error:
            problems.append(str(error))
    return pixels, problems


def read_picture(source: Path | IO[bytes] | Image.Image, image_size: int, fit: str = "squash") -> np.ndarray:
    """The pixels of a picture as a network takes them, uint8 (3, image_size, image_size).

    Args:
        source: a file, or an upright picture in RGB.
        fit: how it becomes a square, see data.fit.

    Raises:
        UserError: as `open_picture`.
    """
    if fit == "squash":
        return resize(source if isinstance(source, Image.Image) else open_picture(source), image_size)
    from experiments.data.photographs import fitted  # imports torch

    return fitted(source, image_size, fit)
