"""Flip, crop, rotate, scale, translate, in this order: drawn and then applied for a whole batch at once.

Flips and shifts by whole pixels copy bytes. Everything else is one affine warp, so that there is only one interpolation.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from experiments.config import AugmentSettings
from experiments.data.augmentation.draws import Draws

ASPECT = 4 / 3  # largest aspect ratio of a crop, and 1 / ASPECT the smallest, as in torchvision's RandomResizedCrop


class Moves(NamedTuple):
    """The moves of a batch, one row per image; None if a move is switched off."""

    flipped: Tensor | None = None  # bool (batch,)
    box: Tensor | None = None  # float (batch, 4): left, top, width, height of the crop, as fractions of the image
    angle: Tensor | None = None  # float (batch,): degrees, clockwise
    scale: Tensor | None = None  # float (batch,): factor by which the image is enlarged
    shift: Tensor | None = None  # int64 (batch, 2): pixels to the right and down


def draw(settings: AugmentSettings, indices: Tensor, epoch: int, reach: int, draws: Draws) -> Moves:
    """Random moves for the images with these `indices` (batch,) in the training set.

    Args:
        reach: the maximum shift in pixels.
    """
    uniform, count = draws.uniform, draws.count
    return Moves(
        flipped=_flips(settings, indices, epoch, draws),
        box=_boxes(uniform(1 - settings.crop, 1), *map(draws.moved, torch.rand(3, count))) if settings.crop else None,
        angle=uniform(-settings.rotate, settings.rotate) if settings.rotate else None,
        scale=uniform(1 - settings.scale, 1 + settings.scale) if settings.scale else None,
        shift=draws.moved(torch.randint(-reach, reach + 1, (count, 2))) if reach else None,
    )


def _flips(settings: AugmentSettings, indices: Tensor, epoch: int, draws: Draws) -> Tensor | None:
    if settings.flip == "random":
        return draws.moved(torch.rand(draws.count) < 0.5)
    if settings.flip == "none":
        return None
    here = indices if draws.rows is None else indices[draws.rows.to(indices.device)]
    return (_coin(here) + epoch) % 2 == 1


def _coin(indices: Tensor) -> Tensor:
    """0 or 1 for each index: always the same, and as if drawn at random.

    With it, alternating flip (Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, section 3.6) shows every
    image both ways in any two consecutive epochs, and no state is kept between epochs.
    """
    for _ in range(3):  # a multiplicative hash of 32 bits; with 2 rounds, neighbours are not independent
        indices = (indices ^ indices >> 16) * 0x7FEB352D & 0xFFFFFFFF
    return indices >> 31


def _boxes(area: Tensor, aspect: Tensor, left: Tensor, top: Tensor) -> Tensor:
    """Boxes (batch, 4) with areas `area`, as fractions of the image; the other arguments are draws from 0 to 1.

    torchvision draws the area again if the box exceeds the image, so large boxes are rare. Here the area is uniform, and
    the aspect ratio is log-uniform among those that fit.
    """
    widest = area.log().neg().clamp(max=math.log(ASPECT))
    aspect = ((2 * aspect - 1) * widest).exp()
    width, height = ((area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1))
    return torch.stack([left * (1 - width), top * (1 - height), width, height], dim=1)


def move(images: Tensor, moves: Moves) -> Tensor:
    """Images (batch, C, H, W) of any type after these moves: of the same type, or float32 after a warp.

    Pixels from outside the image are those of its mirror image, in which the outermost pixels are not repeated.
    """
    if moves.box is not None or moves.angle is not None or moves.scale is not None:
        return _warp(images.float(), moves)
    return images if moves.flipped is None and moves.shift is None else _copy(images, moves)


def _copy(images: Tensor, moves: Moves) -> Tensor:
    count, channels, height, width = images.shape
    x = torch.arange(width, device=images.device).view(1, 1, width)
    y = torch.arange(height, device=images.device).view(1, height, 1)
    if moves.shift is not None:
        right, down = moves.shift.view(count, 2, 1, 1).unbind(1)
        x, y = _mirrored(x - right, width), _mirrored(y - down, height)
    if moves.flipped is not None:
        x = torch.where(moves.flipped.view(count, 1, 1), width - 1 - x, x)
    flat = torch.add(x, y, alpha=width).view(count, 1, -1).expand(count, channels, -1)
    return images.reshape(count, channels, -1).gather(2, flat).view(images.shape)


def _mirrored(coordinates: Tensor, size: int) -> Tensor:
    """Coordinates that are less than `size` outside of 0 to size - 1, reflected into this range."""
    return (size - 1) - ((size - 1) - coordinates.abs()).abs()


def _warp(images: Tensor, moves: Moves) -> Tensor:
    """Bilinear interpolation; for each pixel of the result, the moves are undone from the last to the first.

    Coordinates are in pixels from the middle of the image. `align_corners` makes grid_sample reflect as the copy does.
    """
    count, _, height, width = images.shape
    one = images.new_ones(count, 1, 1)

    def column(values: Tensor | None, otherwise: Tensor) -> Tensor:
        return otherwise if values is None else values.view(count, 1, 1).float()

    x = torch.arange(width, device=images.device).view(1, 1, width) - (width - 1) / 2
    y = torch.arange(height, device=images.device).view(1, height, 1) - (height - 1) / 2
    if moves.shift is not None:
        x, y = x - column(moves.shift[:, 0], one), y - column(moves.shift[:, 1], one)
    angle, scale = torch.deg2rad(column(moves.angle, 0 * one)), column(moves.scale, one)
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    x, y = cosine * x + sine * y, cosine * y - sine * x
    if moves.box is not None:
        left, top, wide, high = moves.box.view(count, 4, 1, 1).unbind(1)
        x, y = x * wide + (left + wide / 2 - 0.5) * width, y * high + (top + high / 2 - 0.5) * height
    if moves.flipped is not None:
        x = torch.where(moves.flipped.view(count, 1, 1), -x, x)
    grid = torch.stack([x * (2 / (width - 1)), y * (2 / (height - 1))], dim=3)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
