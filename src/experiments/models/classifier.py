"""Raw images to logits: normalisation, then a network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

Layer = tuple[str, tuple[int, ...], int]  # kind, output shape of one image, parameters


class Normalize(nn.Module):
    """Raw images, uint8 (batch, 3, H, W), to floats, normalised by the mean and standard deviation per channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.memory_format = torch.contiguous_format
        self.register_buffer("scale", 1 / (255 * torch.tensor(std).view(3, 1, 1)))
        self.register_buffer("shift", (torch.tensor(mean) / torch.tensor(std)).view(3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        floats = torch.mul(pixels, self.scale).sub_(self.shift)  # before channels-last, whose inner loops have length 3
        return floats.contiguous(memory_format=self.memory_format)


class Classifier(nn.Module):
    """Images (batch, 3, H, W), uint8, to logits (batch, classes): `normalize`, then `network`.

    If the network has a `used_size`, the rows and columns beyond it are cut off first.
    """

    normalize: Normalize

    def __init__(self, normalize: Normalize, network: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize
        self.network = network
        self.used_size = getattr(network, "used_size", None)

    def forward(self, pixels: Tensor) -> Tensor:
        if self.used_size:
            height, width = self.used_size
            pixels = pixels[..., :height, :width]
        return self.network(self.normalize(pixels))


def count_parameters(layers: Iterable[Layer]) -> int:
    """The number of parameters of these layers."""
    return sum(parameters for *_, parameters in layers)


def list_layers(model: Classifier, image_shape: tuple[int, int, int]) -> list[Layer]:
    """(kind, output shape of one image, parameters) of every layer, in the order in which they run."""
    rows: list[Layer] = []

    def note(layer: nn.Module, _: object, output: object) -> None:
        shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
        rows.append((type(layer).__name__, shape, sum(p.numel() for p in layer.parameters(recurse=False))))

    leaves = [layer for layer in model.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(note) for layer in leaves]
    training = model.training
    try:
        device = model.normalize.scale.device
        with torch.inference_mode():
            model.eval()(torch.zeros((1, *image_shape), dtype=torch.uint8, device=device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return rows
