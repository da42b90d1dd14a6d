"""Heatmaps that explain a prediction, computed by Captum. The network is left unchanged.

heatmap = gradcam(run.model, read_picture(Path("tiger.jpg"), run.image_size, run.config.data.fit), target=3)
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerAttribution, Occlusion
from torch import Tensor

from experiments.analysis.feature_maps import Network, coarse_heatmap
from experiments.models.classifier import Classifier

log = logging.getLogger(__name__)

STEPS = (64, 256, 1024, 4096, 16384)  # of the path integral: tried in this order until it is complete
ROUNDING = 1e-6  # fraction of a logit by which it differs between batches of different sizes
INCOMPLETE = 0.005  # fraction of the difference in logits that may stay unexplained


def gradcam(classifier: Classifier, pixels: np.ndarray, target: int, layer: str | None = None) -> np.ndarray:
    """Grad-CAM: where the feature maps of a layer are evidence for a class (Selvaraju et al., 2017, arXiv:1610.02391).

    The maps are weighted by the mean gradient of the logit of the class, added, clipped at 0, and interpolated to the
    image size bilinearly. Convolutions without padding are never centred on a border, so there the result is some pixels
    off. Vision transformers are explained by their tokens, or their attention, see `feature_maps`.

    Args:
        pixels: one raw image, uint8 (3, H, W).
        target: the index of the class to explain.
        layer: dotted name, such as `network.3`. If None, the convolution that runs last, of those whose output is larger
            than one pixel, with the block around it, see `feature_maps`.

    Returns:
        float32 (H, W), at least 0, in arbitrary units.

    Raises:
        UserError: no layer of that name has feature maps, or the network has no convolution.
    """
    with _prepared(classifier, pixels) as (network, normalised, _):
        coarse = coarse_heatmap(classifier, network, normalised, target, layer)
        heatmap = LayerAttribution.interpolate(coarse, normalised.shape[2:], "bilinear")
    return _as_array(heatmap[0, 0])


def integrated_gradients(classifier: Classifier, pixels: np.ndarray, target: int) -> np.ndarray:
    """Integrated gradients: the contribution of every pixel to a logit (Sundararajan et al., 2017, arXiv:1703.01365).

    Gradients are integrated along the line from a black image to this one, in normalised values, so a black pixel
    contributes nothing. The contributions add up to logit(image) - logit(black image), to within 0.5 % (completeness):
    the number of steps is raised until they do. If even the largest is not enough, a warning states what is missing.

    Args:
        pixels: one raw image, uint8 (3, H, W).
        target: the index of the class to explain.

    Returns:
        float32 (H, W), logits, summed over the colours; positive values are evidence for the class.
    """
    with _prepared(classifier, pixels) as (network, normalised, black):
        with torch.no_grad():
            after, before = network(torch.cat([normalised, black]))[:, target].tolist()
        for steps in STEPS:
            contributions = IntegratedGradients(network).attribute(
                normalised, black, target, n_steps=steps, method="riemann_middle",
                internal_batch_size=_batch_size(normalised),
            )  # fmt: skip
            missing = abs(after - before - contributions.double().sum().item())
            if missing <= INCOMPLETE * abs(after - before):
                break
        else:
            log.warning(
                "integrated gradients: %.2g of %.2g logits are unexplained after %d steps",
                missing, after - before, steps,
            )  # fmt: skip
    return _as_array(contributions[0].sum(dim=0))


def occlusion(
    classifier: Classifier, pixels: np.ndarray, target: int, window: int | None = None, stride: int | None = None
) -> np.ndarray:
    """Occlusion: the decrease of a logit when a part is covered in black (Zeiler and Fergus, 2014, arXiv:1311.2901).

    Args:
        pixels: one raw image, uint8 (3, H, W).
        target: the index of the class to explain.
        window: pixels per side of the covered square; a quarter of the shorter side if None.
        stride: pixels between two positions; a quarter of the window if None. The last one may extend over the border.

    Returns:
        float32 (H, W), logits: for each pixel the mean over the squares that cover it; positive values are evidence for
        the class.
    """
    window = window or max(1, min(pixels.shape[1:]) // 4)
    stride = stride or max(1, window // 4)
    with _prepared(classifier, pixels) as (network, normalised, black):
        lost = Occlusion(network).attribute(
            normalised, (3, window, window), (3, stride, stride), black, target,
            perturbations_per_eval=_batch_size(normalised),
        )  # fmt: skip
        with torch.no_grad():
            rounding = ROUNDING * max(1.0, network(normalised)[0, target].abs().item())
    heatmap = lost[0, 0]  # the three colours are covered together, so their values are the same
    return _as_array(heatmap.where(heatmap.abs() > rounding, 0))


@contextlib.contextmanager
def _prepared(classifier: Classifier, pixels: np.ndarray) -> Iterator[tuple[Network, Tensor, Tensor]]:
    """(network, image, black image), in evaluation mode; the images are normalised, float (1, 3, H, W).

    The mode of every layer is restored: part of a network may be frozen while the rest trains.
    """

    def network(normalised: Tensor) -> Tensor:
        logits: Tensor = classifier.network(normalised.clone())  # the first layer may work in place
        return logits

    modes = {module: module.training for module in classifier.modules()}
    classifier.eval()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            image = torch.tensor(pixels, device=classifier.normalize.scale.device)[None]
            normalised, black = (classifier.normalize(raw) for raw in (image, torch.zeros_like(image)))
            yield network, normalised, black
    finally:
        for module, mode in modes.items():
            module.training = mode


def _batch_size(normalised: Tensor) -> int:
    """Images per batch: 64 small ones, and fewer large ones, which would need gigabytes."""
    return max(1, min(64, 2**20 // normalised[0, 0].numel()))


def _as_array(heatmap: Tensor) -> np.ndarray:
    return heatmap.detach().float().cpu().numpy()
