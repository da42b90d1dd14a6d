"""A folder that only one process uses at a time: locked until that process ends."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from experiments.config import UserError
from experiments.config.command_line import Command
from experiments.config.errors import RunFailed


@contextlib.contextmanager
def locked(
    folder: Path,
    command: Command | str,
    what: str = "run",
    advice: str = "wait for it, or change seed=...",
    wait: bool = False,
) -> Iterator[Path]:
    """Lock the folder of a run for this process; the system releases the lock when the process ends or is killed.

    Raises:
        UserError: another process has the lock, and `wait` is false; the message names it and gives the advice.
        RunFailed: a file was not found in the block, because the folder was deleted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / "owner.json"
    try:
        lock = filelock.FileLock(folder / "lock").acquire(timeout=-1 if wait else 0)
    except filelock.Timeout:
        raise UserError(f"this {what} is already running{_describe(owner)}; {advice}") from None
    with lock:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        content = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "command": str(command)}
        owner.write_text(json.dumps(content), encoding="utf-8")
        try:
            yield folder
        except FileNotFoundError:
            if (folder / "lock").exists():
                raise
            raise RunFailed(f"{folder} was deleted while this {what} used it; the same command goes on") from None


def _describe(owner: Path) -> str:
    try:
        who: dict[str, Any] = json.loads(owner.read_text(encoding="utf-8"))
        return f" (process {who['pid']} on {who['host']}, since {who['since']})"
    except (OSError, ValueError, KeyError):  # not written yet, or being written now
        return ""


def is_held(file: Path) -> bool:
    """Whether a process of this machine has locked the file."""
    if not file.exists():
        return False
    try:
        with filelock.FileLock(file, timeout=0):
            return False
    except filelock.Timeout:
        return True
