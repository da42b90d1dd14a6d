"""The networks of torchvision and timm: their names, the images that their weights want, where the weights are published.

published(TORCHVISION, "resnet18").size     # 224, without importing torchvision

torchvision.csv and timm.csv beside this file list them; `python scripts/list_networks.py` writes both from the installed
packages, and a test compares them.
"""

from __future__ import annotations

import csv
import difflib
import functools
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.config.data import SOURCES, DataSettings
from experiments.config.wording import named

TORCHVISION = "experiments.models.torchvision_networks.torchvision"
TIMM = "experiments.models.timm_networks.timm"
LIBRARIES = {TORCHVISION: "torchvision", TIMM: "timm"}
HUB = "timm/"  # where timm publishes its weights on Hugging Face: a repository per network and tag
IMAGENET = "imagenet"  # model.weights: those that the library publishes
RUN = "run:"  # model.weights: those of a finished run
FORMATS = (".safetensors", ".pt", ".pth")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Published:
    """What the weights of a network want; a network without published weights has the usual values.

    Attributes:
        size: pixels per side.
        smallest: the fewest pixels per side that the network takes, where it is known.
        multiple: the pixels per side must be a multiple of this. If it is not 1, a network takes one size only.
        address: of the file of its weights; empty if there is none.
    """

    size: int = 32
    smallest: int = 1
    multiple: int = 1
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    address: str = ""


OURS = Published()  # what our networks, and custom ones, get


@functools.cache
def networks(target: str) -> Mapping[str, Published]:
    """The networks of a library, by name; with timm also by name and tag of the weights, as in "resnet50.a1_in1k"."""
    found: dict[str, Published] = {}
    with Path(__file__).with_name(f"{LIBRARIES[target]}.csv").open(newline="", encoding="utf-8") as file:
        file.readline()  # the version of the library
        for row in csv.DictReader(file):
            found[row["name"]] = network = _published(row)
            found.setdefault(row["name"].partition(".")[0], network)  # the default weights come first
    return found


def version_of_table(target: str) -> str:
    """The library and the version that the table of its networks was made from, such as "torchvision 0.29.2"."""
    with Path(__file__).with_name(f"{LIBRARIES[target]}.csv").open(encoding="utf-8") as file:
        return file.readline().strip("# \n")


def _published(row: Mapping[str, str]) -> Published:
    """A row of the table; an empty cell has the usual value, an address that is the name of a repository is one of the hub."""
    mean, std = (tuple(map(float, row[key].split())) for key in ("mean", "std"))
    size, smallest, multiple = int(row["size"] or 224), int(row["smallest"] or 1), int(row["multiple"] or 1)
    address = row["address"]
    if address and "://" not in address:
        place = f"{HUB}{row['name']}" if address == HUB else address
        address = f"https://huggingface.co/{place}/resolve/main/model.safetensors"
    return Published(size, smallest, multiple, mean or IMAGENET_MEAN, std or IMAGENET_STD, address)


def published(target: Any, name: Any) -> Published:
    """What a network wants, by the target and the name in its YAML file; an unknown one gets the values of ours."""
    if not isinstance(target, str) or target not in LIBRARIES or not isinstance(name, str):
        return OURS
    return networks(target).get(name, OURS)


def with_wanted_images(values: Mapping[str, Any]) -> dict[str, Any]:
    """A composed configuration in which the network's own values replace null in data.image_size, data.mean and data.std."""
    data, model = values.get("data"), values.get("model")
    if not isinstance(data, Mapping) or not isinstance(model, Mapping):
        return dict(values)
    target = data.get("_target_")
    fixed = SOURCES.get(target, DataSettings).fixed_image_size if isinstance(target, str) else None
    wanted = published(model.get("_target_"), model.get("name"))
    own = {"image_size": fixed or wanted.size, "mean": list(wanted.mean), "std": list(wanted.std)}
    filled = {key: own[key] if value is None and key in own else value for key, value in data.items()}
    return {**values, "data": filled}


def network_mistakes(target: str, name: str, weights: str | None, sizes: Sequence[int]) -> Iterator[str]:
    """Yield what is wrong with a network of a library.

    Args:
        sizes: of the images, then of the images of the first epochs, if these are smaller; in pixels per side.
    """
    known, library = networks(target), LIBRARIES[target]
    if name not in known:
        yield _unknown(name, target)
        return
    network = known[name]
    if weights == IMAGENET and not network.address:
        tagged = [other for other in known if other.startswith(f"{name}.") and known[other].address]
        hint = f"; there are some for {named(tagged)}" if tagged else "; set model.weights to a file"
        yield f"model.weights={IMAGENET}: {library} publishes none for {name}{hint}"
    for key, size in zip(("data.image_size", *["training.image_sizes"] * len(sizes)), sizes):
        if size < network.smallest:
            yield f"{key}={size}: must be at least {network.smallest} for {name}"
        elif size % network.multiple:
            around = [max(1, size // network.multiple + step) * network.multiple for step in (0, 1)]
            yield f"{key}={size}: must be a multiple of {network.multiple} for {name}, such as {' or '.join(map(str, dict.fromkeys(around)))}"
    if len(sizes) > 1 and network.multiple > 1:
        yield f"training.image_sizes={list(sizes[1:])}: must be [] for {name}, which takes images of one size only"


def _unknown(name: str, target: str) -> str:
    """The message for a name that a library does not have, with the most similar ones."""
    known = networks(target)
    other, library = next(item for item in LIBRARIES.items() if item[0] != target)
    if name in networks(other):
        return f"model.name={name}: is a network of {library}: model={library} model.name={name}"
    nearest = difflib.get_close_matches(name.lower(), known, n=5)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"it has {named(list(known), 8)}"
    return f"model.name={name}: {version_of_table(target)} has no network of this name; {hint}"


def missing_library(target: Any) -> str:
    """The message if a network's library is not installed; empty if it is."""
    if target != TIMM or importlib.util.find_spec("timm"):
        return ""
    return "model=timm: timm is not installed: pip install -e '.[timm]'"
