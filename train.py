"""Train a network as conf/ and the command line describe it: python train.py [-m] [key=value ...]"""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's handler shows a traceback of what is being imported

from experiments.config.command_line import Command, exit_codes, exit_now  # handles all signals


def start() -> None:
    import hydra  # these imports are the first that take time
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig

    from experiments.config.arguments import check_command_line, run_hydra
    from experiments.config.composition import parse_composed
    from experiments.config.help import show_help
    from experiments.sweep.sweepers import register_sweepers

    @hydra.main(config_path="conf", config_name="config", execution_whitelist=())
    def main(composed: DictConfig) -> None:
        from experiments.experiment import run

        command = Command.from_hydra(HydraConfig.get(), HydraConfig.get().overrides.task)
        with exit_codes(command):
            run(parse_composed(composed), command)

    show_help()
    check_command_line()
    register_sweepers()
    run_hydra(main)


if __name__ == "__main__":
    with exit_codes(Command.typed()):
        start()
    exit_now()
