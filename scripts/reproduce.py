"""Train a finished run again from what MLflow has of it, and compare: epoch by epoch, and by the SHA-256 of the weights.

python scripts/reproduce.py latest --check             list what is missing or has changed; nothing is trained
python scripts/reproduce.py best
python scripts/reproduce.py 3fa4 data.root=/disk/pictures

The verdict is `identical`, `equal within ...` (other hardware, packages or numbers of threads), or `different`, with the
first epoch and metric that differ. Exit code: 0, 1 for `different`, 2 if the run cannot be rebuilt. The run itself is not
changed: the new training is logged as its child run. An interrupted reproduction is continued by the same command.
"""

import argparse
import sys

from experiments.config.command_line import WHICH, Command, add_store_arguments, exit_codes, run_arguments
from experiments.config.foreign import say
from experiments.config.processes import launched


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help=WHICH)
    where = "where data and weights are now: data.root=... model.weights=..."
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=where)
    parser.add_argument("--check", action="store_true", help="only list what is missing or has changed")
    parser.add_argument("--threads", type=int, help="CPU threads (default: as many as the run had)")
    add_store_arguments(parser)
    arguments = parser.parse_intermixed_args()
    if arguments.threads is not None and not 1 <= arguments.threads <= 1024:
        parser.error(f"--threads {arguments.threads}: must be from 1 to 1,024")

    # late, because torch and mlflow take seconds to import
    from experiments import experiment
    from experiments.analysis import rebuilding, reproduction
    from experiments.runs import evaluations, recorded, store

    which = run_arguments(arguments)
    trust, leads = which.pop("trust"), launched().rank == 0
    found = rebuilding.rebuild(recorded.read_run(**which), arguments.overrides, arguments.threads, trust)
    if leads:
        say(found, lines=True)
    found.check()
    if arguments.check:
        return 0
    with reproduction.reproducing(found, leads):
        command = Command(tuple(store.read_overrides(found.recorded.run.data.tags)))
        result = experiment.run(found.config, command, should_prune=found.ends, weights=found.weights)
        if not leads:
            return 0
        verdict = reproduction.compare(found, result.history, result.metrics)
        child = reproduction.log_verdict(found, verdict, result.history, result.metrics)
    say("", verdict, f"comparison: run {child}, a child of run {found.run_id}")
    say(f"look at it: {evaluations.how_to_open(found.recorded.uri, child)}")
    return int(verdict.word == "different")


if __name__ == "__main__":
    with exit_codes():
        sys.exit(main())
