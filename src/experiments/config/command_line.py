"""Shared by all commands: the command line, the options that name a run, and the exit codes."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import dataclasses
import gc
import io
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from experiments.config.defaults import default
from experiments.config.errors import RunFailed, UserError
from experiments.config.keys import key_of
from experiments.config.metrics import DEFAULT_FINAL

MASK = ":***@"


def mask_passwords(text: str) -> str:
    """The text with the passwords in its addresses masked, for everything that others may read."""
    return re.sub(r"(://[^:/@\s]*):[^@/\s]+@", rf"\1{MASK}", text)


@contextlib.contextmanager
def exit_codes(command: Command | None = None) -> Iterator[None]:
    """End with a message and exit code 2 after a mistake of the user, 130 after Ctrl-C, 1 after `RunFailed`; other errors keep their traceback.

    SIGTERM, which a cluster sends before it stops a job, is handled as Ctrl-C.

    Args:
        command: continues what was interrupted; printed after Ctrl-C.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    gc.set_threshold(50_000, 20, 100)  # torch and MLflow create half a million objects
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # file names may not be UTF-8
    try:
        yield
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except RunFailed as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        how_to_continue = f"; this continues it:  {command.resumed()}" if command else ""
        print(f"\nstopped{how_to_continue}", file=sys.stderr)
        sys.exit(130)


def exit_now() -> NoReturn:
    """End the process with exit code 0, without the second that Python takes to delete its objects."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for the other threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # raises if the output cannot be written
    os._exit(0)


@dataclass(frozen=True)
class Command:
    """A command line of train.py, as shown in reports and in the commands suggested to the user.

    Attributes:
        overrides: key=value, including Hydra's own keys.
        config_dir: folder of `--config-dir`, with the user's YAML files.
    """

    overrides: tuple[str, ...] = ()
    config_dir: str | None = None
    multirun: bool = False

    @classmethod
    def typed(cls) -> Command:
        """The command line of this process."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--config-dir", "-cd")
        parser.add_argument("--multirun", "-m", action="store_true")
        options, overrides = parser.parse_known_args()
        return cls(tuple(overrides), options.config_dir, options.multirun)

    @classmethod
    def from_hydra(cls, hydra: Any, overrides: Sequence[str], multirun: bool = False) -> Command:
        """The command that Hydra runs; `hydra` is its own configuration, which is also sent to other machines."""
        folders = [Path(source.path) for source in hydra.runtime.config_sources if source.provider == "command-line"]
        here = Path(hydra.runtime.cwd)
        shown = [str(path.relative_to(here) if path.is_relative_to(here) else path) for path in folders]
        return cls(tuple(overrides), shown[0] if shown else None, multirun)

    def resumed(self) -> Command:
        """The command that continues this one: the same without `resume=false`."""
        kept = tuple(text for text in self.overrides if key_of(text) != "resume")
        return dataclasses.replace(self, overrides=kept)

    def single(self, overrides: Sequence[str]) -> Command:
        """The command of a single run with these overrides."""
        return dataclasses.replace(self, overrides=tuple(overrides), multirun=False)

    def __str__(self) -> str:
        """The command line, with masked passwords."""
        options = [*(["-m"] if self.multirun else []), *(["--config-dir", self.config_dir] if self.config_dir else [])]
        return mask_passwords(shlex.join(["python", "train.py", *options, *self.overrides]))


DATA = "data set that the run was trained on, if there are runs of several: its name, or the folder of the pictures"


def add_config_dir(parser: argparse.ArgumentParser) -> None:
    """Add Hydra's option that names the user's own YAML files."""
    meaning = "folder with YAML files of your own, as for train.py: FOLDER/data/mine.yaml is data=mine"
    parser.add_argument("--config-dir", metavar="FOLDER", help=meaning)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a finished run."""
    parser.add_argument("--run", default="latest", help="latest (default), best, a run's id, or the start of an id")
    parser.add_argument("--experiment", help="MLflow experiment to search in, for example cifar10; all by default")
    parser.add_argument("--metric", default=DEFAULT_FINAL, help="metric that selects --run best (default: %(default)s)")
    parser.add_argument(
        "--uri", default=default("tracking.uri"), help="address of MLflow's store (default: %(default)s)"
    )
