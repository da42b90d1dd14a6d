"""The teaching notebook's network: convolutions without padding, pooling, one dense layer."""

from __future__ import annotations

import math

from torch import Tensor, nn

from experiments.config import feature_size
from experiments.models import pooling


class CNN(nn.Sequential):
    """`blocks` times convolution, 2x2 max-pooling and ReLU; then a dense layer with ReLU, dropout, and the logits.

    Pooling stands before ReLU: the two commute exactly, and ReLU then has a quarter of the elements to do. Rows and
    columns at the far edges that pooling leaves over need not be computed: of 32x32 by default 29x29 are `seen`.
    Weights are Glorot-uniform (Glorot and Bengio, 2010) and biases zero, as Keras has them.
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
        sides = [feature_size(side, kernel_size, blocks) for side in (height, width)]
        features = filters * math.prod(sides)
        layers += [nn.Flatten(), nn.Linear(features, dense_width), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
        super().__init__(*layers, nn.Linear(dense_width, classes))
        for layer in self:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        self.seen = [_seen(side, kernel_size, blocks) for side in sides]

    def forward(self, pictures: Tensor) -> Tensor:
        features = pictures
        layers = iter(self)
        for layer in layers:
            if self.training and isinstance(layer, nn.MaxPool2d) and pooling.fits_kernel(features):
                features = pooling.pooled(features, relu=True)
                next(layers)  # its ReLU
            else:
                features = layer(features)
        return features


def _seen(feature_side: int, kernel_size: int, blocks: int) -> int:
    """Pixels a side that have a part in so many features a side: `feature_size` backwards."""
    for _ in range(blocks):
        feature_side = 2 * feature_side + kernel_size - 1
    return feature_side
