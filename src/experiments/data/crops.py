"""Random resized crops, cut from the photographs themselves and resized once.

crops = RandomCrops(splits.train, (0.35, 1), (0.75, 1.333))
draws = crops.draw(1000)              # for a whole epoch, in the main thread
pixels = crops.cut(7, draws[0])       # in any thread

A small image has lost what a crop of it would need. So crops are cut from the files, or, if these are decoded once, from copies
that are somewhat larger than the images. Images without files (CIFAR, digits) are cut themselves.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from experiments.data.copies import Copies
from experiments.data.images import Images
from experiments.data.photographs import Region, padded_size, resample, resized, squared


class RandomCrops:
    """Crops of a part of the area, between the two of `scale`, with a width / height between the two of `ratio`.

    A crop becomes a square as the whole photograph does for an evaluation: with data.fit=pad it has about the shape of the
    photograph (`ratio` is relative to it) and is padded; else it is nearly square and is stretched.
    """

    def __init__(self, images: Images, scale: Sequence[float], ratio: Sequence[float]) -> None:
        self.source = images.source
        self.scale = scale
        self.ratio = ratio
        files = self.source.files
        self.padded = files is not None and files.decoding.fit == "pad"
        self.copies = Copies(files) if files and not self.source.on_the_fly else None

    def draw(self, count: int) -> np.ndarray:
        """Random numbers from 0 to 1 for `count` crops, float32 (count, 4), from torch's generator of the CPU."""
        return torch.rand(count, 4).numpy()

    def cut(self, index: int, drawn: np.ndarray) -> np.ndarray:
        """The crop of a picture of `source` that these four random numbers mean, uint8 (3, H, W)."""
        size = self.source.image_shape[2]
        region_of = functools.partial(region, drawn.tolist(), self.scale, self.ratio, size, padded=self.padded)
        if self.copies:
            crop = _cut(self.copies.picture(index), region_of)
        elif self.source.files:
            crop = resample(Path(self.source.files.files.paths[index]), region_of)
        else:
            crop = _cut(self.source.image(index).transpose(1, 2, 0), region_of)
        return squared(crop, size)

    def release(self) -> None:
        """Forget the pages that were read."""
        if self.copies:
            self.copies.release()


def region(
    drawn: Sequence[float],
    scale: Sequence[float],
    ratio: Sequence[float],
    size: int,
    width: int,
    height: int,
    padded: bool = False,
) -> Region:
    """The crop of a picture of this size, which becomes a square of `size` pixels, or with `padded` fits into one.

    As in torchvision's RandomResizedCrop the area is uniform, and the logarithm of the ratio. torchvision draws both again
    if the crop does not fit; here the ratio is drawn from those that fit, or the largest crop of the nearest ratio is taken.
    """
    of_area, of_ratio, of_left, of_top = drawn
    area = (scale[0] + (scale[1] - scale[0]) * of_area) * width * height
    narrowest, widest = (end * width / height for end in ratio) if padded else ratio
    least, most = max(narrowest, area / height**2), min(widest, width**2 / area)
    if least <= most:
        shape = least * (most / least) ** of_ratio
    else:
        shape = widest if width > height else narrowest
        area = min(width**2 / shape, height**2 * shape)
    wide = min(width, max(1, round(math.sqrt(area * shape))))
    high = min(height, max(1, round(math.sqrt(area / shape))))
    left, top = int(of_left * (width - wide + 1)), int(of_top * (height - high + 1))
    across, down = padded_size(size, wide, high) if padded else (size, size)
    return Region(min(left, width - wide), min(top, height - high), wide, high, across, down)


def _cut(pixels: np.ndarray, region_of: functools.partial[Region]) -> np.ndarray:
    return resized(pixels, region_of(pixels.shape[1], pixels.shape[0]))
