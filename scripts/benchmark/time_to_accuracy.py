"""Seconds from the start of a command to a test accuracy on CIFAR-10: the teaching notebook in Keras, and a preset.

python scripts/time_to_accuracy.py --data data                          needs pip install -e '.[benchmark]'
python scripts/time_to_accuracy.py --accuracy 0.9 --preset fast90 --contenders ours
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from experiments.config import UserError
from experiments.config.command_line import exit_codes

ROOT = Path(__file__).parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, default="data", metavar="ROOT", help="holds cifar-10-batches-py/ (default: data)")
    add("--accuracy", type=float, default=0.627, help="to reach (default: 0.627, what the notebook ended with)")
    add("--preset", default="fast70", help="of conf/experiment (default: fast70)")
    add("--overrides", nargs="+", default=[], metavar="key=value", help="of the preset")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="a round each (default: 1 2 3)")
    add("--contenders", nargs="+", choices=("keras", "ours"), default=["keras", "ours"])
    asked = parser.parse_args()
    data = asked.data.expanduser().resolve()
    if not (data / "cifar-10-batches-py" / "test_batch").exists():
        raise UserError(f"--data {data}: holds no cifar-10-batches-py/; python train.py data.root={data} downloads it")

    from contest import installed, machine
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 300
    contenders, missing = installed(asked.contenders, {})
    for told in missing:
        console.print(told, markup=False)
    if not contenders:
        return 1
    here = machine()
    console.print(f"{here['processor']}, {here['cores']} cores, Python {here['python']}", markup=False)
    outcomes: dict[str, list[tuple[float, float, float]]] = {}
    for seed in asked.seeds:
        with tempfile.TemporaryDirectory() as folder:
            turns = [("the notebook in Keras", notebook)] if "keras" in contenders else []
            if "ours" in contenders:
                turns += [(f"{asked.preset}, in a new folder", preset), (f"{asked.preset}, once more", preset)]
            for name, run in turns:
                epochs, whole = run(data, seed, folder, [f"experiment={asked.preset}", *asked.overrides])
                enough = [epoch for epoch in epochs if epoch[1] >= asked.accuracy]
                seconds, accuracy = enough[0] if enough else (math.inf, max(accuracy for _, accuracy in epochs))
                outcomes.setdefault(name, []).append((seconds, accuracy, whole))
                when = f"after {seconds:.1f} s" if enough else f"at best, in {whole:.1f} s"
                console.print(f"seed {seed}  {name}: test accuracy {accuracy:.3f} {when}", markup=False)
    table = Table("", f"s to {asked.accuracy:g}", "accuracy then", "s in all", box=None, padding=(0, 2, 0, 0))
    for name, rows in outcomes.items():
        seconds, accuracies, wholes = zip(*rows)
        table.add_row(name, spread(seconds, 1), spread(accuracies, 3), spread(wholes, 1))
    console.print()
    console.print(table)
    return 0


def notebook(data: Path, seed: int, *_) -> tuple[list[tuple[float, float]], float]:
    """(seconds to the end of each epoch and test accuracy then, seconds to the last one's)."""
    started = time.time()
    program = ROOT / "scripts" / "contenders" / "notebook_in_keras.py"
    command = [sys.executable, str(program), str(started), str(data), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"Keras failed: {done.stderr.strip()[-300:]}")
    epochs = json.loads(done.stdout.strip().splitlines()[-1])
    return epochs, epochs[-1][0]


def preset(data: Path, seed: int, folder: str, overrides: list[str]) -> tuple[list[tuple[float, float]], float]:
    """([(seconds to the end of the last epoch, test accuracy)], seconds in all): what is shown is timed as it comes."""
    always = (f"data.root={data}", f"seed={seed}", "evaluate_test=true", "resume=false")
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *overrides, *always],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    seconds = accuracy = math.nan
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch "):
            seconds = time.perf_counter() - started
        elif line.startswith("test/accuracy"):
            accuracy = float(line.split()[1])
    if process.wait():
        raise UserError(f"{' '.join(overrides)}: train.py ended with exit code {process.returncode}; see above")
    return [(seconds, accuracy)], time.perf_counter() - started


def spread(values, digits: int) -> str:
    """Median (least to largest)."""
    middle, low, high = (
        f"{value:.{digits}f}".replace("inf", "never") for value in (median(values), min(values), max(values))
    )
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle


if __name__ == "__main__":
    with exit_codes():
        sys.exit(main())
