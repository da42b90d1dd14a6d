"""Export a finished run's network to a file that other programs use without this package.

python scripts/export.py --run best --format onnx
python scripts/export.py --run best --format onnx-int8 --tolerance 0.02 --output phone.onnx
"""

import argparse
from pathlib import Path

from experiments.analysis.formats import FORMATS, TOLERANCE, check_output, check_packages
from experiments.config.command_line import DATA, add_run_arguments, exit_codes, run_arguments
from experiments.config.foreign import say


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser)
    parser.add_argument("--data", metavar="NAME", help=DATA)
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="%(choices)s (default: %(default)s)")
    meaning = "an existing file is replaced (default: in outputs/exports, named by the run)"
    parser.add_argument("--output", metavar="FILE", type=Path, help=meaning)
    meaning = f"accuracy that the file may lose on the validation pictures (default: {TOLERANCE}, or one picture)"
    parser.add_argument("--tolerance", metavar="SHARE", type=float, help=meaning)
    arguments = parser.parse_args()
    if arguments.tolerance is not None and not 0 <= arguments.tolerance < 1:
        parser.error(f"--tolerance {arguments.tolerance:g}: must be at least 0 and below 1, a share of the pictures")
    check_packages(arguments.format)
    check_output(arguments.format, arguments.output)

    # late, because torch and mlflow take seconds to import
    from experiments.analysis import export
    from experiments.runs import finished

    run = finished.load_run(**run_arguments(arguments), data=arguments.data)
    say(run)
    exported = export.export(run, arguments.format, arguments.output, arguments.tolerance)
    print(exported.figures, exported.program, sep="\n\n")


if __name__ == "__main__":
    with exit_codes():
        main()
