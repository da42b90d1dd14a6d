"""What can be measured: the contenders, and the settings that they are measured with."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.config import UserError

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "contenders"
CIFAR10 = "cifar-10-batches-py"
HELD_OUT = 10_000  # the first images of CIFAR-10, for validation, as in the teaching notebook


@dataclass(frozen=True)
class Contender:
    """A program that trains the notebook's network.

    Attributes:
        program: its file in `contenders/`.
        estimate: the fraction of the matrix peak that it is expected to reach; only the time estimate uses it.
        needs: modules that it imports besides this project's dependencies.
    """

    label: str
    program: str
    estimate: float
    needs: tuple[str, ...] = ()


CONTENDERS = {
    "ours": Contender("this project", "ours.py", 0.45),
    "plain": Contender("plain PyTorch loop", "plain.py", 0.2),
    "lightning": Contender("Lightning", "with_lightning.py", 0.1, ("lightning",)),
    "keras": Contender("Keras on TensorFlow", "with_keras.py", 0.3, ("keras", "tensorflow")),
}


@dataclass(frozen=True)
class Setting:
    """What is measured: `epochs` epochs after one to warm up, in `rounds` processes per contender.

    Attributes:
        data: the folder with the files of CIFAR-10.
        images: number of training images.
        overrides: of this project's configuration.
    """

    data: str
    contenders: tuple[str, ...]
    batch: int
    precision: str
    epochs: int = 3
    rounds: int = 3
    images: int = 40_000
    threads: int | None = None
    device: str = "cpu"
    overrides: tuple[str, ...] = ()

    @property
    def validation(self) -> int:
        """Number of validation images: a quarter of the training images, at most those that are held out."""
        return max(1, min(HELD_OUT, self.images // 4))

    def request(self) -> dict[str, Any]:
        """The request to every contender, as plain values."""
        content = dataclasses.asdict(self) | {"overrides": list(self.overrides)}
        del content["contenders"], content["rounds"]
        return content | {"validation": self.validation, "held_out": HELD_OUT}


def find_data(root: str) -> Path:
    """The folder with the files of CIFAR-10 in `root`, as --data names it.

    Raises:
        UserError: it is not there.
    """
    found = Path(root).expanduser().resolve()
    if not all((found / CIFAR10 / name).exists() for name in ("data_batch_1", "test_batch")):
        raise UserError(f"--data {root}: does not contain {CIFAR10}/; python train.py data.root={root} downloads it")
    return found / CIFAR10


def installed(contenders: Sequence[str], pythons: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """(the contenders that can run, a line for each one that cannot).

    Args:
        pythons: contenders that run in another interpreter, of which it is not known what is installed.
    """
    can, lines = [], []
    for name in contenders:
        absent = [module for module in CONTENDERS[name].needs if importlib.util.find_spec(module) is None]
        if absent and name not in pythons:
            lines.append(f"{name} is left out: {', '.join(absent)} not installed; pip install -e '.[benchmark]'")
        else:
            can.append(name)
    return can, lines
