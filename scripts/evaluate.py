"""What a finished run is worth on its own test set, or on other pictures with the same classes.

python scripts/evaluate.py --run best
python scripts/evaluate.py --run best --data image_folder data.root=holiday
"""

import argparse

from experiments.config.command_line import add_run_arguments, exit_codes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="keys of the data, as for train.py: data.root=...")
    add_run_arguments(parser)
    parser.add_argument("--data", help="cifar10, cifar100, digits, image_folder; without it, the run's own data")
    splits = ("train", "validation", "test", "all")
    parser.add_argument("--split", choices=splits, help="test (default for the run's own data) or all (for other data)")
    arguments = parser.parse_intermixed_args()

    from experiments.analysis import evaluate_run
    from experiments.reports import terminal  # torch and mlflow take seconds: not for --help
    from experiments.runs import finished

    trained = finished.load_run(arguments.run, arguments.experiment, arguments.metric, arguments.uri)
    found = evaluate_run.evaluate_run(trained, arguments.data, arguments.overrides, arguments.split)
    terminal.show_results(found.metrics, trained.config.evaluation.note, "")
    if found.caution:
        print(found.caution)
    terminal.show_test(found.evaluation, found.classes)
    terminal.show_next(found.name, found.run_id, found.url, has_model=False)


if __name__ == "__main__":
    with exit_codes():
        main()
