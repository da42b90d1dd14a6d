"""Why a trained network says what it says of pictures: heatmaps over them, a PNG each.

python scripts/explain.py tiger.jpg my/cats --run best
python scripts/explain.py --mistakes 12 --sheet --method integrated_gradients
"""

import argparse
import itertools
import sys
from pathlib import Path

from experiments.config import UserError
from experiments.config.command_line import add_run_arguments, exit_codes


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    methods = ("gradcam", "integrated_gradients", "occlusion")
    add = parser.add_argument
    add("pictures", metavar="PICTURE", nargs="*", type=Path, help="picture files, or folders of them")
    add("--mistakes", metavar="N", type=int, default=0, help="the N wrong answers on the test set it is surest of")
    add_run_arguments(parser)
    add("--method", choices=methods, default=methods[0], help="%(choices)s (%(default)s)")
    add("--class", dest="target", metavar="NAME", help="the class to explain; the predicted one if left out")
    add("--layer", metavar="NAME", help="for gradcam, such as network.3; the last convolution if left out")
    add("--out", metavar="FOLDER", type=Path, default=Path("outputs/explanations"), help="%(default)s")
    add("--sheet", action="store_true", help="one PNG with a row a picture")
    return parser


def main(arguments: argparse.Namespace) -> int:
    """Draws what is asked for; 2 where something asked for could not be."""
    if arguments.mistakes < 0 or not (arguments.pictures or arguments.mistakes):
        raise UserError("nothing to explain: give pictures, or --mistakes N with N of at least 1")
    from experiments.analysis import explanation
    from experiments.runs import finished  # seconds: after the command line is understood

    trained = finished.load_run(arguments.run, arguments.experiment, arguments.metric, arguments.uri)
    target = explanation.class_index(arguments.target, trained.classes) if arguments.target else None
    bad: list[UserError] = []
    own = explanation.subjects(arguments.pictures, trained.image_size, bad.append)
    wrong = explanation.mistakes(trained, arguments.mistakes) if arguments.mistakes else []
    explained = explanation.explain(trained, itertools.chain(own, wrong), arguments.method, target, arguments.layer)
    for path, picture in explanation.save(explained, arguments.out, arguments.sheet):
        print(f"{path}  {picture}", flush=True)
    print(*bad, sep="\n", end="\n" if bad else "", file=sys.stderr)
    return 2 if bad else 0


if __name__ == "__main__":
    with exit_codes():
        sys.exit(main(parser().parse_args()))
