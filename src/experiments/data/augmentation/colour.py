"""Colour jitter as in torchvision's ColorJitter, with separate factors for every image.

Images are float32 (batch, 3, H, W) from 0 to 255, factors (batch,). torchvision applies the changes in random order; here
the order is always brightness, contrast, saturation, hue.
"""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.config import AugmentSettings
from experiments.data.augmentation.draws import Draws


def jitter(images: Tensor, settings: AugmentSettings, draws: Draws) -> Tensor:
    """Images of any type after the changes of colour that are switched on; the same object if there are none."""
    if settings.brightness:
        images = brightness(images.float(), draws.uniform(1 - settings.brightness, 1 + settings.brightness))
    if settings.contrast:
        images = contrast(images.float(), draws.uniform(1 - settings.contrast, 1 + settings.contrast))
    if settings.saturation:
        images = saturation(images.float(), draws.uniform(1 - settings.saturation, 1 + settings.saturation))
    if settings.hue:
        images = hue(images.float(), draws.uniform(-settings.hue, settings.hue))
    return images


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """0 is black, 1 changes nothing."""
    return (images * factors.view(-1, 1, 1, 1)).clamp_(0, 255)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """0 is uniform grey, the mean of the image; 1 changes nothing."""
    return _grey(images.mean((2, 3), keepdim=True)).lerp(images, factors.view(-1, 1, 1, 1)).clamp_(0, 255)


def saturation(images: Tensor, factors: Tensor) -> Tensor:
    """0 is the image in grey, 1 changes nothing."""
    return _grey(images).lerp(images, factors.view(-1, 1, 1, 1)).clamp_(0, 255)


def _grey(images: Tensor) -> Tensor:
    """Luma with torchvision's weights, (batch, 1, H, W)."""
    return 0.2989 * images[:, 0:1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:3]


def hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Rotate the colour circle by a fraction of a full turn: 0 changes nothing, 0.5 turns yellow into blue."""
    red, green, blue = images.unbind(1)
    darkest, brightest = images.amin(1), images.amax(1)
    chroma = brightest - darkest
    divisor = chroma.clamp(min=1e-6)  # for greys the hue does not matter
    of_red, of_green, of_blue = (green - blue) / divisor, (blue - red) / divisor + 2, (red - green) / divisor + 4
    sixth = of_blue.lerp(of_green, (brightest == green).float()).lerp(of_red, (brightest == red).float())
    sixth = sixth.add_(6 * shifts.view(-1, 1, 1)).remainder_(6)  # on the circle: red at 0 and 6, green at 2, blue at 4
    distance = sixth.unsqueeze(1) - torch.arange(0, 6, 2, device=images.device).view(3, 1, 1)
    # 1 within a sixth of a turn from the channel's colour, 0 beyond two sixths
    parts = distance.abs_().sub_(3).abs_().sub_(1).clamp_(0, 1)
    return parts.mul_(chroma.unsqueeze(1)).add_(darkest.unsqueeze(1))
