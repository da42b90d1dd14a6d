"""Raw images to logits: normalisation, then a network."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from experiments.config.wording import counted


class Layer(NamedTuple):
    """A row of the table of layers: the output shape is that of one image; `frozen` is empty if a parameter is trained."""

    kind: str
    shape: tuple[int, ...]
    parameters: int
    frozen: str = ""


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
        temperature: by which the logits are divided; 1 during training, see `training.calibration`.
        weights_digest: of the weights from which training starts; None for random ones.
        head_prefix: the start of the names of the parameters that give the logits, such as "fc.": the network's own
            `head_prefix`, or that of its last module with parameters.
        frozen: names of the network's parameters that `freezing.freeze` has frozen.
    """

    normalize: Normalize
    temperature: float = 1.0  # no buffer: a checkpoint of training has none
    weights_digest: str | None = None

    def __init__(self, normalize: Normalize, network: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize
        self.network = network
        self.used_size = getattr(network, "used_size", None)
        self.head_prefix: str = getattr(network, "head_prefix", "") or _last_prefix(network)
        self.frozen: Sequence[str] = ()

    def forward(self, pixels: Tensor) -> Tensor:
        if self.used_size:
            height, width = self.used_size
            pixels = pixels[..., :height, :width]
        logits: Tensor = self.network(self.normalize(pixels))
        return logits if self.temperature == 1 else logits / self.temperature

    def uncalibrated(self) -> Classifier:
        """The same layers, whose logits are not divided by the temperature."""
        plain = copy.copy(self)
        plain.temperature = 1.0
        return plain


def _last_prefix(network: nn.Module) -> str:
    names = [name for name, module in network.named_modules() if any(True for _ in module.parameters(recurse=False))]
    return f"{names[-1]}." if names and names[-1] else ""


@dataclass(frozen=True)
class Layers:
    """The layers of a model, in the order in which they run.

    Attributes:
        rows: with the shapes of the network as it is written, for a whole image.
        note: which pixels the output does not depend on; empty if it depends on all.
        untrained: how many parameters are never trained.
    """

    rows: Sequence[Layer]
    note: str = ""
    untrained: int = 0

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def counts(self) -> str:
        """The number of parameters, and of those that are trained if these are fewer."""
        trained = f", {self.parameters - self.untrained:,} trainable" if self.untrained else ""
        return f"{counted(self.parameters, 'parameter')}{trained}"


def list_layers(model: Classifier, image_shape: tuple[int, int, int], unfreeze_epoch: int | None = None) -> Layers:
    """Every layer of a model, and the pixels that it cuts off.

    Every parameter is counted once: a layer has those of the layers in it that do not run by themselves.

    Args:
        unfreeze_epoch: from which on `model.frozen` is trained.
    """
    rows: list[Layer] = []
    later = {model.network.get_parameter(name) for name in model.frozen if unfreeze_epoch}
    left = dict.fromkeys(model.parameters())  # not counted yet

    def note(layer: nn.Module, _: object, output: object) -> None:
        own = [parameter for parameter in layer.parameters() if parameter in left]
        if not own and any(True for _ in layer.children()):
            return
        for parameter in own:
            del left[parameter]
        shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
        frozen = "frozen" if own and not any(parameter.requires_grad for parameter in own) else ""
        if frozen and later.issuperset(own):
            frozen = f"frozen before epoch {unfreeze_epoch}"
        rows.append(Layer(type(layer).__name__, shape, sum(map(nn.Parameter.numel, own)), frozen))

    hooks = [layer.register_forward_hook(note) for layer in model.modules() if layer is not model]
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
    untrained = sum(one.numel() for one in model.parameters() if not one.requires_grad and one not in later)
    return Layers(rows, _cut_off(model.used_size or image_shape[1:], image_shape[1:]), untrained)


def _cut_off(used: Sequence[int], size: Sequence[int]) -> str:
    """Which pixels do not reach the output, from (rows, columns) that do and those of an image; empty if there are none."""
    rows, columns = (max(whole - part, 0) for whole, part in zip(size, used))
    words = [f"the last {counted(n, name)}" for n, name in ((rows, "row"), (columns, "column")) if n]
    if rows == columns > 0:
        words = [f"the last {counted(rows, 'pixel')} of each side"]
    return f"{' and '.join(words)} of an image do not reach the output, so they are cut off" if words else ""
