"""Train a network as conf/ and the command line describe it.

python train.py data=digits
python train.py model.filters=64 training.epochs=10
python train.py -m model.filters=16,32,64 seed=1,2,3
"""

import signal
import sys

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from experiments.composition import check, parse
from experiments.config import UserError


@hydra.main(config_path="conf", config_name="config", execution_whitelist=())
def main(composed: DictConfig) -> float:
    from hydra.core.hydra_config import HydraConfig

    from experiments.experiment import run

    return run(parse(composed), HydraConfig.get().overrides.task).objective


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cluster's notice, like Ctrl-C: save the state and end
    try:
        check(get_args_parser().parse_intermixed_args().overrides)
        main()
    except UserError as error:
        sys.exit(f"{error}")
