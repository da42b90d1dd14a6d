"""Explore the data before training: sizes and aspect ratios, broken pictures, class balance, and duplicates.

python scripts/explore.py data=digits
python scripts/explore.py data=image_folder data.root=pictures data.image_size=64
"""

import argparse
import dataclasses
from pathlib import Path

from experiments.analysis.duplicates import SIMILARITY
from experiments.config import PictureSettings
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

    # late, because these imports take time, so mistakes are reported first
    from experiments.analysis import exploration, picture_files
    from experiments.analysis.duplicates import find_duplicates
    from experiments.analysis.statistics import balance, measure
    from experiments.data import list_files, load_splits
    from experiments.reports.console import new_console

    console = new_console(markup=False)
    data, headers = config.data, None
    if files := list_files(data):
        headers = picture_files.read_headers(files)
        console.print(*picture_files.header_lines(headers, data.image_size), sep="\n")
        if isinstance(data, PictureSettings):
            data = dataclasses.replace(data, skip_broken=True)
    splits = load_splits(data, keep_copies=True)
    counts = balance(splits)
    broken = picture_files.broken_lines(splits.skipped) if files else ()
    console.print(*broken, *exploration.pixel_lines(splits, measure(splits.train)), "", sep="\n")
    console.print(*exploration.balance_lines(counts, splits.classes), "\nduplicates", sep="\n")
    total = sum(map(len, splits.parts().values()))
    with console.status(f"comparing {counted(total * (total - 1) // 2, 'pair')} of images"):
        duplicates = find_duplicates(splits, similarity)
    console.print(*exploration.duplicate_lines(duplicates, similarity), "", sep="\n")
    folder = Path(config.outputs) / "explore" / config.data.title
    for path in exploration.write(folder, splits, counts, duplicates, headers):
        console.print(path)


if __name__ == "__main__":
    with exit_codes():
        main()
