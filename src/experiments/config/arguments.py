"""The arguments of `python train.py`, checked and rewritten before Hydra reads them."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra import compose
from hydra._internal.utils import get_args_parser
from omegaconf import OmegaConf

from experiments.config.composition import hydra_api
from experiments.config.errors import UserError
from experiments.config.foreign import mask_passwords
from experiments.config.keys import key_of
from experiments.config.loading import check_overrides, compose_overrides, exists, sets_key
from experiments.config.overrides import as_meant, in_quotes, parse
from experiments.config.processes import launched


def parse_arguments() -> argparse.Namespace:
    """The arguments of `python train.py`, as Hydra reads them.

    Raises:
        UserError: there are other options than those of Hydra.
    """
    arguments, unknown = get_args_parser().parse_known_intermixed_args()
    if unknown:
        keys = "a key is written as key=value, without dashes"
        raise UserError(f"{' '.join(unknown)}: there is no such option; {keys}: python train.py --help lists all keys")
    return arguments


def check_command_line() -> None:
    """Check the arguments of `python train.py`, and write them as Hydra reads them.

    What another configuration file, or Hydra's own information, makes of them is left to Hydra.

    Raises:
        UserError: listing every mistake.
    """
    arguments = parse_arguments()
    if arguments.help or arguments.hydra_help or arguments.config_name or arguments.config_path:
        return
    _check_options(arguments)
    overrides = typed_overrides(arguments)
    many = arguments.multirun or "hydra.mode=MULTIRUN" in overrides
    if many and launched().count > 1:
        launchers = "python train.py -m hydra/launcher=joblib ... trains several runs at a time"
        raise UserError(f"--multirun: torchrun divides a single run among its processes; {launchers}")
    if arguments.multirun and (mode := [text for text in overrides if key_of(text) == "hydra.mode"]):
        raise UserError(f"--multirun {mode[0]}: only one of these can be given")
    check_overrides(overrides, arguments.multirun)
    if arguments.cfg == "job" and arguments.package not in (None, "_global_"):
        _check_package(arguments.package, overrides)
    written = dict(zip(overrides, _for_hydra(overrides) if arguments.multirun else map(as_meant, overrides)))
    sys.argv = [written.get(text, text) for text in sys.argv]


def _check_options(arguments: argparse.Namespace) -> None:
    given = {
        "--run": arguments.run,
        "--multirun": arguments.multirun,
        "--cfg": arguments.cfg,
        "--info": arguments.info,
        "--shell-completion": arguments.shell_completion,
    }
    modes = [option for option, value in given.items() if value]
    if len(modes) > 1:
        raise UserError(f"{' '.join(modes)}: only one of these can be given")
    if arguments.resolve and not arguments.cfg:
        raise UserError("--resolve: needs --cfg or --help")
    if arguments.config_dir and not Path(arguments.config_dir).is_dir():
        raise UserError(f"--config-dir {arguments.config_dir}: there is no such folder")


def _check_package(package: str, overrides: Sequence[str]) -> None:
    composed = compose_overrides(overrides)
    if OmegaConf.select(composed, package, throw_on_missing=False) is None:
        raise UserError(f"--package {package}: must be one of {', '.join(map(str, composed))}")


def typed_overrides(arguments: argparse.Namespace) -> list[str]:
    """The overrides of Hydra's command line, with the folder of --config-dir as one of them."""
    return [*arguments.overrides, *search_path(arguments.config_dir)]


def search_path(config_dir: str | None) -> list[str]:
    """The folder of --config-dir as an override."""
    return [f"hydra.searchpath=[{in_quotes(f'file://{Path(config_dir).resolve()}')}]"] if config_dir else []


def _for_hydra(overrides: Sequence[str]) -> list[str]:
    """The overrides of a multirun, as Hydra can apply them.

    Hydra also composes them without those that have several values. A key that only exists with one of these, such as
    optimizer.momentum beside optimizer=sgd,muon, is therefore added by force; every point was checked before.
    """
    parsed = {text: parse(as_meant(text)) for text in overrides}
    plain = [text for text, override in parsed.items() if override and not override.is_sweep_override()]
    with hydra_api():
        keys = {text for text in plain if sets_key(parsed[text])}
        base = compose("config", overrides=[as_meant(text) for text in plain if text not in keys])
    by_force = {text for text in keys if not exists(base, key_of(text))}
    return [f"++{as_meant(text)}" if text in by_force else as_meant(text) for text in overrides]


def run_hydra(main: Callable[[], None]) -> None:
    """Run the function that `hydra.main` decorates; `exit_codes` ends the process after an error of the job.

    Raises:
        UserError: Hydra cannot use its settings.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its errors itself, and ends with exit code 1
    arguments, shown = get_args_parser().parse_intermixed_args(), io.StringIO()
    shows_settings = arguments.cfg or arguments.info
    try:
        with contextlib.redirect_stdout(shown) if shows_settings else contextlib.nullcontext():
            main()
        sys.stdout.write(mask_passwords(shown.getvalue()))
    except Exception as error:
        reason = error.__cause__ or error
        raise UserError(f"hydra: {' '.join(str(reason).split()) or type(reason).__name__}") from None
