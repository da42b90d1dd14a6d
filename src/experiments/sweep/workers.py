"""The workers of a search. Each one locks a file; the operating system releases the lock when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import filelock


@contextlib.contextmanager
def worker_heartbeat(folder: Path) -> Iterator[str]:
    """The name of a new worker, `host/file`; the file in `folder` is locked as long as the worker runs."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{uuid.uuid4().hex[:12]}.worker"
    with filelock.FileLock(file):
        try:
            yield f"{socket.gethostname()}/{file.name}"
        finally:
            file.unlink(missing_ok=True)


def is_alive(file: Path) -> bool:
    """Whether the worker that locked `file` still runs on this machine; removes the file of one that does not."""
    if not file.exists():
        return False
    try:
        with filelock.FileLock(file, timeout=0):
            file.unlink(missing_ok=True)
            return False
    except filelock.Timeout:
        return True


def any_alive(folder: Path) -> bool:
    """Whether any worker runs on this machine."""
    return any(is_alive(file) for file in folder.glob("*.worker"))
