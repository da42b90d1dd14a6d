"""The user's pictures: finding them, reading them, and saving a figure about one."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import Image

from experiments.config import DataSettings, UserError
from experiments.data.decoding import open_picture, to_rgb
from experiments.data.finding import pictures_in
from experiments.data.squares import read_picture

if TYPE_CHECKING:
    from experiments.reports.drawing import Figure

AT_ONCE = 250  # pictures that are read and classified together
SEEN = "what the network sees"  # the heading of such pixels in figures
SHOWN = 512  # pixels per side of an original that are kept, so that photographs do not fill the memory


@dataclass(frozen=True)
class Picture:
    """A picture of the user.

    Attributes:
        file: its path, or `-` if it is not a file.
        original: upright, in RGB, at most `SHOWN` pixels per side.
        pixels: what the network gets, uint8 (3, H, W).
    """

    file: str
    original: Image.Image
    pixels: np.ndarray

    @classmethod
    def read(cls, source: str | IO[bytes] | Image.Image, settings: DataSettings) -> Picture:
        """Read a picture from a path, an open file, or an image of Pillow, as the pictures of a run are read.

        Raises:
            UserError: it cannot be read; the message names the file.
        """
        if isinstance(source, Image.Image):
            original = to_rgb(source).copy()
            pixels = read_picture(original, settings.image_size, settings.fit)
        else:
            file = Path(source) if isinstance(source, str) else _twice(source)
            original = open_picture(file)
            pixels = read_picture(original if settings.fit == "squash" else file, settings.image_size, settings.fit)
        original.thumbnail((SHOWN, SHOWN))
        return cls(source if isinstance(source, str) else "-", original, pixels)


def _twice(file: IO[bytes]) -> IO[bytes]:
    """The content of a file, which can be read twice, as standard input cannot; of the same name, for messages."""
    content = io.BytesIO(file.read())
    content.name = getattr(file, "name", "picture")
    return content


def find_pictures(paths: Iterable[str | Path]) -> tuple[list[str], list[UserError]]:
    """(files, errors): every path that is not a folder, and all pictures in those that are.

    The errors name the folders without pictures.
    """
    files: list[str] = []
    errors: list[UserError] = []
    for path in map(str, paths):
        if not Path(path).is_dir():
            files.append(path)
        elif found := pictures_in(Path(path)):
            files += map(str, found)
        else:
            errors.append(UserError(f"{path}: there are no pictures in this folder"))
    return files, errors


def save_figure(figure: Figure, folder: Path, name: str, source: str, option: str, dpi: float) -> Path:
    """Write a figure as PNG into `folder`, and return its path: the first of name.png, name_2.png, ... that is free.

    A name is free if there is no such file, or one of the same `source`, which is then replaced.

    Args:
        source: identifies what the figure shows; stored in the PNG.
        option: the option of the command line that named the folder.

    Raises:
        UserError: nothing can be written there.
    """
    from experiments.reports.drawing import save  # imports matplotlib, which a prediction without figures does not need

    stem = re.sub(r"[^\w.-]+", "_", name)
    names = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = next(path for name in names if not (path := folder / f"{name}.png").exists() or _source(path) == source)
        save(figure, path, dpi, {"Source": source})
    except OSError as error:
        raise UserError(f"{option} {folder}: nothing can be written there ({error.strerror or error})") from None
    return path


def _source(path: Path) -> str | None:
    """The source that `save_figure` stored; None in any other file."""
    try:
        with Image.open(path) as image:
            return image.info.get("Source")
    except (OSError, SyntaxError, ValueError):
        return None
