"""A picture file of any kind -> the pixels that a network takes. Training, prediction and explanation all use this."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError

from experiments.config import UserError


def decoder() -> str:
    """What decodes, with its version: another version may decode other pixels from the same file."""
    return f"Pillow {PIL.__version__}"


def pictures_in(folder: Path) -> list[Path]:
    """The files in a folder and its subfolders, sorted, whose extension is one that Pillow opens."""
    return [Path(file) for file in files_in(folder) if is_picture(file)]


def is_picture(file: str) -> bool:
    """Whether the extension of the file is one that Pillow opens."""
    extension = file.rpartition(".")[2].lower()
    return Image.registered_extensions().get(f".{extension}") in Image.OPEN


def files_in(folder: Path | str) -> Iterator[str]:
    """The files in a folder and its subfolders, in the order of their names, without those that begin with a dot."""
    try:
        with os.scandir(folder) as unsorted:
            entries = sorted(unsorted, key=lambda entry: entry.name)
    except (FileNotFoundError, PermissionError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from files_in(entry.path)
        elif not entry.name.startswith(".") and entry.is_file():
            yield entry.path


def read_picture(source: Path | IO[bytes], image_size: int) -> np.ndarray:
    """The pixels of a picture file as a network takes them, uint8 (3, image_size, image_size).

    Raises:
        UserError: as `open_picture`.
    """
    return resize(open_picture(source), image_size)


def open_picture(source: Path | IO[bytes]) -> Image.Image:
    """The picture in a file of any kind that Pillow opens: upright, RGB, 8 bits, transparent parts over white.

    Raises:
        UserError: if the file is not a picture, is broken, or is too large to decode safely.
    """
    name = source if isinstance(source, Path) else getattr(source, "name", "picture")
    try:
        with Image.open(source) as image:
            return to_rgb(image)
    except FileNotFoundError:
        raise UserError(f"{name}: there is no such file") from None
    except UnidentifiedImageError:
        raise UserError(f"{name}: not a picture that Pillow can read") from None
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: {error}") from None
    except Exception as error:  # for broken files, Pillow's readers raise nearly anything
        raise UserError(f"{name}: the picture is broken ({error})") from None


def resize(picture: Image.Image, image_size: int) -> np.ndarray:
    """The pixels of an RGB picture, stretched to a square without cropping, uint8 (3, image_size, image_size)."""
    if picture.size != (image_size, image_size):
        picture = picture.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.asarray(picture).transpose(2, 0, 1)


def to_rgb(image: Image.Image) -> Image.Image:
    """An opened picture made upright, RGB, 8 bits, with transparent parts over white.

    16-bit greys are scaled to 8 bits (the scale of 32-bit greys is guessed from their values). The first frame of an
    animation is used.
    """
    image.load()  # raises an error if the file is truncated
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.float64)
        most = values.max(initial=0)
        white = 65535.0 if image.mode.startswith("I;16") else 1.0 if image.mode == "F" and most <= 1 else 255.0
        if image.mode == "I" and most > 255:
            white = 65535.0
        return Image.fromarray((values / white * 255).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
