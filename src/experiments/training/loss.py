"""The loss of a batch: cross-entropy, weighted by class and smoothed if that is set."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, targets: Tensor, class_weights: Tensor | None, smoothing: float) -> Tensor:
    """The mean cross-entropy over a batch, weighted by the weights of the targets' classes, if there are any.

    For mixed targets (batch, classes) PyTorch divides by the number of images. Here the sum of the weights divides, as for
    labels (batch,), so that a mixture of only one class gives the same loss as its label.
    """
    if class_weights is None or not targets.is_floating_point():
        return functional.cross_entropy(logits, targets, class_weights, label_smoothing=smoothing)
    total = functional.cross_entropy(logits, targets, class_weights, label_smoothing=smoothing, reduction="sum")
    return total / total_weight(targets, class_weights)


def total_weight(targets: Tensor, class_weights: Tensor | None) -> Tensor | int:
    """What the sum of the losses over a batch is divided by: the weights of its targets, or the number of images."""
    if class_weights is None:
        return len(targets)
    return (targets @ class_weights if targets.is_floating_point() else class_weights[targets]).sum()


def correct(logits: Tensor, targets: Tensor) -> Tensor:
    """The number of correct predictions, on the device; the label of a mixture is its main class."""
    labels = targets.argmax(dim=1) if targets.is_floating_point() else targets
    return (logits.detach().argmax(dim=1) == labels).sum()
