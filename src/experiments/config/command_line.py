"""What every command has in common: how it names a run, and how it ends."""

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
from experiments.config.errors import UserError
from experiments.config.metrics import DEFAULT_FINAL

MASK = ":***@"


def mask_passwords(text: str) -> str:
    """Addresses without the passwords in them: what is kept of a run is read by many."""
    return re.sub(r"(://[^:/@\s]*):[^@/\s]+@", rf"\1{MASK}", text)


@contextlib.contextmanager
def exit_codes(command: Command | None = None) -> Iterator[None]:
    """The user's mistakes and Ctrl-C end in a message and an exit code (2, 130); anything else in a traceback.

    SIGTERM, which a cluster sends before it takes the machine away, is the same as Ctrl-C.

    Args:
        command: continues what Ctrl-C interrupts, and is shown then.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    gc.set_threshold(50_000, 20, 100)  # torch and MLflow bring half a million objects
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # file names need not be UTF-8
    try:
        yield
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        how_to_continue = f"; this continues it:  {command.resumed()}" if command else ""
        print(f"\nstopped{how_to_continue}", file=sys.stderr)
        sys.exit(130)


def exit_now() -> NoReturn:
    """End the process, with exit code 0, as Python would, but for the second in which it takes its objects apart."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # what cannot be written is an error, as ever
    os._exit(0)


@dataclass(frozen=True)
class Command:
    """A command line of train.py, as it was typed: shown in reports, and what to type next is made from it.

    Attributes:
        overrides: key=value, Hydra's own included.
        config_dir: folder of `--config-dir`, with YAML files of the user's own.
    """

    overrides: tuple[str, ...] = ()
    config_dir: str | None = None
    multirun: bool = False

    @classmethod
    def typed(cls) -> Command:
        """What this process was started with."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--config-dir", "-cd")
        parser.add_argument("--multirun", "-m", action="store_true")
        options, overrides = parser.parse_known_args()
        return cls(tuple(overrides), options.config_dir, options.multirun)

    @classmethod
    def from_hydra(cls, hydra: Any, overrides: Sequence[str], multirun: bool = False) -> Command:
        """The command that Hydra runs; `hydra` is its own configuration, which also travels to other machines."""
        folders = [Path(source.path) for source in hydra.runtime.config_sources if source.provider == "command-line"]
        here = Path(hydra.runtime.cwd)
        shown = [str(path.relative_to(here) if path.is_relative_to(here) else path) for path in folders]
        return cls(tuple(overrides), shown[0] if shown else None, multirun)

    def resumed(self) -> Command:
        """The same command, continuing what is there: without `resume=false`."""
        kept = tuple(text for text in self.overrides if text.lstrip("+").partition("=")[0] != "resume")
        return dataclasses.replace(self, overrides=kept)

    def single(self, overrides: Sequence[str]) -> Command:
        """The command of a single run with these overrides."""
        return dataclasses.replace(self, overrides=tuple(overrides), multirun=False)

    def __str__(self) -> str:
        """Ready to be typed again, except for the passwords, which are masked."""
        options = [*(["-m"] if self.multirun else []), *(["--config-dir", self.config_dir] if self.config_dir else [])]
        return mask_passwords(shlex.join(["python", "train.py", *options, *self.overrides]))


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that name a finished run."""
    parser.add_argument("--run", default="latest", help="latest (default), best, a run's id, or the start of one")
    parser.add_argument("--experiment", help="MLflow experiment to look in, for example cifar10; all by default")
    parser.add_argument("--metric", default=DEFAULT_FINAL, help="what --run best goes by (default: %(default)s)")
    parser.add_argument("--uri", default=default("tracking.uri"), help="MLflow's store (default: %(default)s)")
