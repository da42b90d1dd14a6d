"""Find the largest batch size that fits in memory by trying it, and print the command with it.

python scripts/find_batch.py data=digits model=fastnet
"""

import argparse

from experiments.config.arguments import typed_overrides
from experiments.config.command_line import Command, add_config_dir, exit_codes
from experiments.config.keys import key_of
from experiments.config.loading import compose_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for train.py")
    add_config_dir(parser)
    arguments = parser.parse_intermixed_args()
    config = compose_config(typed_overrides(arguments))

    from experiments.analysis import batch_finder  # late, because torch takes seconds to import

    largest, too_large = batch_finder.largest_batch_size(config, lambda text: print(text, flush=True))
    if too_large is None:
        print("all training images fit in one batch")
    kept = [text for text in arguments.overrides if key_of(text) != "training.batch_size"]
    print(Command((*kept, f"training.batch_size={largest}"), arguments.config_dir))


if __name__ == "__main__":
    with exit_codes():
        main()
