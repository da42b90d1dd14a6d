"""A coarse heatmap of the evidence for a class, from inside a network: where it is decided what depends on the class.

- Convolutional networks: Grad-CAM on the convolution that runs last, with the block around it: what a residual adds, or
  what other branches contribute, is evidence, too.
- Transformers with tokens in a grid (Swin): Grad-CAM on the tokens that enter the last stage. Its attention spreads over the
  whole grid, so later tokens have lost their places.
- Transformers with tokens in a row (ViT): attention of all layers, weighted by its gradients (Chefer et al., 2021,
  arXiv:2103.15679). The tokens of the last layer are not enough, because the class may be decided before.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch.nn import functional

from experiments.config import UserError
from experiments.models.classifier import Classifier

Network = Callable[[Tensor], Tensor]  # normalised images to logits
Sizes = dict[nn.Module, torch.Size]  # of the output of every layer with places, in the order in which they end
NORMS = (nn.LayerNorm, nn.RMSNorm)


def coarse_heatmap(
    classifier: Classifier, network: Network, normalised: Tensor, target: int, name: str | None
) -> Tensor:
    """Evidence for the class `target`, at least 0, (1, 1, h, w).

    Args:
        normalised: one image (1, 3, H, W).
        name: the dotted name of a layer for Grad-CAM; if None, layer and method are chosen as described above.

    Raises:
        UserError: no layer of that name has feature maps, or the network has no convolution.
    """
    sizes = _sizes(classifier, network, normalised)
    names = {module: name for name, module in classifier.named_modules()}
    convolutions = [module for module in sizes if isinstance(module, nn.Conv2d)]
    if name is not None:
        chosen = next((module for module in sizes if names[module] == name), None)
        if chosen is None:
            listing = ", ".join(f"{names[conv]} ({'x'.join(map(str, sizes[conv][1:]))})" for conv in convolutions)
            raise UserError(
                f"--layer {name}: no layer of that name has feature maps; the convolutions are {listing or 'none'}"
            )
        return _gradcam(network, normalised, target, chosen, sizes)
    last = next((conv for conv in reversed(convolutions) if sizes[conv][2:].numel() > 1), None)
    if last is None:
        raise UserError("gradcam needs a convolution, and the network has none; use another --method")
    if last.stride == last.kernel_size and max(last.kernel_size) > 1:  # it cuts the picture into patches
        grids = [module for module, size in sizes.items() if _has_channels_last(module, size)]
        if grids:
            entry = next(module for module in grids if sizes[module][1:3] == sizes[grids[-1]][1:3])
            return _gradcam(network, normalised, target, entry, sizes)
        relevance = _relevance(network, normalised, target, sizes[last][2:])
        if relevance is not None:
            return relevance
    return _gradcam(network, normalised, target, _block_around(last, sizes, names), sizes)


def _sizes(classifier: Classifier, network: Network, normalised: Tensor) -> Sizes:
    """The layers whose outputs have places: feature maps (1, C, h, w), or tokens (1, h, w, C)."""
    sizes: Sizes = {}

    def note(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            sizes.pop(module, None)
            sizes[module] = output.shape

    with contextlib.ExitStack() as stack, torch.no_grad():
        for module in classifier.network.modules():
            stack.enter_context(module.register_forward_hook(note))
        network(normalised)
    return sizes


def _has_channels_last(module: nn.Module, size: torch.Size) -> bool:
    """Whether the output is tokens (1, h, w, C): some classes of normalisation return feature maps."""
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


def _gradcam(network: Network, normalised: Tensor, target: int, layer: nn.Module, sizes: Sizes) -> Tensor:
    if not _has_channels_last(layer, sizes[layer]):
        coarse: Tensor = LayerGradCam(network, layer).attribute(normalised, target, relu_attributions=True)
        return coarse
    outputs: list[Tensor] = []
    with layer.register_forward_hook(lambda *call: outputs.append(call[-1])):
        logit = network(normalised.requires_grad_())[0, target]
    (gradients,) = torch.autograd.grad(logit, outputs)
    return (outputs[0] * gradients.mean(dim=(1, 2), keepdim=True)).sum(dim=-1).clamp(min=0)[None]


def _relevance(network: Network, normalised: Tensor, target: int, grid: Sequence[int]) -> Tensor | None:
    """How much the logit depends on each patch, through all layers of attention; None if there are none.

    The tokens are those of the patches, after any others, such as the class token, which then is the first one.
    """
    with _recorded_attention() as layers:
        logit = network(normalised.requires_grad_())[0, target]
    patches = math.prod(grid)
    if not layers or any(layer.shape != layers[-1].shape for layer in layers) or layers[-1].shape[-1] < patches:
        return None
    relevance = torch.eye(layers[0].shape[-1], device=normalised.device)
    for layer, gradient in zip(layers, torch.autograd.grad(logit, layers)):
        relevance = relevance + (layer * gradient).clamp(min=0).mean(dim=(0, 1)) @ relevance
    row = relevance[0] if len(relevance) > patches else relevance.mean(dim=0)
    return row[len(relevance) - patches :].view(1, 1, *grid)


@contextlib.contextmanager
def _recorded_attention() -> Iterator[list[Tensor]]:
    """The attention (1, heads, tokens, tokens) of every call in the block, which the fused operator would not show."""
    fused = functional.scaled_dot_product_attention
    layers: list[Tensor] = []

    def attention(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Tensor:
        if query.ndim != 4 or query.shape != key.shape:
            return fused(query, key, value, *rest, **options)
        scale = options.get("scale") or query.shape[-1] ** -0.5
        layers.append((query @ key.transpose(-2, -1) * scale).softmax(dim=-1))
        return layers[-1] @ value

    functional.scaled_dot_product_attention = attention
    try:
        yield layers
    finally:
        functional.scaled_dot_product_attention = fused
