"""Building a network from its configuration.

A model takes raw uint8 images: scaling and normalisation are its first layer, so they are saved and exported with it.

A custom network is a class that is called as `Network(image_shape=(3, H, W), classes=N, **keys)`, takes normalised float
images (batch, 3, H, W) and returns logits (batch, N). `_target_` in its YAML file names the class. It may have:

- a method `initialize(images)`, which initialises weights from training images. It is called once before training, without
  gradients, with some of them, normalised, float32 (N, 3, H, W): 5,000 of 32x32 pixels, and fewer of larger ones.
- an attribute `used_size`, (rows, columns) of the upper left part of an image that the output depends on; the rest is
  cut off before normalisation. The network takes whole images, too: the table of layers shows their shapes.
- an attribute `head_prefix`, the start of the names of the parameters of its head (`fc.`), if that is not its last module
  with parameters. `training.freeze=backbone` trains only the head.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from experiments.config import Config, ModelSettings, UserError
from experiments.config.published import TIMM, TORCHVISION
from experiments.config.targets import locate
from experiments.models.classifier import Classifier, Normalize
from experiments.models.timm_networks import timm
from experiments.models.torchvision_networks import torchvision

BUILDERS: dict[str, Callable[..., nn.Module]] = {TORCHVISION: torchvision, TIMM: timm}


def build(config: Config, classes: int) -> Classifier:
    """The model of a configuration, see `build_classifier`."""
    data = config.data
    return build_classifier(config.model, classes, data.image_shape, data.mean, data.std)


def build_classifier(
    settings: ModelSettings,
    classes: int,
    image_shape: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
) -> Classifier:
    """The network of `settings` behind its normalisation, with fresh weights from torch's global random generator.

    Raises:
        UserError: the class is not found, does not take the keys of its YAML file, or returns the wrong shape.
    """
    network_class = BUILDERS.get(settings.target) or locate("model", settings.target, nn.Module, "torch.nn.Module")
    keys = {"image_shape": image_shape, "classes": classes, **settings.parameters}
    try:
        inspect.signature(network_class).bind(**keys)
    except TypeError as error:
        raise UserError(f"model: {settings.target}({', '.join(keys)}) does not fit the class: {error}") from None
    model = Classifier(Normalize(mean, std), network_class(**keys)).eval()
    images = torch.zeros((2, *image_shape), dtype=torch.uint8)
    with torch.no_grad():
        try:
            logits = model(images)  # before anything else, because lazy layers get their weights here
        except (RuntimeError, AssertionError) as error:
            if settings.target not in BUILDERS:
                raise
            size = image_shape[-1]
            raise UserError(
                f"data.image_size={size}: {settings.title} does not take images of {size}x{size} pixels ({error})"
            ) from None
        if logits.shape != (2, classes):
            shape = tuple(logits.shape)
            raise UserError(
                f"{settings.target}: must return logits (batch, {classes}), but returned {shape} for a batch of 2"
            )
        try:
            model.to(memory_format=torch.channels_last).normalize.memory_format = torch.channels_last
            model(images)
        except RuntimeError:  # a network that calls view() on its features: slower, but correct
            model.to(memory_format=torch.contiguous_format).normalize.memory_format = torch.contiguous_format
    return model.train()


@torch.no_grad()
def check_image_sizes(model: Classifier, target: str, sizes: Sequence[int]) -> None:
    """Check that the network takes images of these sizes, in pixels per side.

    Raises:
        UserError: it does not.
    """
    training = model.training
    for size in sorted(set(sizes)):
        try:
            model.eval()(torch.zeros((2, 3, size, size), dtype=torch.uint8))
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"training.image_sizes: {target} does not take images of {size}x{size} pixels ({error})"
            ) from None
    model.train(training)


def check_batch_norm(model: Classifier, batch_size: int, images: int, parts: int = 1) -> None:
    """Check that no batch of training, or part of one, has only one image, if the network has a BatchNorm layer.

    Raises:
        UserError: one has, so that its values have no variance.
    """
    normed = next((layer for layer in model.modules() if isinstance(layer, _BatchNorm)), None)
    if normed is None or (min(batch_size, images) > 1 and batch_size > parts):
        return
    why = f"{type(normed).__name__} needs the variance over several images"
    if batch_size == 1:
        raise UserError(f"training.batch_size=1: must be at least 2 for this network, because {why}")
    if images > 1:
        most = max(1, batch_size // 2)
        raise UserError(f"training.accumulate={parts}: must be at most {most} for this network, because {why}")
    raise UserError(f"data: there is only 1 training image, and this network needs at least 2, because {why}")


def needs_data_init(model: Classifier) -> bool:
    """Whether the network has a method `initialize`."""
    return callable(getattr(model.network, "initialize", None))


@torch.no_grad()
def data_init(model: Classifier, images: np.ndarray) -> None:
    """Call the network's `initialize` with normalised images, given as uint8 (N, 3, H, W)."""
    network: Any = model.network
    network.initialize(model.normalize(torch.from_numpy(images)))
