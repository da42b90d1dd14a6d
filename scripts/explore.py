"""Look at the data before training on them: sizes, class balance, and pictures that are there twice.

python scripts/explore.py data=digits
python scripts/explore.py data=image_folder data.root=pictures data.image_size=64
"""

import argparse
from pathlib import Path

from experiments.command_line import reported
from experiments.composition import load as compose
from experiments.exploration import SIMILARITY


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for train.py, whose pictures are shown")
    meaning = "of near duplicates, 0.5 to 1 (default: %(default)s); lower finds more, and more that are none"
    parser.add_argument("--similarity", type=float, default=SIMILARITY, metavar="S", help=meaning)
    arguments = parser.parse_intermixed_args()
    if not 0.5 <= arguments.similarity <= 1:
        parser.error(f"--similarity {arguments.similarity:g}: must be from 0.5 to 1")
    explore(arguments.overrides, arguments.similarity)


def explore(overrides: list[str], similarity: float) -> None:
    config = compose(overrides)

    from rich.console import Console  # from here on what takes time to import

    from experiments.data import load
    from experiments.exploration import balance, find_duplicates, measure, sheets, tables

    console = Console(highlight=False, markup=False, soft_wrap=True)
    splits = load(config.data, config.seed)
    counts = balance(splits)
    for line in (*tables.pixel_lines(splits, measure(splits.train)), "", *tables.balance_lines(counts, splits.classes)):
        console.print(line)
    console.print("\nduplicates")
    total = sum(len(part) for part in (splits.train, splits.validation, splits.test))
    with console.status(f"comparing {total * (total - 1) // 2:,} pairs of pictures"):
        duplicates = find_duplicates(splits, similarity)
    for line in tables.duplicate_lines(duplicates, similarity):
        console.print(line)
    console.print()
    for path in sheets.write(Path(config.outputs) / "explore" / config.data.name, splits, counts, duplicates):
        console.print(path)


if __name__ == "__main__":
    with reported():
        main()
