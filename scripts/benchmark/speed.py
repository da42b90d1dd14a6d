"""Speed beside Keras, Lightning and a plain PyTorch loop, with the same network, batch size, precision and images.

python scripts/benchmark/speed.py --data data                                   batch 32 in fp32
python scripts/benchmark/speed.py --batch 32 128 --precision both --json all.json
python scripts/benchmark/speed.py --curve batch --precision both                docs/benchmark-batch.png
python scripts/benchmark/speed.py --large                                       fastnet's fraction of the peak
"""

import argparse
import shutil
import sys
from pathlib import Path

from benchmark import Benchmark
from curves import CURVES
from settings import CIFAR10, CONTENDERS, Setting, find_data

from experiments.config.command_line import exit_codes
from experiments.config.defaults import default

PRECISIONS = {"fp32": ("fp32",), "bf16": ("bf16",), "both": ("fp32", "bf16")}


def main() -> int:
    options = parse()
    settings = [
        Setting(
            data=str(find_data(options.data)),
            contenders=tuple(dict.fromkeys(options.contenders)),
            batch=batch,
            precision=precision,
            epochs=options.epochs,
            rounds=options.rounds,
            images=options.images,
            threads=options.threads,
            device=options.device,
            overrides=tuple(options.overrides),
        )
        for batch in options.batch
        for precision in PRECISIONS[options.precision]
    ]
    benchmark = Benchmark(options.json, dict(options.python))

    import tables  # imports torch: mistakes are reported first

    if options.curve:
        file = options.figure or Path(f"docs/benchmark-{options.curve}.png")
        return tables.curve(benchmark, options.curve, settings, file)
    return tables.compare(benchmark, settings)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", default=default("data.root"), metavar="ROOT", help=f"contains {CIFAR10}/ (default: %(default)s)")
    add("--batch", type=count, nargs="+", default=[32], metavar="N", help="one table per batch size (default: 32)")
    add("--precision", choices=PRECISIONS, default="fp32", help="default: fp32")
    add("--epochs", type=count, default=Setting.epochs, help="measured, after one to warm up (default: %(default)s)")
    add("--rounds", type=count, default=Setting.rounds, help="processes per contender (default: %(default)s)")
    add("--contenders", nargs="+", choices=CONTENDERS, default=[*CONTENDERS], help="default: all that are installed")
    add("--images", type=count, default=Setting.images, help="to train on (default: %(default)s)")
    add("--threads", type=count, help="CPU threads (default: each contender's own choice)")
    add("--device", choices=("cpu", "cuda", "auto"), default=Setting.device, help="default: %(default)s")
    add("--overrides", nargs="+", default=[], metavar="key=value", help="of this project's configuration")
    add("--python", type=interpreter, action="append", default=[], metavar="NAME=PATH", help="of a contender")
    add("--json", type=Path, metavar="FILE", help="the results; those that it already contains are not measured again")
    add("--curve", choices=CURVES, help="draw how the time of this project's epoch changes with this")
    add("--figure", type=Path, metavar="FILE", help="of the curve (default: docs/benchmark-CURVE.png)")
    add("--large", action="store_true", help="the same as --contenders ours --overrides model=fastnet --precision both")
    options = parser.parse_args()
    if options.large:
        options.contenders, options.precision = ["ours"], "both"
        options.overrides = ["model=fastnet", *options.overrides]
    return options


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return int(text)


def interpreter(text: str) -> tuple[str, str]:
    """(contender, path)."""
    name, _, path = text.partition("=")
    if name not in CONTENDERS or shutil.which(path) is None:
        names = ", ".join(CONTENDERS)
        raise argparse.ArgumentTypeError(f"{text}: must be NAME=PATH, a name of {names} and a Python interpreter")
    return name, path


if __name__ == "__main__":
    with exit_codes():
        sys.exit(main())
