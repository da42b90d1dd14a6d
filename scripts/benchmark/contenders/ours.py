"""This project: `python train.py ...` as a user types it, with metrics and checkpoints, pruned after the last epoch.

Three functions are replaced: loading, if other numbers of images are requested; the run, which gets a pruner that
reads the stopwatch; and the first step of the optimizer.
"""

import atexit
import os
import runpy
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from stopwatch import Request, Stopwatch

TRAIN = Path(__file__).parents[3] / "train.py"


def main(request: Request) -> None:
    watch = Stopwatch(request.started)
    os.chdir(request.folder)
    resize_splits(request)
    time_run(request, watch)
    sys.argv = [
        str(TRAIN),
        *request.overrides,  # what the request itself says comes after them, and wins
        f"data.root={Path(request.data).parent}",
        f"data.validation_size={request.held_out}",
        "data.split=first",
        f"training.batch_size={request.batch}",
        f"training.epochs={request.epochs + 1}",  # one more, because the last epoch would be followed by the test
        "early_stopping.patience=null",
        f"precision={request.precision}",
        f"device={request.device}",
        f"threads={request.threads or 'null'}",
        "resume=false",
    ]
    atexit.register(lambda: watch.report(torch=version("torch")))  # train.py ends the process
    runpy.run_path(sys.argv[0], run_name="__main__")


def resize_splits(request: Request) -> None:
    """Let a run have the requested numbers of images, repeated if there are fewer."""
    from experiments import experiment
    from experiments.config import DataSettings
    from experiments.data import Splits

    load = experiment.load_splits

    def resized(config: DataSettings) -> Splits:
        splits = load(config)
        if (len(splits.train), len(splits.validation)) == (request.images, request.validation):
            return splits
        import numpy as np

        indices = np.resize(np.arange(len(splits.train)), request.images)
        return Splits(splits.train[indices], splits.validation[: request.validation], splits.test)

    replace(experiment, "load_splits", resized)


def time_run(request: Request, watch: Stopwatch) -> None:
    """Let a run report its epochs to the stopwatch and stop after the last one."""
    from experiments import experiment
    from experiments.config import Config
    from experiments.config.command_line import Command

    run = experiment.run

    def end_epoch(epoch: int, metrics: Mapping[str, float]) -> bool:
        """Called when the epoch is logged and saved."""
        watch.epoch(metrics["val/accuracy"])
        return epoch == request.epochs

    def timed(config: Config, command: Command) -> experiment.Result:
        time_first_step(watch)
        return run(config, command, should_prune=end_epoch)

    replace(experiment, "run", timed)


def time_first_step(watch: Stopwatch) -> None:
    """Report the first step of the optimizer to the stopwatch; the others are not touched."""
    from experiments.training.optimizers import Optimizer  # imports torch, as train.py does at this moment

    step = Optimizer.step

    def first(optimizer: Optimizer) -> None:
        step(optimizer)
        watch.step()
        replace(Optimizer, "step", step)

    replace(Optimizer, "step", first)


def replace(owner: object, name: str, function: Callable) -> None:
    setattr(owner, name, function)


if __name__ == "__main__":
    main(Request.read())
