"""Write the tables of published networks from the installed torchvision and timm: python scripts/list_networks.py [FOLDER]

By default they are written to src/experiments/config/, where the package reads them. For developers: after a new version.
The first line of a table has the version of the library.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.config.published import HUB, IMAGENET_MEAN, IMAGENET_STD, TORCHVISION
from experiments.models.build import BUILDERS

COLUMNS = ("name", "size", "smallest", "multiple", "mean", "std", "address")
Row = tuple[str, ...]


def _smallest(name: str, size: int, published: int) -> int:
    """The fewest pixels per side that a network takes, found by trying; as published if it cannot be tried without numbers."""
    try:
        with torch.device("meta"):  # without its weights and its numbers
            network = BUILDERS[TORCHVISION]((3, size, size), 2, name).train()
    except RuntimeError:
        return published
    low, high = 0, size
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _takes(network, middle) else (middle, high)
    return high


def _takes(network: nn.Module, size: int) -> bool:
    """Whether a network takes images of this size."""
    try:
        network(torch.zeros(2, 3, size, size, device="meta"))
    except (RuntimeError, AssertionError, ValueError, ZeroDivisionError):
        return False
    return True


def torchvision_rows(find_smallest: Callable[[str, int, int], int] = _smallest) -> Iterator[Row]:
    """A row per classification network, with its best weights.

    Args:
        find_smallest: name, usual size, and smallest size as published -> the fewest pixels per side; takes most of a minute.
    """
    from torchvision import models

    for name in models.list_models(module=models):
        weights = models.get_model_weights(name).DEFAULT
        preset = weights.transforms()
        size, published = preset.crop_size[0], weights.meta["min_size"][0]
        multiple = int(name.rpartition("_")[2]) if name.startswith("vit_") else size if name == "maxvit_t" else 1
        smallest = multiple if multiple > 1 else find_smallest(name, size, published)
        sizes = (_unusual(size, 224), _unusual(smallest, 1), _unusual(multiple, 1))
        yield (name, *sizes, *_normalization(preset.mean, preset.std), weights.url)


def timm_rows() -> Iterator[Row]:
    """A row per network and tag of its weights, of each network the default ones first; a row per network without weights."""
    import timm
    from timm.models import get_pretrained_cfg

    tagged = timm.list_models(pretrained=True)
    for network in timm.list_models():
        first: Any = get_pretrained_cfg(network)
        default = f"{network}.{first.tag}" if first.tag else network
        others = sorted(name for name in tagged if name.startswith(f"{network}.") and name != default)
        for name in (default, *others):
            cfg: Any = get_pretrained_cfg(name)
            hub = cfg.hf_hub_id if cfg.hf_hub_id and not cfg.hf_hub_filename else ""
            address = HUB if hub in (HUB, f"{HUB}{name}") else hub or cfg.url or ""
            yield (name, _unusual(cfg.input_size[-1], 224), "", "", *_normalization(cfg.mean, cfg.std), address)


def _normalization(mean: Sequence[float], std: Sequence[float]) -> tuple[str, str]:
    return _unusual(mean, IMAGENET_MEAN), _unusual(std, IMAGENET_STD)


def _unusual(value: object, usual: object) -> str:
    """A cell: empty for the usual value."""
    plain = tuple(value) if isinstance(value, list) else value
    if plain == usual:
        return ""
    return " ".join(map(str, plain)) if isinstance(plain, tuple) else str(plain)


def main() -> None:
    default = Path(__file__).parents[1] / "src/experiments/config"
    parser = argparse.ArgumentParser(description="Write the tables of published networks from torchvision and timm.")
    parser.add_argument("folder", type=Path, nargs="?", default=default, metavar="FOLDER")
    folder = parser.parse_args().folder
    for library, rows in (("torchvision", torchvision_rows), ("timm", timm_rows)):
        with (folder / f"{library}.csv").open("w", newline="", encoding="utf-8") as file:
            file.write(f"# {library} {version(library)}\n")
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows()])


if __name__ == "__main__":
    main()
