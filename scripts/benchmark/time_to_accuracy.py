"""Seconds from the start of a command to a test accuracy on CIFAR-10: the teaching notebook in Keras, and a preset.

python scripts/benchmark/time_to_accuracy.py --data data                  needs pip install -e '.[benchmark]'
python scripts/benchmark/time_to_accuracy.py --accuracy 0.9 --preset fast90 --contenders ours
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from settings import CIFAR10, HELD_OUT, PROGRAMS, ROOT, find_data

from experiments.config import UserError
from experiments.config.command_line import exit_codes
from experiments.config.defaults import default

CONTENDERS = ("keras", "ours")


@dataclass(frozen=True)
class Timing:
    """One process.

    Attributes:
        epochs: (seconds from the start of the process to the end of an epoch, test accuracy of its weights).
        total: seconds from the start of the process to its end, or to the end of its last epoch.
        training: the seconds that the program itself counts.
    """

    name: str
    epochs: Sequence[tuple[float, float]]
    total: float
    training: float = math.nan

    def first(self, accuracy: float) -> tuple[float, float]:
        """The first epoch with at least this accuracy; if there is none, infinity and the highest accuracy."""
        enough = [epoch for epoch in self.epochs if epoch[1] >= accuracy]
        return enough[0] if enough else (math.inf, max(reached for _, reached in self.epochs))


def main() -> int:
    options = parse()
    options.data = find_data(options.data)

    import tables  # imports torch: mistakes are reported first

    options.contenders = tables.available(options.contenders)
    if not options.contenders:
        return 1
    tables.show_machine()
    timings: dict[str, list[Timing]] = {}
    for seed in options.seeds:
        for timing in measure(options, seed):
            timings.setdefault(timing.name, []).append(timing)
            seconds, accuracy = timing.first(options.accuracy)
            when = f"at best, in {timing.total:.1f} s" if math.isinf(seconds) else f"after {seconds:.1f} s"
            tables.console.print(f"seed {seed}  {timing.name}: test accuracy {accuracy:.3f} {when}", markup=False)
    table = tables.new_table("", f"s to {options.accuracy:g}", "accuracy then", "s in all")
    for name, rounds in timings.items():
        times, accuracies = zip(*(timing.first(options.accuracy) for timing in rounds))
        totals = [timing.total for timing in rounds]
        table.add_row(name, tables.spread(times, 1), tables.spread(accuracies, 3), tables.spread(totals, 1))
    tables.console.print()
    tables.console.print(table)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", default=default("data.root"), metavar="ROOT", help=f"contains {CIFAR10}/ (default: %(default)s)")
    add("--accuracy", type=float, default=0.627, help="to reach (default: 0.627, that of the finished notebook)")
    add("--preset", default="fast70", help="of conf/experiment (default: fast70)")
    add("--overrides", nargs="+", default=[], metavar="key=value", help="of the preset")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="one round per seed (default: 1 2 3)")
    add("--contenders", nargs="+", choices=CONTENDERS, default=[*CONTENDERS], help="default: both")
    return parser.parse_args()


def measure(options: argparse.Namespace, seed: int) -> Iterator[Timing]:
    """Run each command once; the preset twice, because the second run finds the MLflow store and the images."""
    if "keras" in options.contenders:
        yield time_notebook(options.data, seed)
    if "ours" in options.contenders:
        overrides = [f"experiment={options.preset}", *options.overrides, f"data.root={options.data.parent}"]
        with tempfile.TemporaryDirectory() as folder:
            for when in ("in a new folder", "once more"):
                yield time_preset(f"{options.preset}, {when}", folder, [*overrides, f"seed={seed}"])


def time_notebook(data: Path, seed: int) -> Timing:
    """Every epoch of the notebook in Keras.

    Raises:
        UserError: Keras failed.
    """
    request = {"started": time.time(), "data": str(data), "held_out": HELD_OUT, "seed": seed}
    command = [sys.executable, str(PROGRAMS / "notebook_in_keras.py"), json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"Keras failed: {done.stderr.strip()[-300:]}")
    epochs = json.loads(done.stdout.strip().splitlines()[-1])
    return Timing("the notebook in Keras", epochs, epochs[-1][0])


def time_preset(name: str, folder: str, overrides: list[str]) -> Timing:
    """The last epoch of `python train.py ...` in `folder`, which ends when its line is printed.

    Raises:
        UserError: it failed, and has printed why.
    """
    command = [sys.executable, str(ROOT / "train.py"), *overrides, "evaluate_test=true", "resume=false"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    seconds = accuracy = math.nan
    training = 0.0
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch "):
            seconds = time.perf_counter() - started
            training += float(line.partition(" images/s")[0].split()[-3])  # 3.2 s  15,625
        elif line.startswith("test/accuracy"):
            accuracy = float(line.split()[1])
    if process.wait():
        raise UserError(f"{' '.join(overrides)}: train.py failed with exit code {process.returncode}; see above")
    return Timing(name, [(seconds, accuracy)], time.perf_counter() - started, training)


if __name__ == "__main__":
    with exit_codes():
        sys.exit(main())
