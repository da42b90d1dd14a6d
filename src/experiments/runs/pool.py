"""What the points of a multirun share, in its folder: checkpoints after single epochs, and the count of trained epochs.

pool = Pool(folder, gigabytes=10)
with pool.turn(trunk):                        # waits for a point that trains the same epochs
    pool.keep("3fa4", 7, checkpoint)          # another point may continue from epoch 7
    pool.count("trained", "3fa4", 7)
print(pool.totals)
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import filelock

from experiments.files.atomic import append_line
from experiments.runs.lock import is_held

if TYPE_CHECKING:
    from experiments.runs.trunks import Record, Trunk

PAUSE = 0.1  # seconds between two looks at a point that trains the same epochs


class Epochs(NamedTuple):
    """How many epochs all points have trained, and how many they took over from others."""

    trained: int
    saved: int


class Pool:
    """Used by all processes of a multirun.

    Args:
        folder: of the multirun.
        gigabytes: disk space for the checkpoints; the oldest go first.
    """

    def __init__(self, folder: Path, gigabytes: float = 0) -> None:
        self._checkpoints, self._claims, self._counted = folder / "checkpoints", folder / "claims", folder / "epochs"
        self._bytes = gigabytes * 1e9

    def keep(self, name: str, epoch: int, checkpoint: Path) -> None:
        """Keep the checkpoint that the run in the folder `name` has written after an epoch, without copying it."""
        place = self._checkpoints / name / f"{epoch}.pt"
        place.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # a disk without hard links: other points train from the beginning
            place.unlink(missing_ok=True)
            os.link(checkpoint, place)
        self._limit()

    def _limit(self) -> None:
        found = []
        for file in self._checkpoints.glob("*/*.pt"):
            with contextlib.suppress(OSError):  # another process has just deleted it
                found.append((file.stat().st_mtime_ns, file.stat().st_size, file))
        excess = sum(size for _, size, _ in found) - self._bytes
        for _, size, file in sorted(found):
            if excess <= 0:
                break
            with contextlib.suppress(OSError):  # Windows: another point reads it
                file.unlink(missing_ok=True)
                excess -= size

    def files(self, name: str) -> dict[int, Path]:
        """The checkpoints that are kept of a run, by their epochs."""
        return {int(file.stem): file for file in (self._checkpoints / name).glob("*.pt")}

    @contextlib.contextmanager
    def turn(self, trunk: Trunk) -> Iterator[None]:
        """Wait as long as a point that was here before trains an epoch that this one shares; later points wait for this one.

        No two points wait for each other, because each waits only for those whose turn began before its own.
        """
        claims = self._claims / trunk.folder.name
        claims.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as own:
            with filelock.FileLock(claims / "lock"):
                before = [other for other in trunk.others() if is_held(claims / other.name)]
                own.enter_context(filelock.FileLock(claims / trunk.own.name))
                if not trunk.written():
                    trunk.write(trunk.own.threads)
            for other in before:
                while is_held(claims / other.name) and self._trains_the_same(other, trunk):
                    time.sleep(PAUSE)
            yield

    def _trains_the_same(self, other: Record, trunk: Trunk) -> bool:
        done = max(self.files(other.name), default=0)
        return trunk.shared(other, done + 1) > done

    def count(self, what: Literal["trained", "shared"], name: str, epoch: int) -> None:
        """Count an epoch that a run has trained, or the epochs up to `epoch` that it took over."""
        append_line(self._counted, f"{what} {name} {epoch}")

    @property
    def totals(self) -> Epochs:
        """Over all processes; an epoch that was trained again, because its process was killed before it was saved, is one."""
        lines = self._counted.read_text(encoding="utf-8").splitlines() if self._counted.exists() else []
        rows = [line.split() for line in dict.fromkeys(lines)]
        shared = {name: int(epoch) for what, name, epoch in rows if what == "shared"}
        return Epochs(sum(what == "trained" for what, _, _ in rows), sum(shared.values()))

    def delete(self, count: bool = False) -> None:
        """Delete the checkpoints, and the `count` of epochs."""
        shutil.rmtree(self._checkpoints, ignore_errors=True)
        shutil.rmtree(self._claims, ignore_errors=True)
        if count:
            self._counted.unlink(missing_ok=True)
