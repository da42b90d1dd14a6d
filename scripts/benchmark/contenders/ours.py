"""This project: `python train.py ...` as a user types it, metrics and checkpoints included, given up after the epochs asked for."""

import atexit
import os
import runpy
import sys
from importlib.metadata import version
from pathlib import Path

from stopwatch import VALIDATION, Asked, Stopwatch


def main(asked: Asked) -> None:
    watch = Stopwatch(asked.started)
    root = Path(__file__).parents[3]
    os.chdir(asked.folder)

    from experiments import experiment
    from experiments.data import Splits

    load, run = experiment.load_splits, experiment.run

    def limited(*arguments) -> Splits:
        import numpy as np

        splits = load(*arguments)
        rows = np.resize(np.arange(len(splits.train)), asked.images)
        return Splits(splits.train[rows], splits.validation[: asked.validation], splits.test)

    def done(epoch: int, metrics: dict[str, float]) -> bool:
        """Told after the epoch is logged and saved."""
        watch.epoch(metrics["val/accuracy"])
        return epoch == asked.epochs

    def timed(config, command):
        from experiments.training.optimizers import Optimizer

        step = Optimizer.step

        def first(optimizer: Optimizer) -> None:
            step(optimizer)
            watch.step()
            Optimizer.step = step

        Optimizer.step = first
        return run(config, command, should_prune=done)

    usual = asked.images == 50_000 - VALIDATION and asked.validation == VALIDATION
    experiment.load_splits = load if usual else limited
    experiment.run = timed
    sys.argv = [
        str(root / "train.py"),
        f"data.root={asked.root}",
        "data.split=first",
        f"training.batch_size={asked.batch}",
        f"training.epochs={asked.epochs + 1}",
        "early_stopping.patience=null",
        f"precision={asked.precision}",
        f"device={asked.device}",
        f"threads={asked.threads or 'null'}",
        "resume=false",
        *asked.overrides,
    ]
    atexit.register(lambda: watch.tell(torch=version("torch")))  # train.py ends the process
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(Asked.read())
