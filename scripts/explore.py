"""Explore the data before training: image sizes, class balance, and duplicates.

python scripts/explore.py data=digits
python scripts/explore.py data=image_folder data.root=pictures data.image_size=64
"""

import argparse
from pathlib import Path

from experiments.analysis.duplicates import SIMILARITY
from experiments.config.arguments import typed_overrides
from experiments.config.command_line import add_config_dir, exit_codes
from experiments.config.loading import compose_config
from experiments.config.wording import counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for train.py, whose images are shown")
    meaning = "of near duplicates, 0.5 to 1 (default: %(default)s); a lower value finds more pairs, but fewer of them are duplicates"
    parser.add_argument("--similarity", type=float, default=SIMILARITY, metavar="S", help=meaning)
    add_config_dir(parser)
    arguments = parser.parse_intermixed_args()
    if not 0.5 <= arguments.similarity <= 1:
        parser.error(f"--similarity {arguments.similarity:g}: must be from 0.5 to 1")
    explore(typed_overrides(arguments), arguments.similarity)


def explore(overrides: list[str], similarity: float) -> None:
    config = compose_config(overrides)

    from rich.console import Console  # these imports take time, so mistakes are reported first

    from experiments.analysis import exploration
    from experiments.analysis.duplicates import find_duplicates
    from experiments.analysis.statistics import balance, measure
    from experiments.data import load_splits

    console = Console(highlight=False, markup=False, soft_wrap=True)
    splits = load_splits(config.data)
    counts = balance(splits)
    for line in (
        *exploration.pixel_lines(splits, measure(splits.train)),
        "",
        *exploration.balance_lines(counts, splits.classes),
    ):
        console.print(line)
    console.print("\nduplicates")
    total = sum(map(len, splits.parts().values()))
    with console.status(f"comparing {counted(total * (total - 1) // 2, 'pair')} of images"):
        duplicates = find_duplicates(splits, similarity)
    for line in exploration.duplicate_lines(duplicates, similarity):
        console.print(line)
    console.print()
    for path in exploration.write(Path(config.outputs) / "explore" / config.data.title, splits, counts, duplicates):
        console.print(path)


if __name__ == "__main__":
    with exit_codes():
        main()
