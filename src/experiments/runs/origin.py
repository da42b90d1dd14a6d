"""What a run was made from, besides its configuration: kept with its results, so that it can be made again.

`origin.json` has the digests of code, images and initial weights, and where its epochs were trained; the folder `source` has
the files of a network and a data source of one's own.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from experiments.files.atomic import atomic_write
from experiments.runs.fingerprint import PACKAGE, own_files, package_sources
from experiments.runs.provenance import machine, packages

if TYPE_CHECKING:
    from experiments.runs.checkpoint import State

FILE, SOURCE = "origin.json", "source"


@dataclass(frozen=True)
class Part:
    """Epochs that were trained in the same way.

    Attributes:
        first_epoch: counted from 1.
        threads: CPU threads of each process.
        processes: that torchrun has started; 1 without it.
        machine: see `provenance.machine`.
        packages: their versions.
    """

    first_epoch: int
    threads: int
    processes: int
    machine: Mapping[str, str]
    packages: Mapping[str, str]

    @classmethod
    def here(cls, first_epoch: int, device: torch.device, processes: int) -> Part:
        """What this process would train from an epoch on."""
        return cls(first_epoch, torch.get_num_threads(), processes, machine(device), packages())


@dataclass(frozen=True)
class Origin:
    """The content of `origin.json`.

    Attributes:
        code: SHA-256 of the files of this package that decide the numbers, by their names.
        data: SHA-256 of the images and their labels.
        weights: SHA-256 of the initial weights; None for random ones.
        parts: where the epochs were trained; more than one if a later process trained in another way.
    """

    code: Mapping[str, str]
    data: str
    weights: str | None
    parts: tuple[Part, ...]

    @classmethod
    def read(cls, content: bytes) -> Origin | None:
        """None if the file is damaged."""
        try:
            values: dict[str, Any] = json.loads(content)
            parts = tuple(Part(**part) for part in values.pop("parts"))
            origin = cls(**values, parts=parts)
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
            return None
        numbers = [number for part in parts for number in (part.first_epoch, part.threads, part.processes)]
        tables = [origin.code, *(table for part in parts for table in (part.machine, part.packages))]
        whole = all(isinstance(number, int) for number in numbers) and all(isinstance(table, dict) for table in tables)
        return origin if parts and whole else None


def note(folder: Path, state: State, data: str) -> dict[str, bytes]:
    """Note in a run's folder where its next epochs are trained, and keep the files of its own classes.

    Args:
        data: digest of its images.

    Returns:
        The content of these files, by their paths in the folder: it may be deleted during the training.
    """
    learner = state.learner
    config, weights = learner.config, learner.model.weights_digest
    part = Part.here(len(state.history) + 1, learner.device, learner.ranks.count)
    file, before = folder / FILE, None
    if part.first_epoch > 1 and file.exists():
        before = Origin.read(file.read_bytes())
    parts = before.parts if before else ()
    if not parts or dataclasses.replace(parts[-1], first_epoch=part.first_epoch) != part:
        parts = (*parts, part)
    text = json.dumps(dataclasses.asdict(Origin(package_sources(PACKAGE), data, weights, parts)), indent=1)
    own = own_files(config.model.target) | own_files(config.data._target_)
    content = {FILE: text.encode()} | {f"{SOURCE}/{name}": path.read_bytes() for name, path in own.items()}
    write(folder, content)
    return content


def write(folder: Path, content: Mapping[str, bytes]) -> None:
    """Write files, by their paths in a folder."""
    for name, data in content.items():
        with atomic_write(folder / name) as opened:
            opened.write(data)
