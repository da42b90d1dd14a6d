"""The network of a finished run: built from today's source, or the exported one if the source has changed.

Nothing of a run is run as code unless it is trusted: its weights are plain tensors, a class of one's own is imported only if its
source is the recorded one, and the exported network is read by `archive`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from experiments.config import MODELS, Config, UserError
from experiments.config.published import LIBRARIES
from experiments.config.targets import is_installed, is_ours, source_files
from experiments.models import build, classifier
from experiments.models.cutting import noise
from experiments.runs.archive import Archive
from experiments.runs.fingerprint import own_sources

WEIGHTS, PROGRAM = "data/weights.safetensors", "data/model.pt2"
ANSWER = "answer"  # in the file of the weights, whose names contain a dot: what the network computes for `noise`
TRUST = "--trust imports it"


@dataclass(frozen=True)
class Logged:
    """A logged model, read without running code.

    Attributes:
        run_id: of its run.
        classes: their names.
        weights: parameters and buffers by name.
        answer: the logits of `noise`; None for a run of an earlier version.
        temperature: by which its logits are divided; 1 for a run that is not calibrated, or of an earlier version.
        sources: of a network and a data source of one's own, when it was logged; None where an earlier version logged none.
        fetch: the content of one of its files, by name; None if it is not there.
    """

    run_id: str
    classes: tuple[str, ...]
    weights: Mapping[str, Tensor]
    answer: Tensor | None
    temperature: float
    sources: Mapping[str, Mapping[str, str] | None]
    fetch: Callable[[str], bytes | None]

    @classmethod
    def read(cls, run_id: str, metadata: Mapping[str, Any], fetch: Callable[[str], bytes | None]) -> Logged:
        """The model of a run; `metadata` is that of its MLmodel.

        Raises:
            UserError: a file is missing or damaged.
        """
        classes = metadata.get("classes")
        if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
            raise UserError(f"run {run_id}: MLmodel is damaged: it has no class names")
        plain = fetch(WEIGHTS)
        exported = _exported(run_id, fetch) if plain is None else b""
        try:
            weights = Archive(exported).weights() if plain is None else safetensors.torch.load(plain)
        except (ValueError, safetensors.SafetensorError) as error:
            raise damaged(run_id, PROGRAM if plain is None else WEIGHTS, error) from None
        sources = {"model": metadata.get("sources"), "data": metadata.get("data_sources")}
        known = {key: value if isinstance(value, dict) else None for key, value in sources.items()}
        answer = weights.pop(ANSWER, None)
        temperature = metadata.get("temperature", 1.0)
        if not isinstance(temperature, float) or not 0 < temperature < float("inf"):
            raise UserError(f"run {run_id}: MLmodel is damaged: its temperature is not a positive number")
        return cls(run_id, tuple(classes), weights, answer, temperature, known, fetch)

    def program(self, config: Config, trusted: bool) -> torch.export.ExportedProgram:
        """The exported network.

        Raises:
            UserError: it is missing or damaged, or has what is only read of a run that is trusted.
        """
        content = _exported(self.run_id, self.fetch)
        try:
            if trusted:
                return torch.export.load(io.BytesIO(content))
            return Archive(content).program(torch.zeros((2, *config.data.image_shape), dtype=torch.uint8))
        except Exception as error:  # PyTorch raises many classes of errors
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise damaged(
                self.run_id, PROGRAM, reason if trusted else f"{reason}; --trust loads it unchecked"
            ) from None

    def may_import(self, group: str, target: str) -> bool:
        """Whether a class is of this package, or has the recorded source and lies in the project.

        Args:
            group: model, or data.
        """
        files = source_files(target)
        own = bool(files) and not any(map(is_installed, files.values()))
        return is_ours(target) or (own and self.sources[group] == own_sources(target))


def _exported(run_id: str, fetch: Callable[[str], bytes | None]) -> bytes:
    if (content := fetch(PROGRAM)) is None:
        raise UserError(f"run {run_id}: its files are missing ({PROGRAM})")
    return content


def damaged(run_id: str, file: str, reason: object) -> UserError:
    """The error of a run that has a file which cannot be used."""
    return UserError(f"run {run_id}: {file} cannot be used: {reason}")


def rebuilt(config: Config, logged: Logged, trusted: bool) -> tuple[classifier.Classifier, str]:
    """The network of a run, in evaluation mode, and what differs if it is not the one that today's source describes.

    Args:
        trusted: a class of one's own is imported, also if its source was not recorded.
    """
    target, recorded = config.model.target, logged.sources["model"]
    today = own_sources(target)
    changed = [
        name for name in sorted({*(recorded or today), *today}) if (recorded or today).get(name) != today.get(name)
    ]
    if recorded is not None and changed:
        difference = f"{', '.join(changed)} {'has' if len(changed) == 1 else 'have'} changed since"
    elif not (trusted or logged.may_import("model", target)):
        difference = f"{target} is not imported without --trust"
    elif (model := _built(config, logged)) and _same_logits(model, config, logged, trusted):
        return model, ""
    else:
        difference = "its network computes other values now"
    return LoggedModel(config, logged, trusted), difference


def _built(config: Config, logged: Logged) -> classifier.Classifier | None:
    """The network of today's source; None if it has other weights, or there is no such class."""
    try:
        if (
            config.model.target in MODELS and config.model.target not in LIBRARIES
        ):  # those have the sizes of their names
            with torch.device("meta"):  # without memory: the configuration may ask for any amount
                sketch = build.build(config, len(logged.classes)).state_dict()
            if any(tensor.shape != logged.weights[name].shape for name, tensor in sketch.items()):
                return None
        model = build.build(config, len(logged.classes)).eval()
        model.load_state_dict(logged.weights)
        model.temperature = logged.temperature
    except (UserError, RuntimeError, KeyError):
        return None
    return model


@torch.inference_mode()
def _same_logits(model: classifier.Classifier, config: Config, logged: Logged, trusted: bool) -> bool:
    """Whether the network computes what it did when it was logged, apart from rounding."""
    images, answer = noise(config.data.image_shape, torch.device("cpu")), logged.answer
    if answer is None:
        answer = LoggedModel(config, logged, trusted)(images)
    logits = model(images)
    return logits.shape == answer.shape and torch.allclose(logits, answer.to(logits.dtype), rtol=1e-3, atol=1e-3)


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

    It takes raw images and returns logits like any `Classifier`; its layers are not accessible. The exported network has divided
    the logits by the temperature already.
    """

    def __init__(self, config: Config, logged: Logged, trusted: bool) -> None:
        super().__init__(classifier.Normalize(config.data.mean, config.data.std), _NoLayers())
        self.exported = logged.program(config, trusted).module()
        self.temperature = self.divided = logged.temperature
        self.training = False

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.exported(pixels)
        return logits if self.temperature == self.divided else logits * self.divided

    def train(self, mode: bool = True) -> LoggedModel:
        """It stays in evaluation mode, in which it was exported."""
        return self


class _NoLayers(torch.nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise UserError(
            "the layers of this network cannot be explained, because its source has changed or is not imported; "
            "restore the source, or add --trust if you trust it"
        )
