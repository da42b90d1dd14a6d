"""The moments of a process at which files or the database change, and what is done to it at one of them.

Every file that is opened for writing, renamed or removed in the folder of the command is a moment, and so is every
commit to a database. Between two moments, the process computes.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


def kill(_: Path) -> None:
    """End the process group of this process, without any chance to react."""
    os.killpg(os.getpgrp(), signal.SIGKILL)


def fill(folder: Path) -> None:
    """Fill the file system of a folder to the last block."""
    with (folder / "filler").open("ab", buffering=0) as file:
        left = os.statvfs(folder)
        for size in (left.f_bavail * left.f_frsize, 1 << 16, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def delete(folder: Path) -> None:
    """Delete a folder with everything in it."""
    shutil.rmtree(folder, ignore_errors=True)


def break_disk(folder: Path) -> None:
    """Let the kernel make the ext4 file system of a folder read-only, as after a failure of the disk."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    device = next(device for device, place, *_ in mounts if place == str(folder))
    Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_bytes(b"1")


@dataclass
class Moments:
    """Counts the moments of this process, and acts at one of them.

    Attributes:
        folder: whose files count.
        at: the number of the moment; 0: none, they are only counted.
        act: called with `place`.
        commits_only: only commits to databases count.
        log: the file that gets one byte per moment.
    """

    folder: Path
    at: int
    act: Callable[[Path], None]
    place: Path
    commits_only: bool = False
    log: Path | None = None

    def watch(self) -> None:
        """Count from here on, until the process ends."""
        from sqlalchemy.engine.default import DefaultDialect

        self._count, self._acting = 0, False
        self._start = os.path.abspath(self.folder)  # noqa: PTH100 - called for every file
        self._file = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if self.log else None
        commit = DefaultDialect.do_commit

        def committed(dialect: Any, connection: Any) -> None:
            changed = connection.in_transaction
            commit(dialect, connection)
            if changed:
                self._next()

        DefaultDialect.do_commit = committed  # type: ignore[method-assign]
        if not self.commits_only:
            sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            changes = bool(flags & WRITING)
        elif changes := event in CHANGES:
            path = arguments[0]
        if changes and isinstance(path, str | bytes | os.PathLike) and self._is_inside(path):
            self._next()

    def _is_inside(self, path: str | bytes | os.PathLike[str]) -> bool:
        return os.path.abspath(os.fsdecode(path)).startswith(self._start)  # noqa: PTH100 - Path is slow

    def _next(self) -> None:
        if self._acting:
            return
        self._acting = True
        self._count += 1
        if self._file is not None:
            os.write(self._file, b".")
        if self._count == self.at:
            self.act(self.place)
        self._acting = False
