"""What every command has in common: how it names a run, and how it ends."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import io
import os
import shlex
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

from experiments.config import UserError


@contextlib.contextmanager
def reported(stopped: str = "stopped") -> Iterator[None]:
    """The user's mistakes and Ctrl-C end in a message and an exit code (2, 130); anything else in a traceback."""
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
        print(f"\n{stopped}", file=sys.stderr)
        sys.exit(130)


def leave() -> NoReturn:
    """End the process, with exit code 0, as Python would, but for the second in which it takes its objects apart."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # what cannot be written is an error, as ever
    os._exit(0)


def continuing() -> str:
    """What to say where train.py is stopped."""
    again = [word for word in sys.argv[1:] if word != "resume=false"]
    return f"stopped; this continues it:  {shlex.join(['python', 'train.py', *again])}"


def config_dir() -> list[str]:
    """The option of train.py that names a folder of one's own configuration, as it was typed."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    found = parser.parse_known_args()[0].config_dir
    return ["--config-dir", found] if found else []


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that name a finished run."""
    parser.add_argument("--run", default="latest", help="latest (default), best, a run's id, or the start of one")
    parser.add_argument("--experiment", help="MLflow experiment to look in, for example cifar10; all by default")
    parser.add_argument("--metric", default="best/val_loss", help="what --run best goes by (default: best/val_loss)")
    parser.add_argument("--uri", default="sqlite:///mlflow.db", help="MLflow's store (default: sqlite:///mlflow.db)")
