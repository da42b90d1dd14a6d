"""A GPU: images per second and the share of its peak, then the seconds to an accuracy beside the speed record.

python scripts/benchmark/gpu.py --data data
python scripts/benchmark/gpu.py --data data --airbench ../cifar10-airbench --overrides training.compile=true

The folder of --airbench is a clone of github.com/KellerJordan/cifar10-airbench, whose program runs unchanged on the same images.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmark import Benchmark
from settings import CIFAR10, PROGRAMS, Setting, find_data
from speed import count
from time_to_accuracy import Timing, time_preset

from experiments.config import UserError
from experiments.config.command_line import exit_codes
from experiments.config.defaults import default
from experiments.config.wording import percent

RECORD, REPOSITORY = "airbench94_muon.py", "KellerJordan/cifar10-airbench"
PRECISIONS = ("fp32", "tf32", "bf16")
FULL_SIZE = ("training.image_sizes=[]", "evaluation.tta=none")  # of the epochs whose speed is measured


def main() -> int:
    options = parse()
    if options.airbench and not (options.airbench / RECORD).is_file():
        raise UserError(f"--airbench {options.airbench}: does not contain {RECORD}; clone github.com/{REPOSITORY}")
    options.data = find_data(options.data)

    import tables  # imports torch: mistakes are reported first
    import torch

    if options.device == "cuda":
        if not torch.cuda.is_available():
            raise UserError("--device cuda: PyTorch finds no GPU here; --device cpu tries the script without one")
        tables.console.print(torch.cuda.get_device_name(), markup=False)
    failed = show_speed(options)
    timings = [*time_presets(options), *(time_record(options) if options.airbench else ())]
    table = tables.new_table("", "test accuracy", f"s to {options.accuracy:g}", "s of training", "s in all")
    for name in dict.fromkeys(timing.name for timing in timings):
        runs = [timing for timing in timings if timing.name == name]
        reached = [timing.epochs[-1][1] for timing in runs]
        when = [timing.first(options.accuracy)[0] for timing in runs]
        columns = ((reached, 4), (when, 1), ([run.training for run in runs], 2), ([run.total for run in runs], 1))
        table.add_row(name, *(tables.spread(values, digits) for values, digits in columns))
    tables.console.print()
    tables.console.print(table)
    return int(failed)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", default=default("data.root"), metavar="ROOT", help=f"contains {CIFAR10}/ (default: %(default)s)")
    add("--airbench", type=Path, metavar="FOLDER", help="contains airbench94_muon.py")
    add("--preset", default="fast92", help="of conf/experiment (default: fast92)")
    add("--overrides", nargs="+", default=[], metavar="key=value", help="of the preset")
    add("--batch", type=count, nargs="+", default=[512, 2048], metavar="N", help="of the speed (default: 512 2048)")
    add("--precision", nargs="+", choices=PRECISIONS, default=[*PRECISIONS], help="of the speed (default: all)")
    add("--images", type=count, default=Setting.images, help="to measure the speed with (default: %(default)s)")
    add("--epochs", type=count, default=5, help="measured, after one to warm up (default: %(default)s)")
    add("--rounds", type=count, default=Setting.rounds, help="processes per row (default: %(default)s)")
    add("--accuracy", type=float, default=0.94, help="to reach on the test set (default: 0.94)")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="runs to the accuracy (default: 1 2 3)")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="default: cuda")
    add("--json", type=Path, metavar="FILE", help="the speeds; those that it already contains are not measured again")
    return parser.parse_args()


def show_speed(options: argparse.Namespace) -> bool:
    """Measure and print a row per batch size and precision; True if one failed."""
    import tables  # imports torch

    shared = {name: getattr(options, name) for name in ("epochs", "rounds", "images", "device")}
    overrides = (f"experiment={options.preset}", *FULL_SIZE, *options.overrides)
    settings = [
        Setting(str(options.data), ("ours",), batch, precision, overrides=overrides, **shared)
        for batch in options.batch
        for precision in options.precision
    ]
    benchmark = Benchmark(options.json, {})
    failed = tables.measure(benchmark, settings)
    table = tables.new_table("batch", "precision", "images/s", "of the peak", "peak, TFLOP/s")
    for setting in settings:
        results = benchmark.results(setting)
        if results.of("ours"):
            speed = (setting.images + setting.validation) / median(results.seconds("ours"))
            share, peak = percent(results.fraction_of_peak("ours"), 0), f"{max(results.peaks) / 1e12:.1f}"
            table.add_row(f"{setting.batch:,}", setting.precision, f"{speed:,.0f}", share, peak)
    tables.console.print()
    tables.console.print(table)
    return failed


def time_presets(options: argparse.Namespace) -> Iterator[Timing]:
    """The preset with every seed: its epochs as it counts them, and the whole command."""
    overrides = [f"experiment={options.preset}", f"data.root={options.data.parent}", f"device={options.device}"]
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            yield time_preset(options.preset, folder, [*overrides, *options.overrides, f"seed={seed}"])


def time_record(options: argparse.Namespace) -> Iterator[Timing]:
    """As many runs of the record as there are seeds.

    Raises:
        UserError: it failed, and has printed why.
    """
    program = str((options.airbench / RECORD).resolve())
    request = {"program": program, "data": str(options.data), "runs": len(options.seeds)}
    command = [sys.executable, str(PROGRAMS / "airbench.py"), json.dumps(request)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise UserError(f"--airbench {options.airbench}: {RECORD} failed; see above")
    for seconds, accuracy, training in json.loads(done.stdout.splitlines()[-1]):
        yield Timing(RECORD, [(seconds, accuracy)], seconds, training)


if __name__ == "__main__":
    with exit_codes():
        sys.exit(main())
