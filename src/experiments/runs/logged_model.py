"""The network of a finished run: built from today's source, or the exported one if the source has changed."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from experiments.config import Config, UserError
from experiments.models import build, classifier
from experiments.runs.fingerprint import network_sources


def rebuilt(
    config: Config, classes: int, program: torch.export.ExportedProgram, recorded: Mapping[str, str] | None
) -> tuple[classifier.Classifier, str]:
    """The network of a run, in evaluation mode, and what differs if it is not the one that today's source describes.

    Args:
        program: the exported network.
        recorded: the sources of a custom network when it was logged; None for a run of an earlier version.
    """
    logged = LoggedModel(config, program)
    today = network_sources(config.model.target)
    recorded = today if recorded is None else recorded
    changed = [name for name in sorted({*recorded, *today}) if recorded.get(name) != today.get(name)]
    if changed:
        return logged, f"{', '.join(changed)} {'has' if len(changed) == 1 else 'have'} changed since"
    try:
        model = build.build(config, classes).eval()
        model.load_state_dict(program.state_dict)
        same = _same_logits(model, logged, config)
    except (UserError, RuntimeError):  # of a network with other weights, or without a class of this name
        same = False
    return (model, "") if same else (logged, "its network computes other values now")


@torch.inference_mode()
def _same_logits(model: classifier.Classifier, logged: LoggedModel, config: Config) -> bool:
    """Whether both compute the same for two images of noise, apart from rounding."""
    shape = (2, *config.data.image_shape)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return torch.allclose(model(images), logged(images), rtol=1e-3, atol=1e-3)


def layers_of(model: classifier.Classifier, image_shape: tuple[int, int, int]) -> classifier.Layers:
    """The layers of a finished run's network; an exported one is a single row."""
    if not isinstance(model, LoggedModel):
        return classifier.list_layers(model, image_shape)
    with torch.inference_mode():
        output = model(torch.zeros((2, *image_shape), dtype=torch.uint8))  # exported for at least two images
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return classifier.Layers([classifier.Layer("exported network", tuple(output.shape[1:]), parameters)])


class LoggedModel(classifier.Classifier):
    """The exported network of a run, used where today's source does not compute what the run computed.

    It takes raw images and returns logits like any `Classifier`; its layers are not accessible.
    """

    def __init__(self, config: Config, program: torch.export.ExportedProgram) -> None:
        super().__init__(classifier.Normalize(config.data.mean, config.data.std), _NoLayers())
        self.exported = program.module()
        self.training = False

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.exported(pixels)
        return logits

    def train(self, mode: bool = True) -> LoggedModel:
        """It stays in evaluation mode, in which it was exported."""
        return self


class _NoLayers(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise UserError("the source of this network has changed, so its layers cannot be explained; restore the source")
