"""Raw images to logits: normalisation, then a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from experiments.config.wording import counted

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

    Attributes:
        head_prefix: of the names of the head's parameters in `network`, such as "fc."; a network may have this attribute,
            else it is the name of its last layer.
        weights_digest: of the weights from which training starts; None for random ones.
    """

    normalize: Normalize
    weights_digest: str | None = None

    def __init__(self, normalize: Normalize, network: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize
        self.network = network
        self.used_size = getattr(network, "used_size", None)
        layers = [
            name for name, layer in network.named_modules() if name and any(True for _ in layer.parameters(False))
        ]
        self.head_prefix: str = getattr(network, "head_prefix", "") or f"{(layers or [''])[-1]}."

    def forward(self, pixels: Tensor) -> Tensor:
        if self.used_size:
            height, width = self.used_size
            pixels = pixels[..., :height, :width]
        return self.network(self.normalize(pixels))


@dataclass(frozen=True)
class Layers:
    """The layers of a model, in the order in which they run.

    Attributes:
        rows: with the shapes of the network as it is written, for a whole image.
        note: which pixels the output does not depend on; empty if it depends on all.
    """

    rows: Sequence[Layer]
    note: str = ""

    @property
    def parameters(self) -> int:
        return sum(parameters for *_, parameters in self.rows)


def list_layers(model: Classifier, image_shape: tuple[int, int, int]) -> Layers:
    """Every layer of a model, and the pixels that it cuts off."""
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
            pixels = torch.zeros((1, *image_shape), dtype=torch.uint8, device=device)
            model.eval().network(model.normalize(pixels))  # without cutting, which would show sizes that nobody wrote
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return Layers(rows, _cut_off(model.used_size or image_shape[1:], image_shape[1:]))


def _cut_off(used: Sequence[int], size: Sequence[int]) -> str:
    """Which pixels do not reach the output, from (rows, columns) that do and those of an image; empty if there are none."""
    rows, columns = (max(whole - part, 0) for whole, part in zip(size, used))
    words = [f"the last {counted(n, name)}" for n, name in ((rows, "row"), (columns, "column")) if n]
    if rows == columns > 0:
        words = [f"the last {counted(rows, 'pixel')} of each side"]
    return f"{' and '.join(words)} of an image do not reach the output, so they are cut off" if words else ""
