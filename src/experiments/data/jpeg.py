"""What a JPEG file says about itself: its size, and how it must be turned to be upright."""

from __future__ import annotations

import io
import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from experiments.data.decoding import turn_of


class JpegHeader(NamedTuple):
    """What a JPEG file says before its pixels: (width, height) as they are stored, and how many bytes it takes to say it."""

    width: int
    height: int
    size: int
    tagged: bool  # it may say how the picture must be turned


FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive


def jpeg_header(content: bytearray) -> JpegHeader | None:
    """None if it is not a JPEG file of the usual kind: 8 bits, grey or three colours, not too large to be safe."""
    if content[:3] != b"\xff\xd8\xff":
        return None
    place, found, tagged = 2, None, False
    while place + 10 < len(content) and content[place] == 0xFF:
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4])
        if marker == 0xDA:  # the pixels follow
            return JpegHeader(*found, place + 2 + length, tagged) if found else None
        if marker in FRAMES:
            height, width = (int.from_bytes(content[place + start : place + start + 2]) for start in (5, 7))
            usual = content[place + 4] == 8 and content[place + 9] in (1, 3) and width * height
            if not usual or width * height > (Image.MAX_IMAGE_PIXELS or math.inf):
                return None
            found = (width, height)
        tagged |= marker == 0xE1
        place += 2 + length
    return None


def turn_of_jpeg(content: bytearray, header: JpegHeader) -> Image.Transpose | None:
    """How its pixels must be turned to be upright; None if they are."""
    if not header.tagged:
        return None
    with Image.open(io.BytesIO(content[: header.size]), formats=("JPEG",)) as image:
        return turn_of(image)


# Whether rows become columns, and then the direction of rows and columns.
TURNED = {
    Image.Transpose.FLIP_LEFT_RIGHT: (False, 1, -1),
    Image.Transpose.ROTATE_180: (False, -1, -1),
    Image.Transpose.FLIP_TOP_BOTTOM: (False, -1, 1),
    Image.Transpose.TRANSPOSE: (True, 1, 1),
    Image.Transpose.ROTATE_270: (True, 1, -1),
    Image.Transpose.TRANSVERSE: (True, -1, -1),
    Image.Transpose.ROTATE_90: (True, -1, 1),
}
SIDEWAYS = [turn for turn, (sideways, _, _) in TURNED.items() if sideways]


def turned(pixels: np.ndarray, turn: Image.Transpose | None) -> np.ndarray:
    """A view of pixels (height, width, 3), turned as `Image.transpose` would turn a picture."""
    sideways, down, across = (False, 1, 1) if turn is None else TURNED[turn]
    return (pixels.transpose(1, 0, 2) if sideways else pixels)[::down, ::across]
