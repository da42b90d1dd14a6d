"""Settings of the networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from experiments.config.constraints import Between


@dataclass(frozen=True)
class CNNSettings:
    """Parameters of `experiments.models.cnn.CNN`."""

    filters: Annotated[int, Between(1, 4096)]
    kernel_size: Annotated[int, Between(1, 1024)]
    dense_width: Annotated[int, Between(1, 65_536)]
    blocks: Annotated[int, Between(1, 16)]
    dropout: Annotated[float, Between(0, 0.99)]


def feature_size(image_size: int, kernel_size: int, blocks: int) -> int:
    """Pixels per side after `blocks` times a convolution without padding and 2x2 pooling; below 1, the images are too small."""
    for _ in range(blocks):
        image_size = (image_size - kernel_size + 1) // 2
    return image_size


@dataclass(frozen=True)
class ModelSettings:
    """`target` is the class that is built; `parameters` are its keyword arguments."""

    target: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class FastNetSettings:
    """Parameters of `experiments.models.fastnet.FastNet`."""

    widths: tuple[Annotated[int, Between(1, 4096)], ...]
    convolutions: Annotated[int, Between(1, 16)]
    residual: bool
    patch: Annotated[int, Between(2, 8)]
    stride: Annotated[int, Between(1, 8)]


MODELS: dict[str, type] = {  # any other target: its YAML file defines keys and types
    "experiments.models.cnn.CNN": CNNSettings,
    "experiments.models.fastnet.FastNet": FastNetSettings,
}
