"""Settings of the networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from experiments.config.constraints import Between, Role, Text
from experiments.config.published import LIBRARIES


@dataclass(frozen=True)
class NetworkSettings:
    """The keys that every network has, a custom one, too."""

    weights: Annotated[Text | None, Role.CONTENT]


@dataclass(frozen=True)
class CNNSettings(NetworkSettings):
    """Parameters of `experiments.models.cnn.CNN`."""

    filters: Annotated[int, Between(1, 4096)]
    kernel_size: Annotated[int, Between(1, 1024)]
    dense_width: Annotated[int, Between(1, 65_536)]
    blocks: Annotated[int, Between(1, 16)]
    dropout: Annotated[float, Between(0, 0.99)]


def feature_size(image_size: int, kernel_size: int, blocks: int) -> int:
    """Pixels per side after `blocks` unpadded convolutions, each with 2x2 pooling; below 1 if the image is too small."""
    for _ in range(blocks):
        image_size = (image_size - kernel_size + 1) // 2
    return image_size


@dataclass(frozen=True)
class ModelSettings:
    """`target` is the class that is built; `parameters` are its keyword arguments; `weights` are the initial ones."""

    target: str
    parameters: Mapping[str, Any]
    weights: str | None = None

    @property
    def choice(self) -> str:
        """The key that chooses the network, and its value."""
        return f"model.name={self.title}" if self.target in LIBRARIES else f"model._target_={self.target}"

    @property
    def title(self) -> str:
        """The network, as named in messages."""
        if self.target in LIBRARIES:
            return str(self.parameters["name"])
        return self.target.rpartition(".")[2] if self.target in MODELS else self.target


@dataclass(frozen=True)
class FastNetSettings(NetworkSettings):
    """Parameters of `experiments.models.fastnet.FastNet`."""

    widths: tuple[Annotated[int, Between(1, 4096)], ...]
    convolutions: Annotated[int, Between(1, 16)]
    residual: bool
    patch: Annotated[int, Between(2, 8)]
    stride: Annotated[int, Between(1, 8)]


@dataclass(frozen=True)
class PublishedSettings(NetworkSettings):
    """Parameters of a network of torchvision or timm."""

    name: Text


MODELS: dict[str, type] = {  # any other target: its YAML file defines keys and types
    "experiments.models.cnn.CNN": CNNSettings,
    "experiments.models.fastnet.FastNet": FastNetSettings,
    **dict.fromkeys(LIBRARIES, PublishedSettings),
}
