"""Files that are written whole or not at all, whenever the process is killed or the power fails."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

WINDOWS = os.name == "nt"
TRIES, PAUSE = 50, 0.1  # on Windows, to replace a file that another process reads; seconds between two


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A binary file that replaces `path` when the block ends; an exception in the block leaves `path` as it was.

    The content is first written to a file with a unique name in the same folder. If several processes of one machine
    may write `path`, the caller holds a lock: files that were left by killed processes of this machine are deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)  # the folder of a run may be deleted while it is trained
    host = socket.gethostname()  # a lock may not reach other machines that use the same disk
    for left in path.parent.glob(f"{glob.escape(path.name)}.{glob.escape(host)}-*.part"):
        with contextlib.suppress(OSError):
            left.unlink()
    part = path.with_name(f"{path.name}.{host}-{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
        replace_synced(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def replace_synced(part: Path, path: Path) -> None:
    """Move the complete file `part` to `path` in one step, after its content has reached the disk.

    Without the sync, a power failure could leave a file of the right size without its content.
    """
    with part.open("r+b") as file:
        os.fsync(file.fileno())
    replace(part, path)


def replace(part: Path, path: Path) -> None:
    """Move a file in one step. On Windows that fails as long as another process reads `path`, so it is tried for seconds."""
    for _ in range(TRIES if WINDOWS else 0):
        with contextlib.suppress(PermissionError):
            part.replace(path)
            return
        time.sleep(PAUSE)
    part.replace(path)


def append_line(path: Path, line: str) -> None:
    """Add a line in one call, so that the lines of several processes do not mix; on Windows that takes a lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if WINDOWS:
        import filelock  # not needed elsewhere, and takes time

        lock = filelock.FileLock(f"{path}.lock")
    with lock, path.open("ab", buffering=0) as file:
        file.write(f"{line}\n".encode())
