"""Shared by all commands: the command line, the options that name a run, and the exit codes."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import dataclasses
import errno
import gc
import io
import logging
import os
import shlex
import signal
import stat
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from experiments.config import processes
from experiments.config.defaults import default
from experiments.config.errors import RunFailed, UserError
from experiments.config.foreign import Record, mask_passwords, say
from experiments.config.keys import key_of
from experiments.config.metrics import DEFAULT_FINAL
from experiments.config.output import Output

# What ends a program: Ctrl-C, `kill`, and a closed terminal. Windows has no SIGHUP; its SIGBREAK stands for a closed window.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
# What a machine refuses: a closed output, a full or failing disk, a file system or a folder that may not be written.
REFUSED = {getattr(errno, name) for name in ("EPIPE", "ENOSPC", "EDQUOT", "EIO", "EBADF", "EROFS", "EACCES", "EMFILE")}

_IMPORTED = time.time()


@contextlib.contextmanager
def exit_codes(command: Command | None = None) -> Iterator[None]:
    """End with a message and exit code 2 after a mistake of the user, 130 after a signal, 1 after `RunFailed`; other errors show their traceback.

    SIGTERM, which a cluster sends before it stops a job, and SIGHUP of a closed terminal are handled as Ctrl-C. What the
    machine refuses, such as a full disk, ends with a message and exit code 1.

    Args:
        command: continues what was interrupted; printed after Ctrl-C.
    """
    _prepare_streams(command is not None)
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` sets it
            signal.signal(number, _interrupt)
    gc.set_threshold(50_000, 20, 100)  # torch and MLflow create half a million objects
    how_to_continue = f"; this continues it:  {command.resumed()}" if command else ""
    try:
        yield
        _flush()
    except UserError as error:
        _end(2, str(error))
    except RunFailed as error:
        _end(1, str(error))
    except BaseException as error:
        closed = isinstance(error.__context__, BrokenPipeError)  # Rich exits then
        if isinstance(error, SystemExit) and not closed:
            _flush()
            raise
        if was_interrupted(error):
            _end(130, f"\nstopped{how_to_continue}")
        refused = error.__context__ if closed else error
        if isinstance(refused, OSError) and refused.errno in REFUSED:
            _end(1, f"{_refusal(refused)}{how_to_continue}")
        _end(1, traceback.format_exc())


def was_interrupted(error: BaseException | None) -> bool:
    """Whether a signal led to this error: the terminal, or a program that reads the output, may have ended with it."""
    return error is not None and (isinstance(error, KeyboardInterrupt) or was_interrupted(error.__context__))


def _refusal(error: OSError) -> str:
    file = f": {error.filename}" if error.filename else ""
    return "the output was closed" if isinstance(error, BrokenPipeError) else f"{error.strerror}{file}"


def _interrupt(number: int, _: object) -> NoReturn:
    """Handle a signal as Ctrl-C. Further ones, but for Ctrl-C, do not disturb what is being saved."""
    for other in SIGNALS:
        if other != signal.SIGINT:
            signal.signal(other, signal.SIG_IGN)
    if number not in (signal.SIGINT, signal.SIGTERM):
        _discard_output(terminals=True)
    raise KeyboardInterrupt


def _prepare_streams(goes_on: bool) -> None:
    """File names may not be UTF-8; and without an output, files that are opened would get its number."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the process ends
    if sys.stdout is None:
        print(f"the standard output is closed; write it to a file, or to {os.devnull}", file=sys.stderr)
        sys.exit(1)
    logging.setLogRecordFactory(Record)
    logging.raiseExceptions = False  # no traceback of a message that cannot be written
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if goes_on and not isinstance(sys.stdout, Output):
        sys.stdout = Output(sys.stdout)


def _flush() -> None:
    """Write what is buffered; exit with a message if it cannot be written, unless a run's reader needed no more, as `head`."""
    try:
        sys.stdout.flush()
        if error := getattr(sys.stdout, "error", None):
            raise error
    except OSError as error:
        said = f"{_refusal(error)}: only the output is not complete"
        if not (isinstance(error, BrokenPipeError) and isinstance(sys.stdout, Output)):
            _end(1, said)
        _discard_output(numbers=(1,))
        sys.stdout.error = None
        with contextlib.suppress(OSError):
            say(said, file=sys.stderr)


