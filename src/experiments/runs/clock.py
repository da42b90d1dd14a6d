"""The time that a run or a multirun has taken, by this command and by the interrupted ones before.

with Clock(folder / "seconds", command.started, anew=not config.resume).running() as clock:
    clock.spent
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from experiments.files.atomic import atomic_write

EVERY = 5.0  # seconds between two writings: what a process that is killed loses at most


class Clock:
    """Counts seconds, and keeps them in a file, so that the next command goes on counting.

    Args:
        started: the time at which the command was started, in seconds since 1970; None for now.
        anew: forget the seconds of earlier commands.

    Attributes:
        before: the seconds of earlier commands.
        keeping: the seconds of this command are kept; a command that trains nothing costs nothing.
    """

    def __init__(self, file: Path, started: float | None = None, anew: bool = False) -> None:
        self._file, self.started = file, time.time() if started is None else started
        self.before, self.keeping = 0.0, False
        with contextlib.suppress(OSError, ValueError):  # there is none, or it is damaged
            self.before = 0.0 if anew else float(file.read_text(encoding="utf-8"))

    @property
    def spent(self) -> float:
        return self.before + time.time() - self.started

    @contextlib.contextmanager
    def running(self) -> Iterator[Clock]:
        """Write the seconds every few seconds while the block runs, and at its end, once `keeping` is set."""
        stop = threading.Event()
        thread = threading.Thread(target=self._write_until, args=(stop,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()
            self._write()

    def _write_until(self, stop: threading.Event) -> None:
        while not stop.wait(EVERY):
            with contextlib.suppress(OSError):  # a disk that is full for a moment: it is tried again
                self._write()

    def _write(self) -> None:
        if not self.keeping:
            return
        with atomic_write(self._file) as file:
            file.write(f"{self.spent:.3f}".encode())
