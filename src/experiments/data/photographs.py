"""Parts of photographs, decoded and resized in one step: the whole for an evaluation, a random crop for training.

pixels = fitted(Path("tiger.jpg"), 224, "crop")

JPEG files are decoded by torchvision, twice as fast as by Pillow and to the same pixels; where the result is much smaller than
the part, by Pillow, which can decode a JPEG file at a half, a quarter or an eighth of its size. Everything else, and what
torchvision refuses, is opened by `decoding.open_picture`. All of these release the interpreter lock.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
import torchvision.io  # registers the operator that decodes JPEG files
from PIL import Image
from torch import Tensor
from torch.nn import functional

from experiments.data.decoding import CENTRE, open_picture, to_rgb
from experiments.data.jpeg import SIDEWAYS, JpegHeader, jpeg_header, turn_of_jpeg, turned

WIDEST = 3  # longer / shorter side; of a longer picture, fit=crop looks only at the middle
REDUCED = 1.0  # pixels that remain, per pixel of the result, if a JPEG file is decoded at a reduced size
Source = Path | IO[bytes] | Image.Image  # an image must be upright and in RGB
decode_jpeg = getattr(torch.ops.image, "decode_jpeg", None)  # torchvision may be built without it


class Region(NamedTuple):
    """The part of an upright picture that is resized, in its pixels, and the size that it gets."""

    left: int
    top: int
    width: int
    height: int
    across: int
    down: int

    @property
    def factor(self) -> float:
        """By how much it is reduced, in the direction in which that is less."""
        return min(self.width / self.across, self.height / self.down)


RegionOf = Callable[[int, int], Region]  # (width, height) of the upright picture -> region


def fitted(source: Source, image_size: int, fit: str) -> np.ndarray:
    """The square that a network sees in an evaluation, uint8 (3, image_size, image_size).

    Args:
        fit: `crop` (the shorter side is resized to `image_size` / `CENTRE`, and the middle is cut out) or `pad` (the longer
            side is resized to `image_size`, and the rest is black).

    Raises:
        UserError: as `open_picture`.
    """
    pixels = resample(source, functools.partial(_whole if fit == "pad" else _middle, image_size))
    return squared(pixels, image_size)


def squared(pixels: np.ndarray, image_size: int) -> np.ndarray:
    """The middle of uint8 (3, height, width), with black bars where it is too small: uint8 (3, image_size, image_size)."""
    height, width = pixels.shape[1:]
    if height == width == image_size:
        return pixels
    top, left = (round((side - image_size) / 2) for side in (height, width))
    if top >= 0 and left >= 0:
        return np.ascontiguousarray(pixels[:, top : top + image_size, left : left + image_size])
    square = np.zeros((3, image_size, image_size), dtype=np.uint8)
    square[:, -top : height - top, -left : width - left] = pixels
    return square


def reduced(source: Source, shorter: int) -> np.ndarray:
    """The whole picture, its shorter side at most `shorter` pixels, uint8 (height, width, 3).

    Raises:
        UserError: as `open_picture`.
    """
    return np.ascontiguousarray(resample(source, functools.partial(_reduced, shorter)).transpose(1, 2, 0))


def _whole(image_size: int, width: int, height: int) -> Region:
    return Region(0, 0, width, height, *padded_size(image_size, width, height))


def padded_size(image_size: int, width: int, height: int) -> tuple[int, int]:
    """(width, height) of a picture whose longer side is resized to `image_size`."""
    longer = max(width, height)
    return max(1, round(image_size * width / longer)), max(1, round(image_size * height / longer))


def _middle(image_size: int, width: int, height: int) -> Region:
    shorter, most = min(width, height), WIDEST * min(width, height)
    wide, high = min(width, most), min(height, most)
    target = round(image_size / CENTRE)
    across, down = (int(target * side / shorter) for side in (wide, high))  # rounded down, as in torchvision
    return Region((width - wide) // 2, (height - high) // 2, wide, high, across, down)


def _reduced(shorter: int, width: int, height: int) -> Region:
    return Region(0, 0, width, height, *reduced_size(shorter, width, height))


def reduced_size(shorter: int, width: int, height: int) -> tuple[int, int]:
    """(width, height) of a picture whose shorter side is at most `shorter` pixels; it is never enlarged."""
    if min(width, height) <= shorter:
        return width, height
    return round(shorter * width / min(width, height)), round(shorter * height / min(width, height))


def resample(source: Source, region_of: RegionOf) -> np.ndarray:
    """The region of a picture, resized with antialiasing, uint8 (3, down, across).

    Raises:
        UserError: as `open_picture`.
    """
    if isinstance(source, Image.Image):
        return resized(np.array(source), region_of(*source.size))
    content = _content(source)
    if decode_jpeg and (header := jpeg_header(content)):
        with contextlib.suppress(RuntimeError, OSError, SyntaxError, ValueError):  # what Pillow can do is decided below
            return _from_jpeg(content, header, region_of)
    picture = open_picture(source)  # or says what is wrong
    return resized(np.array(picture), region_of(*picture.size))


def _content(source: Path | IO[bytes]) -> bytearray:
    """All bytes of a file; none if it cannot be read."""
    content = bytearray()
    if isinstance(source, Path):
        with contextlib.suppress(OSError), source.open("rb", buffering=0) as file:
            content = bytearray(os.fstat(file.fileno()).st_size)
            file.readinto(content)
    else:
        source.seek(0)
        content += source.read()
        source.seek(0)
    return content


def upright_size(path: Path) -> tuple[int, int]:
    """(width, height) of the upright picture; a JPEG file is not decoded for this.

    Raises:
        UserError: as `open_picture`.
    """
    content = _content(path)
    if decode_jpeg and (header := jpeg_header(content)):
        return (
            (header.height, header.width)
            if turn_of_jpeg(content, header) in SIDEWAYS
            else (header.width, header.height)
        )
    return open_picture(path).size


def resized(pixels: np.ndarray, region: Region) -> np.ndarray:
    """The region of an array (height, width, 3), resized, uint8 (3, down, across)."""
    part = pixels[region.top : region.top + region.height, region.left : region.left + region.width]
    # a copy for PyTorch if it cannot be written to, as that of a mapped file
    part = np.ascontiguousarray(part) if part.flags.writeable else np.array(part)
    image = torch.from_numpy(part).permute(2, 0, 1)
    if (region.down, region.across) != part.shape[:2]:
        size = (region.down, region.across)
        image = functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    return image.numpy()


def _from_jpeg(content: bytearray, header: JpegHeader, region_of: RegionOf) -> np.ndarray:
    turn = turn_of_jpeg(content, header)
    sideways = turn in SIDEWAYS
    region = region_of(header.height, header.width) if sideways else region_of(header.width, header.height)
    scale = max(scale for scale in (1, 2, 4, 8) if scale == 1 or region.factor >= scale * REDUCED)
    if scale > 1:
        return _reduced_jpeg(content, header, region, scale)
    assert decode_jpeg is not None
    pixels: Tensor = decode_jpeg(torch.frombuffer(content, dtype=torch.uint8), RGB, False)
    return resized(turned(pixels.permute(1, 2, 0).numpy(), turn), region)


RGB = torchvision.io.ImageReadMode.RGB.value


def _reduced_jpeg(content: bytearray, header: JpegHeader, region: Region, scale: int) -> np.ndarray:
    """The region, decoded at a fraction of its size."""
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
        image.draft(image.mode, (header.width // scale, header.height // scale))
        picture = to_rgb(image)
    left, top, right, bottom = (
        *(place / scale for place in region[:2]),
        min((region.left + region.width) / scale, picture.width),
        min((region.top + region.height) / scale, picture.height),
    )
    size = (region.across, region.down)
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR, (left, top, right, bottom))).transpose(2, 0, 1)
