"""Colour jitter: what torchvision's ColorJitter does, with factors of its own for every picture.

Pictures are float32 (batch, 3, H, W) from 0 to 255, factors (batch,). torchvision changes in a random order; here it is
always brightness, contrast, saturation, hue.
"""

from __future__ import annotations

import torch
from torch import Tensor

from experiments import config


def jitter(pictures: Tensor, settings: config.AugmentSettings) -> Tensor:
    """Pictures of any type with those changes of colour that are on; the same object where none is."""
    if settings.brightness:
        pictures = brightness(pictures.float(), _around(1, settings.brightness, pictures))
    if settings.contrast:
        pictures = contrast(pictures.float(), _around(1, settings.contrast, pictures))
    if settings.saturation:
        pictures = saturation(pictures.float(), _around(1, settings.saturation, pictures))
    if settings.hue:
        pictures = hue(pictures.float(), _around(0, settings.hue, pictures))
    return pictures


def _around(middle: float, spread: float, pictures: Tensor) -> Tensor:
    return torch.empty(len(pictures), device=pictures.device).uniform_(middle - spread, middle + spread)


def brightness(pictures: Tensor, factors: Tensor) -> Tensor:
    """0 is black, 1 changes nothing."""
    return (pictures * factors.view(-1, 1, 1, 1)).clamp_(0, 255)


def contrast(pictures: Tensor, factors: Tensor) -> Tensor:
    """0 is one grey, the mean of the picture; 1 changes nothing."""
    return _grey(pictures.mean((2, 3), keepdim=True)).lerp(pictures, factors.view(-1, 1, 1, 1)).clamp_(0, 255)


def saturation(pictures: Tensor, factors: Tensor) -> Tensor:
    """0 is the picture in grey, 1 changes nothing."""
    return _grey(pictures).lerp(pictures, factors.view(-1, 1, 1, 1)).clamp_(0, 255)


def _grey(pictures: Tensor) -> Tensor:
    """Luma as torchvision has it, (batch, 1, H, W)."""
    return 0.2989 * pictures[:, 0:1] + 0.587 * pictures[:, 1:2] + 0.114 * pictures[:, 2:3]


def hue(pictures: Tensor, shifts: Tensor) -> Tensor:
    """Turn the circle of colours by a share of it: 0 changes nothing, 0.5 makes blue of yellow."""
    red, green, blue = pictures.unbind(1)
    darkest, brightest = pictures.amin(1), pictures.amax(1)
    chroma = brightest - darkest
    divisor = chroma.clamp(min=1e-6)  # of greys it does not matter
    of_red, of_green, of_blue = (green - blue) / divisor, (blue - red) / divisor + 2, (red - green) / divisor + 4
    sixth = of_blue.lerp(of_green, (brightest == green).float()).lerp(of_red, (brightest == red).float())
    sixth = sixth.add_(6 * shifts.view(-1, 1, 1)).remainder_(6)  # on the circle: red at 0 and 6, green at 2, blue at 4
    away = sixth.unsqueeze(1) - torch.arange(0, 6, 2, device=pictures.device).view(3, 1, 1)
    shares = away.abs_().sub_(3).abs_().sub_(1).clamp_(0, 1)  # 1 up to a sixth from the channel's colour, 0 from two
    return shares.mul_(chroma.unsqueeze(1)).add_(darkest.unsqueeze(1))
