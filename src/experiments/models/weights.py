"""Initial weights: a file read without running code, and what of it fits a network.

weights = read(Path("resnet18-f37072fd.pth"), "model.weights=imagenet")
load(weights, model, "resnet18", classes)     # a line that says what was not taken; empty if all was
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.config import UserError
from experiments.config.wording import counted, named
from experiments.models.classifier import Classifier

WRAPPERS = ("ema", "state_dict", "model_state_dict", "model")  # entries of a file that hold the weights, the best first
PREFIXES = ("module.", "network.", "_orig_mod.")  # of DataParallel, of our classifier, of torch.compile
AUXILIARY = (
    "AuxLogits.",
    "aux1.",
    "aux2.",
    "aux_head.",
    "head_dist.",
)  # further heads, which help to train the network
HEAD_STD = 0.01  # standard deviation of the weights of a new head
UNIMPORTANT = "num_batches_tracked"  # old files lack it, and only BatchNorm without a momentum uses it
OLD_NAMES = (  # names in files that torchvision published before it renamed the layers
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)


@dataclass(frozen=True)
class Weights:
    """Tensors by their names in a network.

    Attributes:
        key: what the user wrote: model.weights=FILE.
        classes: of the run that they come from; None for a file, which must have all tensors of the network but its head.
    """

    tensors: Mapping[str, Tensor]
    key: str
    classes: tuple[str, ...] | None = None

    @property
    def complete(self) -> bool:
        """They have every tensor of the network but its head, or are refused."""
        return self.classes is None

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], key: str, classes: tuple[str, ...] | None = None) -> Weights:
        """Weights with the names of today, without the prefixes of what a network was wrapped in."""
        tensors = {
            name: tensor.detach() for name, tensor in tensors.items() if name != "n_averaged"
        }  # of AveragedModel
        if all(name.startswith(("normalize.", "network.")) for name in tensors):  # our classifier
            tensors = {name: tensor for name, tensor in tensors.items() if name.startswith("network.")}
        while prefix := _shared_prefix(tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        for old, new in OLD_NAMES:
            tensors = {old.sub(new, name): tensor for name, tensor in tensors.items()}
        return cls(tensors, key, classes)

    def digest(self) -> str:
        """SHA-256 of names, types, shapes and values, in the order of the names."""
        sha256 = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            sha256.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
            sha256.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return sha256.hexdigest()


def _shared_prefix(names: Collection[str]) -> str:
    """The prefix that all names have, of those that wrappers add; empty if there is none."""
    return next((prefix for prefix in PREFIXES if names and all(name.startswith(prefix) for name in names)), "")


def read(path: Path, key: str) -> Weights:
    """The weights in a file.

    Raises:
        UserError: it is damaged, has no weights, or has objects that only code could build; such code is never run.
    """
    try:
        content = _safetensors(path) if path.suffix == ".safetensors" else _pytorch(path)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UserError(f"{key}: {path} cannot be read ({error.strerror})") from None
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({found[1]})" if found else ""
        raise UserError(
            f"{key}: {path} has objects other than tensors{what}, or is damaged; such a file could run code, so it is not loaded. "
            "Save model.state_dict() alone, best as .safetensors"
        ) from None
    except Exception as error:  # torch and safetensors raise many classes of errors
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{key}: {path} is damaged, or has no weights ({reason})") from None
    while inner := next((content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)), None):
        content = inner
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{key}: {path} has no tensors; it has {named([str(name) for name in content]) or 'nothing'}")
    return Weights.of(tensors, key)


def _safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors.torch import load_file  # only these files need it

    return load_file(path)


def _pytorch(path: Path) -> Mapping[str, Any]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, Mapping):
        raise ValueError(f"it has a {type(content).__name__}, not tensors by name")
    return content


def load(weights: Weights, model: Classifier, title: str, classes: Sequence[str]) -> str:
    """Load what fits into a network. Returns what was not taken, in one line; empty if all was.

    The head is taken if it has the same shape, and, if it is known, the same classes.

    Raises:
        UserError: the weights are of another network.
    """
    own: dict[str, Tensor] = model.network.state_dict()
    given = resized(weights.tensors, model)
    heads = (model.head_prefix, *AUXILIARY)
    fits = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    others = [name for name in own if name not in fits and not name.endswith(UNIMPORTANT)]
    unused = [name for name in given if name not in own and not name.startswith(heads)]
    if weights.classes not in (None, tuple(classes)):
        fits = {name: tensor for name, tensor in fits.items() if not name.startswith(heads)}
    of_backbone = [name for name in fits if not name.startswith(heads)]
    wrong = [name for name in others if not name.startswith(heads)]
    if not of_backbone or (weights.complete and (wrong or unused)):
        raise UserError(_refusal(weights.key, title, own, given, len(fits), wrong or unused or list(own)))
    model.network.load_state_dict(fits, strict=False)
    left = [name for name in own if name not in fits and not name.endswith(UNIMPORTANT)]
    _draw_head(model, left)
    if not left and not unused:
        return ""
    parts = [f"{weights.key}: {len(fits):,} of {counted(len(own), 'tensor')} taken"]
    parts += [f"random: {named(left)}"] if left else []
    parts += [f"not used: {named(unused)}"] if unused else []
    return "; ".join(parts)


@torch.no_grad()
def _draw_head(model: Classifier, random: Collection[str]) -> None:
    """Draw small weights for a new head, so that the features decide from the first step on.

    Several libraries draw them for a thousand classes: with nine, EfficientNet's first loss is 5, and a short training only
    undoes it.
    """
    for name, parameter in model.network.named_parameters():
        if name in random and name.startswith(model.head_prefix):
            if parameter.ndim > 1:
                parameter.normal_(std=HEAD_STD)
            elif name.endswith("bias"):
                parameter.fill_(getattr(model.network, "head_bias", 0.0))


def _refusal(
    key: str, title: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor], fitting: int, wrong: Sequence[str]
) -> str:
    """The message for weights of another network."""

    def shape(tensors: Mapping[str, Tensor], name: str) -> str:
        return f"({', '.join(map(str, tensors[name].shape))})" if name in tensors else "missing"

    first = "; ".join(f"{name} is {shape(own, name)} in the network, {shape(given, name)} there" for name in wrong[:3])
    return f"{key}: these are not the weights of {title}: {fitting:,} of its {counted(len(own), 'tensor')} fit; the first that do not: {first}"


def resized(tensors: Mapping[str, Tensor], model: Classifier) -> Mapping[str, Tensor]:
    """Weights in which the position embeddings of torchvision's vision transformer fit the size of its images."""
    embedding = "encoder.pos_embedding"
    size, patch = (getattr(model.network, name, None) for name in ("image_size", "patch_size"))
    if embedding not in tensors or not isinstance(size, int) or not isinstance(patch, int):
        return tensors
    from torchvision.models.vision_transformer import interpolate_embeddings  # only this network needs it

    try:
        return interpolate_embeddings(size, patch, OrderedDict(tensors))
    except (ValueError, RuntimeError):  # not the position embeddings of square images
        return tensors
