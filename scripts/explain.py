"""Explain the predictions of a finished run by heatmaps over the pictures, one PNG per picture.

python scripts/explain.py tiger.jpg my/cats --run best
python scripts/explain.py --mistakes 12 --sheet --method integrated_gradients
"""

import argparse
import itertools
import sys
from pathlib import Path

from experiments.analysis.methods import METHODS
from experiments.config import UserError
from experiments.config.command_line import DATA, add_run_arguments, exit_codes, run_arguments
from experiments.config.defaults import default
from experiments.config.foreign import say


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("pictures", metavar="PICTURE", nargs="*", help="picture files, or folders of them")
    add("--mistakes", metavar="N", type=int, default=0, help="the N most confident wrong predictions on the test set")
    add_run_arguments(parser)
    add("--data", metavar="NAME", help=DATA)
    add("--method", choices=METHODS, default="gradcam", help="%(choices)s (%(default)s)")
    add("--class", dest="target", metavar="NAME", help="the class to explain; the predicted one if left out")
    add("--layer", metavar="NAME", help="for gradcam, such as network.3; the last convolution if left out")
    add("--out", metavar="FOLDER", type=Path, default=Path(default("outputs")) / "explanations", help="%(default)s")
    add("--sheet", action="store_true", help="one PNG with one row per picture")
    return parser


def main(arguments: argparse.Namespace) -> int:
    """Draw what is requested. Returns 2 if a picture could not be read."""
    if arguments.mistakes < 0 or not (arguments.pictures or arguments.mistakes):
        raise UserError("nothing to explain: give pictures, or --mistakes N with N of at least 1")
    # late, because torch and mlflow take seconds to import
    from experiments.analysis import explanation
    from experiments.runs import finished

    run = finished.load_run(**run_arguments(arguments), data=arguments.data)
    say(run)
    target = explanation.class_index(arguments.target, run.classes) if arguments.target else None
    errors: list[UserError] = []
    pictures = explanation.subjects(arguments.pictures, run.config.data, errors.append)
    wrong = explanation.mistakes(run, arguments.mistakes) if arguments.mistakes else []
    explained = explanation.explain(run, itertools.chain(pictures, wrong), arguments.method, target, arguments.layer)
    shown = None
    for path, picture in explanation.save(explained, arguments.out, arguments.sheet):
        if arguments.sheet and path != shown:
            say(shown := path)
        say(f"  {picture}" if arguments.sheet else f"{path}  {picture}")
    say(*errors, file=sys.stderr)
    return 2 if errors else 0


if __name__ == "__main__":
    with exit_codes():
        sys.exit(main(parser().parse_args()))
