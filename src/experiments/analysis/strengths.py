"""The corruptions and their five strengths, for small images and for photographs. Imports nothing slow.

A picture of 32 pixels loses more by the same noise than one of 224, so the levels of both sizes stand here, and those of
other sizes are interpolated. Lengths are fractions of the picture's side. The levels of noise, zoom, fog, brightness, contrast
and JPEG are those of CIFAR-10-C and of ImageNet-C (Hendrycks & Dietterich, 2019, arXiv:1903.12261); the others are similar.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.config.errors import UserError

STRENGTHS = (1, 2, 3, 4, 5)
SMALL, LARGE = 32, 224  # pixels per side
Levels = Sequence[Sequence[float]]  # a tuple per strength


@dataclass(frozen=True)
class Corruption:
    """A row of the table: its group, and its levels of each strength."""

    group: str
    small: Levels
    large: Levels

    def levels(self, strength: int, side: int) -> tuple[float, ...]:
        """The levels for pictures of `side` pixels, interpolated on a logarithmic scale, and constant beyond both sizes."""
        place = min(max(math.log(side / SMALL) / math.log(LARGE / SMALL), 0), 1)
        pairs = zip(self.small[strength - 1], self.large[strength - 1])
        return tuple(small ** (1 - place) * large**place for small, large in pairs)


def _one(*values: float) -> Levels:
    return [(value,) for value in values]


def _pixels(side: int, *values: float) -> Levels:
    return [(value / side,) for value in values]


CORRUPTIONS = {  # function in `corruptions`
    # standard deviation
    "gaussian_noise": Corruption("noise", _one(0.04, 0.06, 0.08, 0.09, 0.10), _one(0.08, 0.12, 0.18, 0.26, 0.38)),
    # photons per white pixel
    "shot_noise": Corruption("noise", _one(500, 250, 100, 75, 50), _one(60, 25, 12, 5, 3)),
    # fraction of the values that become black or white
    "impulse_noise": Corruption("noise", _one(0.01, 0.02, 0.03, 0.05, 0.07), _one(0.03, 0.06, 0.09, 0.17, 0.27)),
    # radius of the disk
    "defocus_blur": Corruption("blur", _pixels(32, 0.8, 1.0, 1.2, 1.5, 2.0), _pixels(224, 3, 4, 6, 8, 10)),
    # standard deviation of the displacement of a pixel
    "glass_blur": Corruption("blur", _pixels(32, 0.4, 0.5, 0.6, 0.75, 0.9), _pixels(224, 1.0, 1.4, 1.8, 2.3, 3.0)),
    # length of the path
    "motion_blur": Corruption("blur", _pixels(32, 2, 3, 4, 5, 6), _pixels(224, 8, 12, 16, 22, 28)),
    # largest enlargement
    "zoom_blur": Corruption("blur", _one(1.06, 1.11, 1.16, 1.21, 1.26), _one(1.11, 1.16, 1.21, 1.26, 1.31)),
    # fraction of the picture where flakes start, side of a flake, length of its path, whitening of the picture
    "snow": Corruption(
        "weather",
        [
            (0.01, 0.03, 0.06, 0.05),
            (0.02, 0.03, 0.08, 0.1),
            (0.03, 0.04, 0.1, 0.12),
            (0.04, 0.05, 0.1, 0.16),
            (0.06, 0.05, 0.12, 0.2),
        ],
        [
            (0.01, 0.01, 0.03, 0.2),
            (0.02, 0.01, 0.04, 0.3),
            (0.03, 0.015, 0.05, 0.35),
            (0.04, 0.02, 0.05, 0.4),
            (0.05, 0.02, 0.06, 0.5),
        ],
    ),
    # thickness of the ice
    "frost": Corruption("weather", _one(0.2, 0.3, 0.4, 0.5, 0.6), _one(0.4, 0.5, 0.6, 0.7, 0.8)),
    # thickness, and how fast its structures fade with their size
    "fog": Corruption(
        "weather",
        [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
        [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
    ),
    # added to the value of hue, saturation, value
    "brightness": Corruption("weather", _one(0.05, 0.1, 0.15, 0.2, 0.3), _one(0.1, 0.2, 0.3, 0.4, 0.5)),
    # fraction that is left
    "contrast": Corruption("digital", _one(0.75, 0.5, 0.4, 0.3, 0.15), _one(0.4, 0.3, 0.2, 0.1, 0.05)),
    # standard deviation of the displacement, and the distance over which it changes
    "elastic_transform": Corruption(
        "digital",
        [(0.008, 0.1), (0.012, 0.09), (0.017, 0.08), (0.022, 0.08), (0.027, 0.08)],
        [(0.006, 0.05), (0.009, 0.05), (0.012, 0.045), (0.015, 0.045), (0.018, 0.045)],
    ),
    # pixels per side that are left, as a fraction
    "pixelate": Corruption("digital", _one(0.95, 0.85, 0.75, 0.6, 0.45), _one(0.6, 0.5, 0.4, 0.3, 0.25)),
    # quality
    "jpeg_compression": Corruption("digital", _one(80, 65, 58, 50, 40), _one(25, 18, 15, 10, 7)),
}
GROUPS = tuple(dict.fromkeys(corruption.group for corruption in CORRUPTIONS.values()))


def chosen(names: str | None) -> tuple[str, ...]:
    """The corruptions that are named, in the order of the table: all, or a list of names and groups, separated by commas.

    Raises:
        UserError: there is no corruption and no group of a name.
    """
    wanted = [name.strip() for name in names.split(",")] if names is not None else list(GROUPS)
    known = (*CORRUPTIONS, *GROUPS)
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(
            f"--only {', '.join(unknown)}: must be of {', '.join(CORRUPTIONS)}; or a group: {', '.join(GROUPS)}"
        )
    return tuple(name for name, corruption in CORRUPTIONS.items() if name in wanted or corruption.group in wanted)
