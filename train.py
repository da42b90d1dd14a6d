"""Train a network as conf/ and the command line describe it.

python train.py data=digits
python train.py model.filters=64 training.epochs=10
python train.py -m model.filters=16,32,64 seed=1,2,3
"""

import signal
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from experiments.command_line import continuing, leave, reported
from experiments.composition import check, parse
from experiments.sweep.sweeper import GridSweeper, SearchSweeper


@hydra.main(config_path="conf", config_name="config", execution_whitelist=())
def main(composed: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    from experiments.experiment import run

    overrides = list(HydraConfig.get().overrides.task)
    with reported(continuing()):
        run(parse(composed), overrides)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cluster's notice to leave: the same as Ctrl-C
    arguments = get_args_parser().parse_intermixed_args()
    with reported(continuing()):
        elsewhere = arguments.config_name or arguments.config_path  # not conf/: Hydra itself says what is wrong
        if not (arguments.help or arguments.hydra_help or elsewhere):
            folder = arguments.config_dir and Path(arguments.config_dir).resolve()
            search = [f"hydra.searchpath=[file://{folder}]"] if folder else []
            check([*arguments.overrides, *search], arguments.multirun)
        for sweeper in (GridSweeper, SearchSweeper):
            Plugins.instance().register(sweeper)
        main()
    leave()
