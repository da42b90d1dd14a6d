"""Who is at work on a search: a locked file each, which the system lets go of however a process ends."""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import filelock


@contextlib.contextmanager
def worker_heartbeat(folder: Path) -> Iterator[str]:
    """The name of a worker, who is seen to be alive as long as its process is."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f"{uuid.uuid4().hex[:12]}.worker"
    with filelock.FileLock(mark):
        try:
            yield f"{socket.gethostname()}/{mark.name}"
        finally:
            mark.unlink(missing_ok=True)


def alive(mark: Path) -> bool:
    """Whether the worker of this mark is at work on this machine."""
    if not mark.exists():
        return False
    try:
        with filelock.FileLock(mark, timeout=0):
            mark.unlink(missing_ok=True)
            return False
    except filelock.Timeout:
        return True


def any_alive(folder: Path) -> bool:
    """Whether any is."""
    return any(alive(mark) for mark in folder.glob("*.worker"))
