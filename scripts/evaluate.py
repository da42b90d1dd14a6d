"""Evaluate a finished run on its own test set, or on other images of the same classes.

python scripts/evaluate.py --run best
python scripts/evaluate.py --run best --data image_folder data.root=holiday
"""

import argparse

from experiments.config.command_line import add_config_dir, add_run_arguments, exit_codes, run_arguments
from experiments.config.composition import CONF
from experiments.config.foreign import say
from experiments.config.splits import ALL, SPLITS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="keys of the data, as for train.py: data.root=...")
    add_run_arguments(parser)
    add_config_dir(parser)
    sources = sorted(file.stem for file in (CONF / "data").glob("[!_]*.yaml"))
    parser.add_argument("--data", help=f"{', '.join(sources)}; the run's own data by default")
    splits = (*SPLITS, ALL)
    parser.add_argument("--split", choices=splits, help="default: test of the run's own data, all of other data")
    arguments = parser.parse_intermixed_args()
    if arguments.data and "=" in arguments.data:
        parser.error(f"--data {arguments.data}: begins with the name of a source: --data image_folder {arguments.data}")

    from experiments.analysis import evaluate_run
    from experiments.config.arguments import search_path
    from experiments.reports import terminal  # imports torch, which --help must not wait for
    from experiments.runs import finished

    run = finished.load_run(**run_arguments(arguments))
    say(run)
    search = search_path(arguments.config_dir)
    found = evaluate_run.evaluate_run(run, arguments.data, arguments.overrides, arguments.split, search)
    terminal.show_results(found.metrics, run.config.evaluation.note, "")
    if found.warning:
        say(found.warning)
    terminal.show_test(found.evaluation, found.classes)
    terminal.show_next(found.name, found.run_id, found.url, has_model=False)


if __name__ == "__main__":
    with exit_codes():
        main()
