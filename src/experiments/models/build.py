"""Networks. A model takes raw uint8 pictures: scaling and normalisation are its first layer, so they travel with it.

A network of one's own is a class that is called as `Network(image_shape=(3, H, W), classes=N, **keys)`, takes
normalised float pictures (batch, 3, H, W) and returns logits (batch, N); `_target_` in its YAML file names it.

It may have a method `initialize(pictures)`, which sets weights by what the training pictures look like. It is given some
of them, 5,000 of 32x32 pixels and fewer of larger ones, normalised, float32 (N, 3, H, W), before training starts, and
without gradients.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.config import ModelSettings, UserError
from experiments.models.classifier import Classifier, Normalize


def build(
    config: ModelSettings, classes: int, image_shape: tuple[int, int, int], mean: Sequence[float], std: Sequence[float]
) -> Classifier:
    """The network that `config` names, with fresh weights from torch's global random numbers.

    Raises:
        UserError: where the class cannot be found or does not take the keys of its YAML file.
    """
    network_class = _locate(config.target)
    keys = {"image_shape": image_shape, "classes": classes, **config.parameters}
    try:
        inspect.signature(network_class).bind(**keys)
    except TypeError as error:
        raise UserError(f"model: {config.target}({', '.join(keys)}) does not fit the class: {error}") from None
    model = Classifier(Normalize(mean, std), network_class(**keys)).eval()
    pictures = torch.zeros((2, *image_shape), dtype=torch.uint8)
    with torch.no_grad():
        logits = model(pictures)  # before anything else: lazy layers get their weights here
        if logits.shape != (2, classes):
            shape = tuple(logits.shape)
            raise UserError(f"{config.target}: must give logits (batch, {classes}), but gave {shape} for a batch of 2")
        try:
            model.to(memory_format=torch.channels_last).normalize.memory_format = torch.channels_last
            model(pictures)
        except RuntimeError:  # a network that calls view() on its features: slower, but right
            model.to(memory_format=torch.contiguous_format).normalize.memory_format = torch.contiguous_format
    return model.train()


@torch.no_grad()
def check_image_sizes(model: Classifier, target: str, sides: Sequence[int]) -> None:
    """See that the network takes pictures with so many pixels a side.

    Raises:
        UserError: where it does not.
    """
    training = model.training
    for side in sorted(set(sides)):
        try:
            model.eval()(torch.zeros((2, 3, side, side), dtype=torch.uint8))
        except RuntimeError as error:
            raise UserError(
                f"training.image_sizes: {target} does not take pictures of {side}x{side} pixels ({error})"
            ) from None
    model.train(training)


def needs_data_init(model: Classifier) -> bool:
    """Its network has a method `initialize`."""
    return callable(getattr(model.network, "initialize", None))


@torch.no_grad()
def data_init(model: Classifier, images: np.ndarray) -> None:
    """Let a network that `wants_pictures` set its weights by these, uint8 (N, 3, H, W)."""
    network: Any = model.network
    network.initialize(model.normalize(torch.from_numpy(images)))


def source_file(target: str) -> Path | None:
    """The file that holds the class `target`, found without importing it; None where there is none."""
    _search_working_directory()
    try:
        found = importlib.util.find_spec(target.rpartition(".")[0])
    except ModuleNotFoundError:
        return None
    return Path(found.origin) if found and found.origin else None


def _locate(target: str) -> type[nn.Module]:
    _search_working_directory()
    module, _, name = target.rpartition(".")
    try:
        located = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(f"model._target_={target}: there is no such class ({error})") from None
    if not (isinstance(located, type) and issubclass(located, nn.Module)):
        raise UserError(f"model._target_={target}: must be a class derived from torch.nn.Module")
    return located


def _search_working_directory() -> None:
    """Networks of one's own lie in the project's folder, which only `python train.py` has on its path by itself."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
