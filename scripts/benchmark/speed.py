"""Speed, side by side with Keras, Lightning and a plain PyTorch loop: the same network, batch, precision and pictures.

python scripts/benchmark.py --data data                                   batch 32 in fp32
python scripts/benchmark.py --batch 32 128 --precision both --json all.json
python scripts/benchmark.py --curve batch --precision both                docs/benchmark-batch.png
python scripts/benchmark.py --large                                       the large network's share of the peak
"""

import argparse
import sys
from pathlib import Path

from contest import PROGRAMS, Setting

from experiments.config.command_line import exit_codes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", default="data", metavar="ROOT", help="holds cifar-10-batches-py/ (default: data)")
    add("--batch", type=int, nargs="+", default=[32], metavar="N", help="a table each (default: 32)")
    add("--precision", choices=("fp32", "bf16", "both"), default="fp32")
    add("--epochs", type=int, default=3, help="measured, after one to warm up (default: 3)")
    add("--rounds", type=int, default=3, help="processes of each contender (default: 3)")
    add("--contenders", nargs="+", choices=PROGRAMS, default=[*PROGRAMS], help="default: all that are installed")
    add("--images", type=int, default=40_000, help="to train on (default: 40000); a quarter of them validate")
    add("--threads", type=int, help="CPU threads (default: each contender's own choice)")
    add("--device", choices=("cpu", "cuda", "auto"), default="cpu")
    add("--overrides", nargs="+", default=[], metavar="key=value", help="of this project's configuration")
    add("--python", action="append", default=[], metavar="NAME=PATH", help="another interpreter for a contender")
    add("--json", type=Path, metavar="FILE", help="all numbers; what it holds already is not measured again")
    add("--curve", choices=("images", "batch", "threads", "width"), help="this project alone, its cost drawn")
    add("--figure", type=Path, metavar="FILE", help="of the curve (default: docs/benchmark-CURVE.png)")
    add("--large", action="store_true", help="the same as --contenders ours --overrides model=fastnet --precision both")
    asked = parser.parse_args()
    if asked.large:
        asked.contenders, asked.precision = ["ours"], "both"
        asked.overrides = ["model=fastnet", *asked.overrides]
    for name in ("epochs", "rounds", "images", "threads"):
        if getattr(asked, name) is not None and getattr(asked, name) < 1:
            parser.error(f"--{name} {getattr(asked, name)}: must be at least 1")

    import session

    settings = [
        Setting(
            root=str(Path(asked.data).expanduser().resolve()),
            contenders=tuple(dict.fromkeys(asked.contenders)),
            batch=batch,
            precision=precision,
            epochs=asked.epochs,
            rounds=asked.rounds,
            images=asked.images,
            validation=max(1, min(10_000, asked.images // 4)),
            threads=asked.threads,
            device=asked.device,
            overrides=tuple(asked.overrides),
        )
        for batch in asked.batch
        for precision in (("fp32", "bf16") if asked.precision == "both" else (asked.precision,))
    ]
    contest = session.prepare(Path(__file__).parent / "contenders", asked.json, asked.python)
    if asked.curve:
        return session.curve(contest, asked.curve, settings, asked.figure or Path(f"docs/benchmark-{asked.curve}.png"))
    return session.tables(contest, settings)


if __name__ == "__main__":
    with exit_codes():
        sys.exit(main())
