"""One picture of any kind -> the pixels that a network takes. Training, prediction and explanation all come through here."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from experiments.config import UserError

SUFFIXES = frozenset((".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))


def read_picture(source: Path | IO[bytes], image_size: int) -> np.ndarray:
    """Pixels of a picture file, uint8, shape (3, image_size, image_size), as `open_picture` and `to_pixels` give them.

    Raises:
        UserError: naming the file, where it is not a picture, is broken, or is too large to decode safely.
    """
    return to_pixels(open_picture(source), image_size)


def open_picture(source: Path | IO[bytes]) -> Image.Image:
    """A picture file at its own size, in RGB.

    Turned as its EXIF says, transparent parts over white, 16-bit greys scaled to 8, the first frame of an animation.

    Raises:
        UserError: as `read_picture`.
    """
    name = source if isinstance(source, Path) else getattr(source, "name", source)
    try:
        with Image.open(source) as image:
            return to_rgb(image)
    except FileNotFoundError:
        raise UserError(f"{name}: there is no such file") from None
    except UnidentifiedImageError:
        raise UserError(f"{name}: not a picture that Pillow can read") from None
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: {error}") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow's readers raise for broken files
        raise UserError(f"{name}: the picture is broken ({error})") from None


def to_pixels(rgb: Image.Image, image_size: int) -> np.ndarray:
    """What the network gets of an RGB picture, uint8, shape (3, image_size, image_size).

    Width and height are both resized to `image_size`, whatever the shape: nothing is cut off.
    """
    if rgb.size != (image_size, image_size):
        rgb = rgb.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.asarray(rgb).transpose(2, 0, 1)


def pictures_in(folder: Path) -> list[Path]:
    """The picture files in a folder and the folders in it, by their suffix, sorted."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())


def to_rgb(image: Image.Image) -> Image.Image:
    """The upright picture in red, green and blue, 8 bits each, without transparency."""
    image.load()  # a truncated file is found here
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.float64)
        white = 1.0 if image.mode == "F" and values.max(initial=0) <= 1 else 255.0 if image.mode == "F" else 65535.0
        return Image.fromarray((values / white * 255).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
