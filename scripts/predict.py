"""Predict the classes of pictures with a finished run.

python scripts/predict.py tiger.jpg holiday/ --run best
"""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.config.command_line import DATA, add_run_arguments, exit_codes, run_arguments
from experiments.config.foreign import cell, json_text, printable, say

REJECT = (
    "answer 'unsure' below the probability at which the other answers have this accuracy on the validation images: 0.95"
)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+", help="files, folders, or - for a picture on standard input")
    add_run_arguments(parser)
    parser.add_argument("--data", metavar="NAME", help=DATA)
    parser.add_argument("--top", type=int, default=3, help="classes per picture (default: 3)")
    parser.add_argument("--reject", metavar="ACCURACY", type=float, help=REJECT)
    parser.add_argument("--save", metavar="FOLDER", type=Path, help="write one figure per picture there")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a list of {file, class, probability, top}")
    form.add_argument("--csv", action="store_true", help="print file,class,probability,top")
    form.add_argument(
        "--request", action="store_true", help="print a request for /invocations of `mlflow models serve`"
    )
    arguments = parser.parse_args()
    if arguments.top < 1:
        parser.error(f"--top {arguments.top}: must be at least 1")
    if arguments.reject is not None and not 0 < arguments.reject <= 1:
        parser.error(f"--reject {arguments.reject:g}: must be above 0 and at most 1, such as 0.95")
    if arguments.reject is not None and arguments.request:
        parser.error("--reject: has no effect on --request, which prints pictures")
    return arguments


def main() -> int:
    arguments = parse()
    # late, because torch and mlflow take seconds to import
    from experiments.analysis import pictures, prediction, rejection
    from experiments.reports import terminal
    from experiments.runs import finished

    files, errors = pictures.find_pictures(arguments.pictures)
    run = finished.load_run(**run_arguments(arguments), data=arguments.data)
    rejected = rejection.find_rejection(run, arguments.reject) if arguments.reject is not None else None
    sources = [sys.stdin.buffer if file == "-" else file for file in files]
    found: list[dict[str, Any]] = []
    requests: list[list] = []
    for result in prediction.predict(run, sources):
        if isinstance(result, ValueError):
            errors.append(result)
            continue
        found.append(result.to_dict(arguments.top, rejected))
        if arguments.request:
            requests.append(result.pixels.tolist())
        if arguments.save:
            say(prediction.save(result, arguments.save, arguments.top), file=sys.stderr)
    say(*errors, file=sys.stderr)
    rows = [
        (row["file"], row["class"], [(entry["class"], entry["probability"]) for entry in row["top"]]) for row in found
    ]
    if arguments.request or arguments.json or arguments.csv:
        say(run, file=sys.stderr)
    if rejected:
        say(rejected, file=sys.stderr)
    if arguments.request:
        print(json.dumps({"inputs": requests}))
    elif arguments.json:
        print(json_text(found))
    elif arguments.csv:
        write_csv(rows)
    elif rows:
        terminal.show_predictions(str(run), rows)
    return 2 if errors else 0


def write_csv(rows: Sequence[tuple[str, str, Sequence[tuple[str, float]]]]) -> None:
    """Print one line per picture; `top` lists the most probable classes."""
    lines = (
        [file, answer, top[0][1], " ".join(f"{name}={probability:.4f}" for name, probability in top)]
        for file, answer, top in rows
    )
    shown = printable if sys.stdout.isatty() else str
    lines = ([cell(shown(text) if isinstance(text, str) else text) for text in line] for line in lines)
    table = [("file", "class", "probability", "top"), *lines]
    csv.writer(sys.stdout, lineterminator="\n").writerows(table)


if __name__ == "__main__":
    with exit_codes():
        sys.exit(main())