def _discard_output(terminals: bool = False, numbers: Sequence[int] = (1, 2)) -> None:
    """Write all further output to nowhere; `terminals`: only what goes to a terminal, which was closed."""
    for number in numbers:
        with contextlib.suppress(OSError):  # it was closed
            if not terminals or stat.S_ISCHR(os.fstat(number).st_mode):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _end(code: int, message: str) -> NoReturn:
    """Exit with a message, after what was printed before it; without one if nothing can be written, or another process prints it."""
    try:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        if shown := processes.ending(code, mask_passwords(message)):
            say(shown, file=sys.stderr, lines=True)
    except OSError:
        pass
    finally:
        _discard_output()  # Python writes what is still buffered at exit, and shows a traceback if it cannot
    sys.exit(code)


def exit_now() -> NoReturn:
    """End the process with exit code 0, without the second that Python takes to delete its objects."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for the other threads
    atexit._run_exitfuncs()
    os._exit(0)


@dataclass(frozen=True)
class Command:
    """A command line of train.py, or of a script that trains, as shown in reports and in the commands suggested to the user.

    Attributes:
        overrides: key=value, including Hydra's own keys.
        config_dir: folder of `--config-dir`, with the user's YAML files.
        started: when its process was started, in seconds since 1970; None for a call from Python.
    """

    overrides: tuple[str, ...] = ()
    config_dir: str | None = None
    multirun: bool = False
    started: float | None = dataclasses.field(default=None, compare=False)
    script: str = "train.py"

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
        return cls(tuple(overrides), shown[0] if shown else None, multirun, process_start())

    def resumed(self) -> Command:
        """The command that continues this one: the same without `resume=false`."""
        kept = tuple(text for text in self.overrides if key_of(text) != "resume")
        return dataclasses.replace(self, overrides=kept)

    def single(self, overrides: Sequence[str]) -> Command:
        """The command of a single run with these overrides."""
        return dataclasses.replace(self, overrides=tuple(overrides), multirun=False)

    def __str__(self) -> str:
        """The command line, with masked passwords. A single run refuses the preset of a search."""
        options = [*(["-m"] if self.multirun else []), *(["--config-dir", self.config_dir] if self.config_dir else [])]
        shown = [text for text in self.overrides if self.multirun or not text.startswith("search=")]
        return shlex.join([*processes.launched().program, self.script, *options, *map(mask_passwords, shown)])


def process_start() -> float:
    """When this process was started, in seconds since 1970; where the system does not tell, when this module was imported."""
    try:
        content = Path("/proc/self/stat").read_text("utf-8", "replace")
        ticks = int(content.rpartition(")")[2].split()[19])  # since the system was booted
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, LookupError, AttributeError):  # not Linux
        return _IMPORTED


DATA = "data set that the run was trained on, if there are runs of several: its name, or the folder of the pictures"

WHICH = "latest, best, a run's id, its start, or the digits at the end of a run's name"


def add_config_dir(parser: argparse.ArgumentParser) -> None:
    """Add Hydra's option that names the user's own YAML files."""
    meaning = "folder with YAML files of your own, as for train.py: FOLDER/data/mine.yaml is data=mine"
    parser.add_argument("--config-dir", metavar="FOLDER", help=meaning)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a finished run."""
    parser.add_argument("--run", default="latest", help=f"{WHICH} (default: %(default)s)")
    add_store_arguments(parser)


def add_store_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the run is, and whether it is trusted."""
    parser.add_argument("--experiment", help="MLflow experiment to search in, for example cifar10; all by default")
    parser.add_argument("--metric", default=DEFAULT_FINAL, help="metric that selects --run best (default: %(default)s)")
    parser.add_argument(
        "--uri", default=default("tracking.uri"), help="address of MLflow's store (default: %(default)s)"
    )
    meaning = "run the code of the run: import the classes that it names, load its files unchecked"
    parser.add_argument("--trust", action="store_true", help=meaning)


def run_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `add_run_arguments` added, as arguments of `load_run`."""
    names = {"run": "which"} | {name: name for name in ("experiment", "metric", "uri", "trust")}
    return {name: getattr(arguments, option) for option, name in names.items()}
