"""Find a learning rate: draw the loss at rising learning rates, and print the command with the suggested one.

python scripts/find_lr.py data=digits optimizer=sgd
"""

import argparse
from pathlib import Path

from experiments.config.arguments import typed_overrides
from experiments.config.command_line import Command, add_config_dir, exit_codes
from experiments.config.keys import key_of
from experiments.config.loading import compose_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for train.py")
    parser.add_argument("--from", dest="first", type=float, default=1e-6, metavar="LR", help="default: %(default)s")
    parser.add_argument("--to", dest="last", type=float, default=10.0, metavar="LR", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="batches (default: %(default)s)")
    add_config_dir(parser)
    arguments = parser.parse_intermixed_args()
    if not 0 < arguments.first < arguments.last:
        parser.error(f"--from {arguments.first:g} --to {arguments.last:g}: must be above 0, and --to above --from")
    if arguments.steps < 20:
        parser.error(f"--steps {arguments.steps}: must be at least 20")
    config = compose_config(typed_overrides(arguments))

    # late, because torch and matplotlib take seconds to import
    from experiments.analysis import figures, lr_finder

    found = lr_finder.range_test(config, arguments.first, arguments.last, arguments.steps)
    parts = (config.data.title, config.model.target.rpartition(".")[2], config.optimizer.name)
    path = Path(config.outputs) / "find_lr" / f"{'_'.join(parts)}_{config.training.batch_size}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figures.learning_rates(found.learning_rates, found.losses, found.smoothed, found.suggestion).savefig(path, dpi=110)
    print(path)
    suggested = {"optimizer.lr": found.suggestion}
    if hasattr(config.optimizer, "adam_lr"):  # of Muon: it rose in proportion
        suggested["optimizer.adam_lr"] = config.optimizer.adam_lr / config.optimizer.lr * found.suggestion
    kept = [text for text in arguments.overrides if key_of(text) not in suggested]
    found_lrs = [f"{key}={lr:.2g}" for key, lr in suggested.items()]
    print(Command((*kept, *found_lrs), arguments.config_dir))


if __name__ == "__main__":
    with exit_codes():
        main()
