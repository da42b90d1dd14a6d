"""Why a network says what it says: one heatmap a picture, by captum. Nothing of the network is changed by it.

heatmap = gradcam(trained.model, read_picture(Path("tiger.jpg"), trained.image_size))
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam, Occlusion
from torch import Tensor, nn

from experiments.config import UserError
from experiments.models.classifier import Classifier

log = logging.getLogger(__name__)

Network = Callable[[Tensor], Tensor]  # normalised pictures to logits

STEPS = (64, 256, 1024, 4096, 16384)  # of the path integral: tried in this order until it is complete
ROUNDING = 1e-6  # share of a logit by which it differs between batches of different sizes
INCOMPLETE = 0.005  # share of the difference in logits that may stay unexplained


def gradcam(
    classifier: Classifier, pixels: np.ndarray, target: int | None = None, layer: str | None = None
) -> np.ndarray:
    """Where the feature maps of a layer speak for a class (Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391).

    The maps are weighted by the mean gradient of the class's logit, added, cut at 0, and stretched to the picture
    bilinearly. Convolutions without padding never centre on a border, so there the stretched map is some pixels off.

    Args:
        pixels: one raw picture, uint8 (3, H, W).
        target: the class to explain; the predicted one if None.
        layer: dotted name, such as `network.3`; the convolution that runs last if None, of those whose output is
            larger than one pixel.

    Returns:
        float32 (H, W), at least 0, in units of no meaning.

    Raises:
        UserError: where no layer of that name gives feature maps, or the network has no convolution.
    """
    with _prepared(classifier, pixels, target) as (network, normalised, _, chosen):
        module = _layer(classifier, network, normalised, layer)
        coarse = LayerGradCam(network, module).attribute(normalised, chosen, relu_attributions=True)
        heatmap = LayerAttribution.interpolate(coarse, normalised.shape[2:], "bilinear")
    return _as_array(heatmap[0, 0])


def integrated_gradients(classifier: Classifier, pixels: np.ndarray, target: int | None = None) -> np.ndarray:
    """The share of every pixel in the logit (Sundararajan et al., 2017, https://arxiv.org/abs/1703.01365).

    Gradients are summed on the way from a black picture to this one, in normalised values; so a pixel that is black
    has no share. All shares add up to logit(picture) - logit(black picture), to within 0.5 % (completeness): steps are
    added until they do. If even the largest number does not suffice, a warning says how much is missing.

    Args:
        pixels: one raw picture, uint8 (3, H, W).
        target: the class to explain; the predicted one if None.

    Returns:
        float32 (H, W), logits, summed over the colours; positive speaks for the class.
    """
    with _prepared(classifier, pixels, target) as (network, normalised, black, chosen):
        with torch.no_grad():
            after, before = network(torch.cat([normalised, black]))[:, chosen].tolist()
        for steps in STEPS:
            shares = IntegratedGradients(network).attribute(
                normalised,
                black,
                chosen,
                n_steps=steps,
                method="riemann_middle",
                internal_batch_size=_batch(normalised),
            )
            missing = abs(after - before - shares.double().sum().item())
            if missing <= INCOMPLETE * abs(after - before):
                break
        else:
            log.warning(
                "integrated gradients: %.2g of %.2g logits stay unexplained after %d steps",
                missing, after - before, steps,
            )  # fmt: skip
    return _as_array(shares[0].sum(dim=0))


def occlusion(
    classifier: Classifier,
    pixels: np.ndarray,
    target: int | None = None,
    window: int | None = None,
    stride: int | None = None,
) -> np.ndarray:
    """What the logit loses when a part is covered in black (Zeiler and Fergus, 2014, https://arxiv.org/abs/1311.2901).

    Args:
        pixels: one raw picture, uint8 (3, H, W).
        target: the class to explain; the predicted one if None.
        window: pixels a side of the cover; a quarter of the shorter side if None.
        stride: pixels between two covers; a quarter of the window if None. The last one may reach over the border.

    Returns:
        float32 (H, W), logits: for each pixel the mean over the covers that hide it; positive speaks for the class.
    """
    window = window or max(1, min(pixels.shape[1:]) // 4)
    stride = stride or max(1, window // 4)
    with _prepared(classifier, pixels, target) as (network, normalised, black, chosen):
        lost = Occlusion(network).attribute(
            normalised, (3, window, window), (3, stride, stride), black, chosen,
            perturbations_per_eval=_batch(normalised),
        )  # fmt: skip
        with torch.no_grad():
            rounding = ROUNDING * max(1.0, network(normalised)[0, chosen].abs().item())
    heatmap = lost[0, 0]  # the three colours are covered together and have the same value
    return _as_array(heatmap.where(heatmap.abs() > rounding, 0))


@contextlib.contextmanager
def _prepared(
    classifier: Classifier, pixels: np.ndarray, target: int | None
) -> Iterator[tuple[Network, Tensor, Tensor, int]]:
    """(the network; the picture and a black one, normalised, float (1, 3, H, W); the class), in evaluation mode.

    Every layer gets its own mode back: part of a network may be frozen while the rest trains.
    """

    def network(normalised: Tensor) -> Tensor:
        logits: Tensor = classifier.network(normalised.clone())  # its first layer may work in place
        return logits

    modes = {module: module.training for module in classifier.modules()}
    classifier.eval()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            picture = torch.tensor(pixels, device=classifier.normalize.scale.device)[None]
            normalised, black = (classifier.normalize(raw) for raw in (picture, torch.zeros_like(picture)))
            if target is None:
                with torch.no_grad():
                    target = int(network(normalised).argmax())
            yield network, normalised, black, target
    finally:
        for module, mode in modes.items():
            module.training = mode


def _layer(classifier: Classifier, network: Network, normalised: Tensor, name: str | None) -> nn.Module:
    """The layer called `name`, or the convolution that runs last; a name alone does not tell the order."""
    modules = {module: name for name, module in classifier.named_modules()}
    sizes: dict[nn.Module, torch.Size] = {}

    def note(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            sizes.pop(module, None)
            sizes[module] = output.shape

    with contextlib.ExitStack() as stack, torch.no_grad():
        for module in classifier.network.modules():
            stack.enter_context(module.register_forward_hook(note))
        network(normalised)
    convolutions = {modules[module]: module for module in sizes if isinstance(module, nn.Conv2d)}
    listing = ", ".join(f"{key} ({'x'.join(map(str, sizes[conv][1:]))})" for key, conv in convolutions.items())
    if name is None:
        larger = [module for module in convolutions.values() if sizes[module][2:].numel() > 1]
        if not larger:
            raise UserError("gradcam needs a convolution, and the network has none; take another --method")
        return larger[-1]
    chosen = next((module for module in sizes if modules[module] == name), None)
    if chosen is None:
        raise UserError(
            f"--layer {name}: no layer of that name gives feature maps; the convolutions are {listing or 'none'}"
        )
    return chosen


def _batch(normalised: Tensor) -> int:
    """Pictures that the network sees at once: 64 small ones; large ones would need gigabytes."""
    return max(1, min(64, 2**20 // normalised[0, 0].numel()))


def _as_array(heatmap: Tensor) -> np.ndarray:
    return heatmap.detach().float().cpu().numpy()
