"""Grad-CAM on the layer of a network that sees most of the picture and still knows where: a coarse heatmap.

In a convolutional network it is the convolution that runs last, with the block around it: what a residual adds, or what
other branches contribute, is evidence, too. A vision transformer has one convolution, which cuts the picture into patches.
There it is the last normalisation with more than one token that the logits depend on: after it, they only depend on the
class token, which has no place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from captum.attr import LayerGradCam, LayerGradientXActivation
from torch import Tensor, nn

from experiments.config import UserError
from experiments.models.classifier import Classifier

Network = Callable[[Tensor], Tensor]  # normalised images to logits
Sizes = dict[nn.Module, torch.Size]  # of the output of every layer, in the order in which they end
NORMS = (nn.LayerNorm, nn.RMSNorm)


def coarse_heatmap(
    classifier: Classifier, network: Network, normalised: Tensor, target: int, name: str | None
) -> Tensor:
    """Evidence for the class `target`, at least 0, (1, 1, h, w).

    Args:
        normalised: one image (1, 3, H, W).
        name: the dotted name of a layer; if None, it is chosen as described above.

    Raises:
        UserError: no layer of that name has feature maps, or the network has no convolution.
    """
    sizes = _sizes(classifier, network, normalised)
    names = {module: name for name, module in classifier.named_modules()}
    convolutions = [module for module in sizes if isinstance(module, nn.Conv2d)]
    last = next((conv for conv in reversed(convolutions) if sizes[conv][2:].numel() > 1), None)
    if name is None:
        layers = _layers(last, sizes, names)
    else:
        layers = [module for module in sizes if names[module] == name]
    for layer in layers:
        if not _has_tokens(layer, sizes[layer]):
            return _of_maps(network, normalised, target, layer)
        tokens = _of_tokens(network, normalised, target, layer, sizes[last][2:] if last else torch.Size())
        if tokens is not None:
            return tokens
    listing = ", ".join(f"{names[conv]} ({'x'.join(map(str, sizes[conv][1:]))})" for conv in convolutions)
    raise UserError(
        f"--layer {name}: no layer of that name has feature maps; the convolutions are {listing or 'none'}"
    )


def _layers(last: nn.Conv2d | None, sizes: Sizes, names: dict[nn.Module, str]) -> list[nn.Module]:
    """The layers to try, the best first. `last` is the convolution that runs last."""
    if last is None:
        raise UserError("gradcam needs a convolution, and the network has none; use another --method")
    cuts_patches = last.stride == last.kernel_size and max(last.kernel_size) > 1  # each pixel is used once
    norms = [module for module, size in sizes.items() if _has_tokens(module, size)] if cuts_patches else []
    return [*reversed(norms), _block_around(last, sizes, names)]


def _sizes(classifier: Classifier, network: Network, normalised: Tensor) -> Sizes:
    """The layers with outputs that have places: feature maps (1, C, h, w), and tokens (1, h, w, C) or (1, T, C)."""
    sizes: Sizes = {}

    def note(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and (output.ndim == 4 or (output.ndim == 3 and isinstance(module, NORMS))):
            sizes.pop(module, None)
            sizes[module] = output.shape

    with contextlib.ExitStack() as stack, torch.no_grad():
        for module in classifier.network.modules():
            stack.enter_context(module.register_forward_hook(note))
        network(normalised)
    return sizes


def _has_tokens(module: nn.Module, size: torch.Size) -> bool:
    """Whether the output has the channels last: some classes of normalisation return feature maps."""
    return isinstance(module, NORMS) and size[-1] == module.normalized_shape[-1]


def _block_around(convolution: nn.Module, sizes: Sizes, names: dict[nn.Module, str]) -> nn.Module:
    """The largest layer around the convolution whose output has feature maps of the same size."""
    by_name = {name: module for module, name in names.items()}
    chosen, name = convolution, names[convolution]
    while "." in name:
        name = name.rpartition(".")[0]
        if sizes.get(by_name[name], torch.Size())[2:] != sizes[convolution][2:]:
            break
        chosen = by_name[name]
    return chosen


def _of_maps(network: Network, normalised: Tensor, target: int, layer: nn.Module) -> Tensor:
    coarse: Tensor = LayerGradCam(network, layer).attribute(normalised, target, relu_attributions=True)
    return coarse


def _of_tokens(
    network: Network, normalised: Tensor, target: int, layer: nn.Module, grid: torch.Size
) -> Tensor | None:
    """Gradient times value of every token; None if the logit depends on one token only, or the tokens are no grid.

    Tokens in a row begin with those that have no place, such as the class token.
    """
    values = LayerGradientXActivation(network, layer).attribute(normalised, target)[0].sum(dim=-1)
    if values.count_nonzero() < 2 or (values.ndim == 1 and len(values) < grid.numel()):
        return None
    if values.ndim == 1:
        values = values[len(values) - grid.numel() :].view(grid)
    return values.clamp(min=0)[None, None]
