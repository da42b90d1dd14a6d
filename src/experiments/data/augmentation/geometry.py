"""Flip, crop, rotate, scale, translate: in this order, drawn and then done for a whole batch at once.

Flips and shifts of whole pixels copy bytes; anything else is one affine warp, which interpolates once, not once a change.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from experiments import config

ASPECT = 4 / 3  # of a crop, at most, either way: that of torchvision's RandomResizedCrop


class Moves(NamedTuple):
    """What is done to each picture of a batch, a row a picture; None where nothing of the kind is."""

    flipped: Tensor | None = None  # bool (batch,)
    box: Tensor | None = None  # float (batch, 4): left, top, width and height of what is kept, as shares of the picture
    angle: Tensor | None = None  # float (batch,): degrees, clockwise
    scale: Tensor | None = None  # float (batch,): so many times as large
    shift: Tensor | None = None  # int64 (batch, 2): pixels to the right and down


def draw(settings: config.AugmentSettings, rows: Tensor, epoch: int) -> Moves:
    """Random moves for the pictures that are `rows` (batch,) of the training set, on its device."""
    count, device = len(rows), rows.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count, device=device).uniform_(low, high)

    reach = settings.translate
    return Moves(
        flipped=_flips(settings, rows, epoch),
        box=_boxes(uniform(1 - settings.crop, 1), *torch.rand(3, count, device=device)) if settings.crop else None,
        angle=uniform(-settings.rotate, settings.rotate) if settings.rotate else None,
        scale=uniform(1 - settings.scale, 1 + settings.scale) if settings.scale else None,
        shift=torch.randint(-reach, reach + 1, (count, 2), device=device) if reach else None,
    )


def _flips(settings: config.AugmentSettings, rows: Tensor, epoch: int) -> Tensor | None:
    if settings.flip == "random":
        return torch.rand(len(rows), device=rows.device) < 0.5
    return (_coin(rows) + epoch) % 2 == 1 if settings.flip == "alternating" else None


def _coin(rows: Tensor) -> Tensor:
    """0 or 1 for each row number, always the same and as if at random.

    With it, alternating flip (Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, section 3.6) shows every
    picture both ways in any two epochs that follow each other, and nothing has to be kept between epochs.
    """
    for _ in range(3):  # a multiplicative hash of 32 bits; with 2 rounds, neighbours are not independent
        rows = (rows ^ rows >> 16) * 0x7FEB352D & 0xFFFFFFFF
    return rows >> 31


def _boxes(area: Tensor, aspect: Tensor, left: Tensor, top: Tensor) -> Tensor:
    """Boxes (batch, 4) of such areas, shares of the picture; the rest are draws from 0 to 1, turned into what fits.

    torchvision draws the area again where the box sticks out, so that large ones come rarely; here the area is uniform,
    and the aspect log-uniform among those that fit.
    """
    widest = area.log().neg().clamp(max=math.log(ASPECT))
    aspect = ((2 * aspect - 1) * widest).exp()
    width, height = ((area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1))
    return torch.stack([left * (1 - width), top * (1 - height), width, height], dim=1)


def move(pictures: Tensor, moves: Moves) -> Tensor:
    """Pictures (batch, C, H, W) of any type after these moves: the same type, or float32 where they are warped.

    What comes in from outside is the picture's mirror image, its outermost pixels not repeated.
    """
    if moves.box is not None or moves.angle is not None or moves.scale is not None:
        return _warp(pictures.float(), moves)
    return pictures if moves.flipped is None and moves.shift is None else _copy(pictures, moves)


def _copy(pictures: Tensor, moves: Moves) -> Tensor:
    count, channels, height, width = pictures.shape
    x = torch.arange(width, device=pictures.device).view(1, 1, width)
    y = torch.arange(height, device=pictures.device).view(1, height, 1)
    if moves.shift is not None:
        right, down = moves.shift.view(count, 2, 1, 1).unbind(1)
        x, y = _mirrored(x - right, width), _mirrored(y - down, height)
    if moves.flipped is not None:
        x = torch.where(moves.flipped.view(count, 1, 1), width - 1 - x, x)
    places = torch.add(x, y, alpha=width).view(count, 1, -1).expand(count, channels, -1)
    return pictures.reshape(count, channels, -1).gather(2, places).view(pictures.shape)


def _mirrored(places: Tensor, size: int) -> Tensor:
    """Places less than `size` outside of 0 to size - 1, reflected into it."""
    return (size - 1) - ((size - 1) - places.abs()).abs()


def _warp(pictures: Tensor, moves: Moves) -> Tensor:
    """Bilinear: for each pixel of the result, the moves undone from the last to the first say where it comes from.

    Places are pixels from the middle of the picture. `align_corners` makes grid_sample reflect as the copy does.
    """
    count, _, height, width = pictures.shape
    one = pictures.new_ones(count, 1, 1)

    def column(values: Tensor | None, otherwise: Tensor) -> Tensor:
        return otherwise if values is None else values.view(count, 1, 1).float()

    x = torch.arange(width, device=pictures.device).view(1, 1, width) - (width - 1) / 2
    y = torch.arange(height, device=pictures.device).view(1, height, 1) - (height - 1) / 2
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
    return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
