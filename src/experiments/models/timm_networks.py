"""The networks of timm, by name, with a head for the classes of the data.

timm((3, 224, 224), 10, "mobilenetv3_small_050.lamb_in1k")(torch.zeros(1, 3, 224, 224)).shape     # (1, 10)
"""

from __future__ import annotations

from typing import Any

from torch import nn

from experiments.config import UserError
from experiments.config.published import TIMM, missing_library, networks


def timm(image_shape: tuple[int, int, int], classes: int, name: str) -> nn.Module:
    """The network `name` of timm with random weights.

    Raises:
        UserError: timm is not installed, or the network cannot be built for this image size.
    """
    if missing := missing_library(TIMM):
        raise UserError(missing)
    from timm import create_model  # optional, and takes 3 s

    size = image_shape[1]
    options: dict[str, Any] = {"img_size": size} if networks(TIMM)[name].size != size else {}
    try:
        network: Any = create_model(name, pretrained=False, num_classes=classes, **options)
    except TypeError:  # most networks without attention take any size, and have no such parameter
        network = create_model(name, pretrained=False, num_classes=classes)
    except (AssertionError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise UserError(f"data.image_size={size}: timm cannot build {name} for it ({error})") from None
    head: Any = network.pretrained_cfg.get("classifier")
    first = head if isinstance(head, str) else next(iter(head or ()), "")  # others are auxiliary
    network.head_prefix = f"{first}." if first else ""
    return network
