"""Cutout, which erases a square, and mixup and CutMix, which mix each image with another one of its batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from experiments.data.augmentation.draws import Draws


def draw_centres(draws: Draws, height: int, width: int) -> Tensor:
    """A random pixel for each image of this size: int64 (batch, 2), column and row."""
    columns, rows = (torch.randint(size, (draws.count,)) for size in (width, height))
    return draws.moved(torch.stack([columns, rows], dim=1))


def cutout(images: Tensor, centres: Tensor, side: int) -> Tensor:
    """Erase the part of a square around each centre that is in the image (DeVries and Taylor, 2017).

    The square gets the mean colour of its image. Like the mean of all images, which the paper uses, this makes no strong
    edges, but it does not depend on the normalisation. uint8 stays uint8.
    """
    count, channels, height, width = images.shape
    offsets = torch.arange(side, device=images.device) - side // 2
    x, y = (centres.unsqueeze(2) + offsets).unbind(1)  # (batch, side)
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)  # pixels outside fall on the edge, which is in the square
    flat = (y.unsqueeze(2) * width + x.unsqueeze(1)).view(count, 1, -1).expand(count, channels, -1)
    pixels = images.reshape(count, channels, -1)
    return pixels.scatter(2, flat, _mean(pixels).expand(flat.shape)).view(images.shape)


def _mean(pixels: Tensor) -> Tensor:
    """The mean over the last dimension, of the same type."""
    if pixels.is_floating_point():
        return pixels.mean(2, keepdim=True)
    size = pixels.shape[2]
    return ((pixels.sum(2, dtype=torch.int32, keepdim=True) + size // 2) // size).to(pixels.dtype)


class Mix(NamedTuple):
    """Which other image of the batch is mixed into each image, and how."""

    partner: Tensor  # int64 (batch,): its position in the batch
    weight: Tensor | None = None  # float (batch,): weight of the partner in a blend
    box: Tensor | None = None  # bool (batch, 1, H, W): where pixels of the partner replace those of the image


def draw_mix(mixup: float, cutmix: float, draws: Draws, height: int, width: int) -> Mix:
    """Partners by a random permutation. If both are switched on, each image gets one of them, with equal probability.

    mixup: Zhang et al., 2018. CutMix: Yun et al., 2019.
    """
    partner = draws.moved(torch.randperm(draws.count))
    weight = draws.moved(draw_beta(mixup, draws.count)) if mixup else None
    box = None
    if cutmix:
        side = draw_beta(cutmix, draws.count).sqrt()  # as a fraction of the image's
        sides = draws.moved(torch.stack([(side * width).long(), (side * height).long()], dim=1))
        box = boxes(draw_centres(draws, height, width), sides, height, width)
    if weight is not None and box is not None:
        blended = draws.moved(torch.rand(draws.count) < 0.5)
        weight, box = weight * blended, box & ~blended.view(-1, 1, 1, 1)
    return Mix(partner, weight, box)


def draw_beta(alpha: float, count: int) -> Tensor:
    """Samples (count,) of Beta(alpha, alpha), on the CPU: not every device has the Gamma distribution.

    Computed from logarithms of Gamma variates of alpha + 1, because those of a small alpha would underflow in float32.
    """
    shapes = torch.full((2, count), alpha + 1.0)
    gamma = torch.distributions.Gamma(shapes, torch.ones_like(shapes), validate_args=False).sample()
    logs = gamma.log() + torch.rand(2, count).log() / alpha
    return torch.sigmoid(logs[0] - logs[1])


def boxes(centres: Tensor, sides: Tensor, height: int, width: int) -> Tensor:
    """Whether a pixel is in the box of its image: (batch, 1, H, W); centres and sides are (batch, 2), x before y."""
    first = (centres - sides // 2).unsqueeze(2)
    last = first + sides.unsqueeze(2)
    x, y = torch.arange(width, device=centres.device), torch.arange(height, device=centres.device)
    across = (x >= first[:, 0]) & (x < last[:, 0])
    down = (y >= first[:, 1]) & (y < last[:, 1])
    return (down.unsqueeze(2) & across.unsqueeze(1)).unsqueeze(1)


def mix(images: Tensor, drawn: Mix) -> Tensor:
    """The mixed images: float32 after a blend, else of the same type."""
    others = images.index_select(0, drawn.partner)
    if drawn.weight is not None:
        images, others = images.float(), others.float()
        images = images.lerp(others, drawn.weight.view(-1, 1, 1, 1))
    if drawn.box is None:
        return images
    if images.dtype == torch.uint8:  # exact, because differences wrap around; torch.where takes ten times as long
        return images + (others - images) * drawn.box
    return images.lerp(others, drawn.box.float())


def mix_labels(labels: Tensor, classes: int, drawn: Mix) -> Tensor:
    """Class fractions, float32 (batch, classes): the partner has its weight in the blend, or its fraction of the pixels."""
    weight = torch.zeros(len(labels), device=labels.device) if drawn.weight is None else drawn.weight
    if drawn.box is not None:
        weight = weight + drawn.box.float().mean((1, 2, 3))
    one_hot = (labels.unsqueeze(1) == torch.arange(classes, device=labels.device)).float()
    return one_hot.lerp(one_hot[drawn.partner], weight.unsqueeze(1))
