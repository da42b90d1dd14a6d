"""The classification networks of torchvision, by name, with a head for the classes of the data.

torchvision((3, 224, 224), 10, "resnet18")(torch.zeros(1, 3, 224, 224)).shape     # (1, 10)
"""

from __future__ import annotations

from typing import Any

from torch import nn

# They map normalised images to the range in which their published weights were trained; an auxiliary head, which only
# training would use, is left out.
WITH_AUXILIARY_HEADS = ("inception_v3", "googlenet")


def torchvision(image_shape: tuple[int, int, int], classes: int, name: str) -> nn.Module:
    """The network `name` of torchvision with random weights."""
    from torchvision import models  # only runs of its networks need it; takes 1 s

    options: dict[str, Any] = {}
    if name in WITH_AUXILIARY_HEADS:
        options = {"aux_logits": False, "transform_input": True, "init_weights": True}
    elif name.startswith("vit_"):  # it has a position embedding for each patch
        options = {"image_size": image_shape[1]}
    elif name.startswith("maxvit_"):
        options = {"input_size": image_shape[1:]}
    network: nn.Module = models.get_model(name, weights=None, num_classes=classes, **options)
    if name.startswith(
        "squeezenet"
    ):  # ReLU comes after its head: a class whose logits start below 0 would never be trained
        network.head_bias = 1.0  # type: ignore[assignment]
    return network
