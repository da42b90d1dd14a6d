"""Cutout, which blanks a square, and mixup and CutMix, which mix each picture with another one of its batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def draw_centres(shape: torch.Size, device: torch.device) -> Tensor:
    """Any pixel, for each picture of a batch of this shape: int64 (batch, 2), column and row."""
    count, _, height, width = shape
    columns, rows = (torch.randint(size, (count,), device=device) for size in (width, height))
    return torch.stack([columns, rows], dim=1)


def cutout(pictures: Tensor, centres: Tensor, side: int) -> Tensor:
    """Blank a square around each centre, as far as it lies in the picture (DeVries and Taylor, 2017).

    Blank is the picture's own mean colour: like the paper's mean of all pictures it is no edge to most surroundings, but
    it does not depend on what the data is normalised with. uint8 stays uint8.
    """
    count, channels, height, width = pictures.shape
    offsets = torch.arange(side, device=pictures.device) - side // 2
    x, y = (centres.unsqueeze(2) + offsets).unbind(1)  # (batch, side)
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)  # what sticks out falls on the edge, which is in the square
    places = (y.unsqueeze(2) * width + x.unsqueeze(1)).view(count, 1, -1).expand(count, channels, -1)
    pixels = pictures.reshape(count, channels, -1)
    return pixels.scatter(2, places, _mean(pixels).expand(places.shape)).view(pictures.shape)


def _mean(pixels: Tensor) -> Tensor:
    """Over the last dimension, of the same type."""
    if pixels.is_floating_point():
        return pixels.mean(2, keepdim=True)
    size = pixels.shape[2]
    return ((pixels.sum(2, dtype=torch.int32, keepdim=True) + size // 2) // size).to(pixels.dtype)


class Mix(NamedTuple):
    """Which other picture comes into each picture of a batch, and how."""

    partner: Tensor  # int64 (batch,): its place in the batch
    share: Tensor | None = None  # float (batch,): weight of the partner, where the two are blended
    box: Tensor | None = None  # bool (batch, 1, H, W): where the partner's pixels replace one's own


def draw_mix(mixup: float, cutmix: float, shape: torch.Size, device: torch.device) -> Mix:
    """Partners by a random permutation; where both are on, a coin for each picture says which of them it gets.

    mixup: Zhang et al., 2018. CutMix: Yun et al., 2019.
    """
    count, _, height, width = shape
    partner = torch.randperm(count, device=device)
    share = draw_beta(mixup, count, device) if mixup else None
    box = None
    if cutmix:
        side = draw_beta(cutmix, count, device).sqrt()  # as a share of the picture's
        sides = torch.stack([(side * width).long(), (side * height).long()], dim=1)
        box = boxes(draw_centres(shape, device), sides, height, width)
    if share is not None and box is not None:
        blended = torch.rand(count, device=device) < 0.5
        share, box = share * blended, box & ~blended.view(count, 1, 1, 1)
    return Mix(partner, share, box)


def draw_beta(alpha: float, count: int, device: torch.device) -> Tensor:
    """Shares (count,) from Beta(alpha, alpha).

    Logarithms of Gamma variates, made from those of alpha + 1: of a small alpha, the variates themselves are 0 in float32.
    """
    shapes = torch.full((2, count), alpha + 1.0, device=device)
    gamma = torch.distributions.Gamma(shapes, torch.ones_like(shapes), validate_args=False).sample()
    logs = gamma.log() + torch.rand(2, count, device=device).log() / alpha
    return torch.sigmoid(logs[0] - logs[1])


def boxes(centres: Tensor, sides: Tensor, height: int, width: int) -> Tensor:
    """True inside boxes, as far as they lie in the picture: (batch, 1, H, W); centres and sides are (batch, 2), x before y."""
    first = (centres - sides // 2).unsqueeze(2)
    last = first + sides.unsqueeze(2)
    x, y = torch.arange(width, device=centres.device), torch.arange(height, device=centres.device)
    across = (x >= first[:, 0]) & (x < last[:, 0])
    down = (y >= first[:, 1]) & (y < last[:, 1])
    return (down.unsqueeze(2) & across.unsqueeze(1)).unsqueeze(1)


def mix(pictures: Tensor, drawn: Mix) -> Tensor:
    """The pictures mixed: float32 where they are blended, else of the same type."""
    others = pictures.index_select(0, drawn.partner)
    if drawn.share is not None:
        pictures, others = pictures.float(), others.float()
        pictures = pictures.lerp(others, drawn.share.view(-1, 1, 1, 1))
    if drawn.box is None:
        return pictures
    if pictures.dtype == torch.uint8:  # differences wrap around and are exact; torch.where takes ten times as long
        return pictures + (others - pictures) * drawn.box
    return pictures.lerp(others, drawn.box.float())


def mix_labels(labels: Tensor, classes: int, drawn: Mix) -> Tensor:
    """Rows of class shares, float32 (batch, classes): the partner's is its weight, or the pixels that are its."""
    share = torch.zeros(len(labels), device=labels.device) if drawn.share is None else drawn.share
    if drawn.box is not None:
        share = share + drawn.box.float().mean((1, 2, 3))
    own = (labels.unsqueeze(1) == torch.arange(classes, device=labels.device)).float()
    return own.lerp(own[drawn.partner], share.unsqueeze(1))
