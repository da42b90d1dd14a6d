"""The teaching notebook's network: convolutions without padding, pooling, one dense layer."""

from __future__ import annotations

import math

from torch import Tensor, nn

from experiments.config import feature_size
from experiments.models import pooling


class CNN(nn.Sequential):
    """`blocks` times convolution, 2x2 max-pooling and ReLU; then a dense layer with ReLU, dropout, and the logits.

    Pooling comes before ReLU: they commute exactly, and ReLU then processes a quarter of the elements. Pooling drops odd
    rows and columns at the right and lower edge, so these need not be computed: by default `used_size` is 29x29 of 32x32.
    Weights are Glorot-uniform (Glorot and Bengio, 2010) and biases zero, as in Keras.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        filters: int,
        kernel_size: int,
        dense_width: int,
        blocks: int,
        dropout: float,
    ) -> None:
        channels, height, width = image_shape
        layers: list[nn.Module] = []
        for _ in range(blocks):
            layers += [nn.Conv2d(channels, filters, kernel_size), nn.MaxPool2d(2), nn.ReLU()]
            channels = filters
        sizes = [feature_size(size, kernel_size, blocks) for size in (height, width)]
        features = filters * math.prod(sizes)
        layers += [nn.Flatten(), nn.Linear(features, dense_width), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
        super().__init__(*layers, nn.Linear(dense_width, classes))
        for layer in self:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        self.used_size = [_used_size(size, kernel_size, blocks) for size in sizes]

    def forward(self, images: Tensor) -> Tensor:
        features = images
        layers = iter(self)
        for layer in layers:
            if self.training and isinstance(layer, nn.MaxPool2d) and pooling.fits_kernel(features):
                features = pooling.max_pool2x2(features, relu=True)
                next(layers)  # its ReLU
            else:
                features = layer(features)
        return features


def _used_size(size: int, kernel_size: int, blocks: int) -> int:
    """The pixels per side that `size` features per side depend on: the inverse of `feature_size`."""
    for _ in range(blocks):
        size = 2 * size + kernel_size - 1
    return size
