"""What is disturbed: the commands of the campaigns, small enough to be run hundreds of times."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

TRAIN = Path(__file__).parents[2] / "train.py"
TINY = ("data=digits", "threads=1", "model.dense_width=8")
# Everything with a state of its own: drawn images, the average of the weights, the optimizer, the schedule, dropout.
STATEFUL = (
    *("threads=1", "model.filters=4", "model.dense_width=8", "model.dropout=0.2", "training.ema=0.9", "schedule=onecycle"),
    *("augment.mixup=0.2", "early_stopping.patience=null", "training.checkpoint_minutes=1e-3"),
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """A command that is disturbed.

    Attributes:
        arguments: of train.py.
        processes: that torchrun starts; with 1 the command is run by a copy of this process, which has imported everything.
    """

    name: str
    arguments: tuple[str, ...]
    processes: int = 1

    def command(self) -> list[str]:
        """The command line, with the program."""
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.processes}"]
        return [sys.executable, *(torchrun if self.processes > 1 else []), str(TRAIN), *self.arguments]


def works(photographs: Path) -> dict[str, Work]:
    """All of them by name; `photographs`: a folder of pictures."""
    digits = ("data=digits", *STATEFUL, "augment=standard", "optimizer=muon", "training.epochs=4")
    pictures: tuple[str, ...] = ("data=image_folder", f"data.root={photographs}", "data.image_size=48", "data.fit=crop")
    pictures += (
        "data.map_limit=0",
        *STATEFUL,
        "augment=photographs",
        "training.epochs=2",
        "training.batch_size=8",
        "data.workers=2",
    )
    search: tuple[str, ...] = (
        "-m",
        *TINY,
        "hydra/sweeper=optuna",
        "model.filters=range(2,6)",
        "optimizer.lr=tag(log,interval(1e-4,1e-2))",
    )
    search += ("hydra.sweeper.n_trials=4", "hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=1")
    ranks = ("data=digits", *STATEFUL, "augment=standard", "training.epochs=3", "training.batch_size=256")
    found = [
        Work("run", (*TINY, "model.filters=2", "training.epochs=2")),
        Work("digits", digits),
        Work("photographs", pictures),
        Work("grid", ("-m", *TINY, "training.epochs=2", "model.filters=2,3", "seed=1,2")),
        Work("pair", ("-m", *TINY, "training.epochs=2", "model.filters=2,3")),
        Work("search", (*search, "training.epochs=3", "early_stopping.patience=null")),
        Work("shared", ("-m", *TINY, "model.filters=4", "early_stopping.patience=null", "training.epochs=1,2,4")),
        Work("torchrun", ranks, processes=2),
    ]
    return {work.name: work for work in found}


def draw_photographs(folder: Path) -> Path:
    """A folder with 90 small pictures of three classes as JPEG files; returns it."""
    for label, name in enumerate(("left", "right", "both")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(30):
            size = (80 + number, 100 - number)
            picture = Image.linear_gradient("L").rotate(90 * label + number).resize(size)
            picture.convert("RGB").save(folder / name / f"{number}.jpg")
    return folder
