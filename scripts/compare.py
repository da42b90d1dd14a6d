"""Rank and compare the runs of a multirun, or single runs: on the terminal, and as a page with figures.

python scripts/compare.py                          the latest multirun
python scripts/compare.py wide --objective val/loss
python scripts/compare.py 3fa4 9b01                runs, by the start of their ids
"""

import argparse
import hashlib
import re
from pathlib import Path

from experiments.config.command_line import exit_codes
from experiments.config.defaults import default
from experiments.config.metrics import EVALUATED, OBJECTIVES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("which", nargs="*", metavar="MULTIRUN or RUN", help="name or id, or the start of an id")
    objectives = (*OBJECTIVES, *(f"test/{name}" for name in EVALUATED))
    add(
        "--objective",
        action="append",
        choices=objectives,
        help="metric to rank by; with a second one, the Pareto front is drawn",
    )
    add(
        "--save",
        metavar="FOLDER",
        type=Path,
        help="where to write the page (default: compare/NAME in the outputs folder of the runs)",
    )
    add("--uri", default=default("tracking.uri"), help="MLflow's store (default: %(default)s)")
    arguments = parser.parse_args()

    from experiments.comparison import loading, page, terminal  # imports mlflow, which --help must not wait for

    found = loading.find_comparison(arguments.which, arguments.uri, list(dict.fromkeys(arguments.objective or ())))
    name = re.sub(r"[^\w.=-]+", "-", found.title)[:80].rstrip("-.")
    if found.command or name != found.title:  # multiruns may have one name, or names with the same start
        which = f"{found.title} {found.command} {found.points[0].run_id if found.points else ''}"
        name += "-" + hashlib.sha256(which.encode()).hexdigest()[:6]
    outputs = next(
        (point.settings["outputs"] for point in found.points if "outputs" in point.settings), default("outputs")
    )
    folder = arguments.save or Path(outputs) / "compare" / name
    page.write(folder, found)
    terminal.show_comparison(found, str(folder / "report.html"))


if __name__ == "__main__":
    with exit_codes():
        main()
