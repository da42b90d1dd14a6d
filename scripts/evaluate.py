"""Evaluate a finished run on its own test set, or on other images of the same classes.

python scripts/evaluate.py --run best
python scripts/evaluate.py --run best --data image_folder data.root=holiday
python scripts/evaluate.py --run best --corruptions --limit 2000
"""

import argparse

from experiments.analysis.strengths import CORRUPTIONS, GROUPS, chosen
from experiments.config.command_line import add_config_dir, add_run_arguments, exit_codes, run_arguments
from experiments.config.composition import CONF
from experiments.config.foreign import say
from experiments.config.splits import ALL, SPLITS


def parsed() -> argparse.Namespace:
    """The arguments, checked as far as that needs no run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("overrides", nargs="*", help="keys of the data, as for train.py: data.root=...")
    add_run_arguments(parser)
    add_config_dir(parser)
    sources = sorted(file.stem for file in (CONF / "data").glob("[!_]*.yaml"))
    add("--data", help=f"{', '.join(sources)}; the run's own data by default")
    splits = (*SPLITS, ALL)
    add("--split", choices=splits, help="default: test of the run's own data, all of other data")
    add("--corruptions", action="store_true", help="also on the same images with noise, blur, snow and others")
    listed = f"only these corruptions or groups: {', '.join(CORRUPTIONS)}; {', '.join(GROUPS)}"
    add("--only", metavar="NAME,NAME", help=listed)
    add("--limit", metavar="N", type=int, help="with --corruptions: only N of the images, drawn at random")
    arguments = parser.parse_intermixed_args()
    arguments.names = chosen(arguments.only)
    if not arguments.corruptions and (arguments.only is not None or arguments.limit is not None):
        parser.error("--only and --limit: need --corruptions")
    if arguments.limit is not None and arguments.limit < 1:
        parser.error(f"--limit {arguments.limit}: must be at least 1")
    if arguments.data and "=" in arguments.data:
        parser.error(f"--data {arguments.data}: begins with the name of a source: --data image_folder {arguments.data}")
    return arguments


def main() -> None:
    arguments = parsed()
    # late, because torch and mlflow take seconds to import
    from experiments.analysis import evaluate_run, robustness
    from experiments.config.arguments import search_path
    from experiments.reports import terminal
    from experiments.runs import finished

    run = finished.load_run(**run_arguments(arguments))
    say(run)
    where = (arguments.data, arguments.overrides, arguments.split, search_path(arguments.config_dir))
    if arguments.corruptions:
        found = robustness.evaluate_corruptions(
            evaluate_run.find_subject(run, *where), arguments.names, arguments.limit
        )
    else:
        found = evaluate_run.evaluate_run(run, *where)
    terminal.show_results(found.metrics, run.config.evaluation.note, "")
    if found.warning:
        say(found.warning)
    if not arguments.corruptions:
        terminal.show_test(found.evaluation, found.classes)
    terminal.show_next(found.name, found.run_id, found.url, has_model=False)


if __name__ == "__main__":
    with exit_codes():
        main()
