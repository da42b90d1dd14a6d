"""Find labels that are probably wrong, near duplicates with different labels, and dark, blurred or broken pictures.

A network is trained on all folds but one, and predicts the labels of that one; the same command continues what was stopped.
Needs pip install -e '.[labels]'.

python scripts/check_labels.py data=digits
python scripts/check_labels.py data=image_folder data.root=pictures data.folds=10
"""

import argparse

from experiments.analysis.cross_validation import check_packages, fold_overrides
from experiments.analysis.duplicates import SIMILARITY
from experiments.config.arguments import search_path
from experiments.config.command_line import Command, add_config_dir, exit_codes


def main(arguments: argparse.Namespace, command: Command) -> None:
    folds = fold_overrides(arguments.overrides, search_path(arguments.config_dir))
    check_packages()

    from experiments import experiment  # late, because these imports take seconds, so mistakes are reported first
    from experiments.analysis import label_page
    from experiments.reports.console import new_console

    console, runs = new_console(markup=False), []
    for number, (overrides, config) in enumerate(folds, start=1):
        console.print(f"fold {number} of {len(folds)}")
        runs.append(experiment.run(config, Command(overrides, arguments.config_dir)).run_id)
    configs = [config for _, config in folds]
    for line in label_page.check_and_write(configs, runs, str(command), arguments.similarity, arguments.test):
        console.print(line)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for train.py")
    meaning = "of near duplicates, 0.5 to 1 (default: %(default)s); see explore.py"
    parser.add_argument("--similarity", type=float, default=SIMILARITY, metavar="S", help=meaning)
    parser.add_argument("--test", action="store_true", help="check the labels of the test images, too")
    add_config_dir(parser)
    given = parser.parse_intermixed_args()
    if not 0.5 <= given.similarity <= 1:
        parser.error(f"--similarity {given.similarity:g}: must be from 0.5 to 1")
    options = [*(["--test"] if given.test else [])]
    options += ["--similarity", f"{given.similarity:g}"] if given.similarity != SIMILARITY else []
    typed = Command((*given.overrides, *options), given.config_dir, script="scripts/check_labels.py")
    with exit_codes(typed):
        main(given, typed)
