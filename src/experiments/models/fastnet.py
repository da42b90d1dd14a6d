"""A narrow VGG for small images, with the findings of the CIFAR-10 speed runs.

Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv:2404.00498; Page, "How to train your ResNet", 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.models.pooling import MaxPool2x2

NOISE = 5e-4  # of the mean variance: directions with less are noise, and are not scaled up to unit variance


class Whitening(nn.Conv2d):
    """Patches, decorrelated and scaled to unit variance, each direction with both signs; only the bias is trained."""

    def __init__(self, channels: int, size: int, stride: int) -> None:
        super().__init__(channels, 2 * channels * size * size, size, stride=stride)
        self.weight.requires_grad = False

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Compute the directions from the patches of `images`, float (N, 3, H, W)."""
        patches = functional.unfold(images, self.kernel_size, stride=self.stride).transpose(1, 2).flatten(0, 1)
        mean = patches.mean(dim=0)
        variances, directions = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
        whitening = (directions / (variances + NOISE * variances.mean()).sqrt()).T
        both = torch.cat([whitening, -whitening])
        assert self.bias is not None
        self.weight.copy_(both.view_as(self.weight))
        self.bias.copy_(-both @ mean)


class Norm(nn.BatchNorm2d):
    """Batch normalisation without a scale, which the next one would cancel; with fast running averages, for short trainings."""

    def __init__(self, width: int) -> None:
        super().__init__(width, momentum=0.4)
        self.weight.requires_grad = False


def convolution(inputs: int, width: int) -> nn.Conv2d:
    """3x3 without bias; initially, the first filters return the inputs unchanged."""
    layer = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight[:inputs].detach())
    return layer


class Block(nn.Module):
    """A convolution, 2x2 max-pooling, normalisation and GELU; then further convolutions on the halved image."""

    def __init__(self, inputs: int, width: int, convolutions: int, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.first = nn.Sequential(convolution(inputs, width), MaxPool2x2(), Norm(width), nn.GELU())
        layers = [(convolution(width, width), Norm(width), nn.GELU()) for _ in range(convolutions - 1)]
        self.rest = nn.Sequential(*(part for layer in layers for part in layer))

    def forward(self, images: Tensor) -> Tensor:
        halved = self.first(images)
        features: Tensor = self.rest(halved)
        return features + halved if self.residual else features


class FastNet(nn.Module):
    """Whitened patches, blocks that each halve the image, global max-pooling, and scaled logits."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        widths: Sequence[int],
        convolutions: int,
        residual: bool,
        patch: int,
        stride: int,
    ) -> None:
        super().__init__()
        self.whitening = Whitening(image_shape[0], patch, stride)
        inputs = [self.whitening.out_channels, *widths]
        blocks = [Block(before, width, convolutions, residual) for before, width in zip(inputs, widths)]
        self.blocks = nn.Sequential(nn.GELU(), *blocks)
        self.head = nn.Linear(inputs[-1], classes, bias=False)
        nn.init.normal_(self.head.weight)
        self.scale = 1 / inputs[-1]

    def initialize(self, images: Tensor) -> None:
        """Called with training images before the first epoch, see `models.build`."""
        self.whitening.fit(images)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.blocks(self.whitening(images))
        return self.head(features.amax(dim=(2, 3))) * self.scale
