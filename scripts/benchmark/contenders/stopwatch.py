"""What every contender has in common: what it is asked for, the pictures, and the times that it tells at its end.

A contender is a program of its own: `python CONTENDER.py '{"root": "data", "batch": 32, ...}'`. Its last line is JSON.
"""

import json
import pickle
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

VALIDATION = 10_000  # pictures that validate, as in the notebook: the first ones


@dataclass(frozen=True)
class Asked:
    """`epochs` counts the warm-up epoch in; `images` train, repeated where there are not so many."""

    started: float  # of the process, by the parent's clock, in seconds since 1970
    root: str
    batch: int
    precision: str
    epochs: int
    images: int
    validation: int
    threads: int | None
    device: str
    overrides: list[str]  # of this project's own configuration
    folder: str  # for what is kept from one run to the next

    @classmethod
    def read(cls) -> "Asked":
        return cls(**json.loads(sys.argv[1]))


class Stopwatch:
    """Seconds from one epoch's end to the next one's, and from the start of the process to the first training step."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.first_step: float | None = None
        self.ends: list[float] = []
        self.accuracies: list[float] = []

    def step(self) -> None:
        """A training step is done."""
        if self.first_step is None:
            self.first_step = time.time() - self.started

    def epoch(self, accuracy: float) -> None:
        """An epoch is done, all that belongs to it; `accuracy` is that of its validation."""
        self.ends.append(time.perf_counter())
        self.accuracies.append(accuracy)

    def tell(self, **versions: str) -> None:
        seconds = [end - start for start, end in zip(self.ends, self.ends[1:])]
        told = {"seconds": seconds, "first_step": self.first_step, "accuracies": self.accuracies, "versions": versions}
        print("\n" + json.dumps(told), flush=True)


def pictures(
    root: str, images: int = 50_000 - VALIDATION, validation: int = VALIDATION
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training pixels, uint8 (N, 32, 32, 3), and labels, int64 (N,); those that validate: the first 10,000, or fewer."""
    pixels, labels = read(root, *(f"data_batch_{number}" for number in range(1, 6)))
    rows = VALIDATION + np.resize(np.arange(len(labels) - VALIDATION), images)
    return pixels[rows], labels[rows], pixels[:validation], labels[:validation]


def read(root: str, *names: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, uint8 (N, 32, 32, 3), and labels, int64 (N,), of files of CIFAR-10."""
    parts = []
    for name in names:
        with (Path(root) / "cifar-10-batches-py" / name).open("rb") as file:
            parts.append(pickle.load(file, encoding="bytes"))
    pixels = np.concatenate([part[b"data"] for part in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return pixels, np.concatenate([part[b"labels"] for part in parts])
