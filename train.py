"""Train a network as conf/ and the command line describe it.

python train.py data=digits
python train.py model.filters=64 training.epochs=10
python train.py -m model.filters=16,32,64 seed=1,2,3
"""

import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from experiments.composition import check, parse
from experiments.config import UserError


@hydra.main(config_path="conf", config_name="config", execution_whitelist=())
def main(composed: DictConfig) -> float:
    from hydra.core.hydra_config import HydraConfig

    from experiments.experiment import run

    overrides = list(HydraConfig.get().overrides.task)
    with reported(overrides):
        return run(parse(composed), overrides).objective


@contextlib.contextmanager
def reported(overrides: list[str]) -> Iterator[None]:
    """The user's mistakes and Ctrl-C end in a message and an exit code; anything else in a traceback."""
    try:
        yield
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\nstopped; this continues it:  {shlex.join(['python', 'train.py', *overrides])}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cluster's notice to leave: the same as Ctrl-C
    arguments = get_args_parser().parse_intermixed_args()
    with reported(arguments.overrides):
        if not (arguments.help or arguments.hydra_help):
            check(arguments.overrides)
        main()
