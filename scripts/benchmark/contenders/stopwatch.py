"""What the contenders share: the request, the images, and the times that they report at their end.

A contender is a program: `python CONTENDER.py '{"data": "data/cifar-10-batches-py", "batch": 32, ...}'`. Its last line
is JSON. It may run in another Python, so this file imports nothing of this project.
"""

import json
import pickle
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Request:
    """What is measured.

    Attributes:
        started: when the process was started, in seconds since 1970.
        data: the folder with the files of CIFAR-10.
        epochs: the warm-up epoch included.
        images: number of training images; those of the files are repeated if there are fewer.
        validation: number of validation images.
        held_out: the first images of the files, which are not trained on.
        overrides: of this project's configuration.
        folder: for files that a later process of the contender may use.
    """

    started: float
    data: str
    batch: int
    precision: str
    epochs: int
    images: int
    validation: int
    held_out: int
    threads: int | None
    device: str
    overrides: list[str]
    folder: str

    @classmethod
    def read(cls) -> "Request":
        return cls(**json.loads(sys.argv[1]))


class Stopwatch:
    """Seconds from the end of an epoch to the end of the next, and from the start to the first training step."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.first_step: float | None = None
        self.ends: list[float] = []
        self.accuracies: list[float] = []

    def step(self) -> None:
        """A training step has ended."""
        if self.first_step is None:
            self.first_step = time.time() - self.started

    def epoch(self, accuracy: float) -> None:
        """An epoch has ended, with its validation, whose result is `accuracy`."""
        self.ends.append(time.perf_counter())
        self.accuracies.append(accuracy)

    def report(self, **versions: str) -> None:
        """Print the last line of a contender."""
        seconds = [end - start for start, end in zip(self.ends, self.ends[1:])]
        report = {"seconds": seconds, "first_step": self.first_step, "accuracies": self.accuracies}
        print("\n" + json.dumps(report | {"versions": versions}), flush=True)


def load_images(
    data: str, held_out: int, images: int | None = None, validation: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training pixels, uint8 (N, 32, 32, 3), and labels, int64 (N,), then the same for validation; by default all."""
    pixels, labels = read(data, *(f"data_batch_{number}" for number in range(1, 6)))
    indices = np.arange(held_out, len(labels))
    if images is not None:
        indices = np.resize(indices, images)
    kept = slice(held_out if validation is None else validation)
    return pixels[indices], labels[indices], pixels[kept], labels[kept]


def read(data: str, *names: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, uint8 (N, 32, 32, 3), and labels, int64 (N,), of these files of CIFAR-10."""
    parts = []
    for name in names:
        with (Path(data) / name).open("rb") as file:
            parts.append(pickle.load(file, encoding="bytes"))
    pixels = np.concatenate([part[b"data"] for part in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return pixels, np.concatenate([part[b"labels"] for part in parts])
