"""The processes that torchrun has started for one run: known from the environment, without importing torch."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

LATER = 5.0  # seconds


@dataclass(frozen=True)
class Processes:
    """This process among those of a run.

    Attributes:
        rank: its number, from 0 to `count` - 1.
        local_rank: its number among the `local_count` processes of this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @property
    def note(self) -> str:
        """How many they are, to be added to a line; empty for one."""
        return f", {self.count} processes" if self.count > 1 else ""

    @property
    def program(self) -> list[str]:
        """The first words of the command that has started them; `...`: what differs between machines."""
        if self.count == 1:
            return ["python"]
        here = f"--nproc-per-node={self.local_count}"
        machines = -(-self.count // self.local_count)
        return ["torchrun", here] if machines == 1 else ["torchrun", f"--nnodes={machines}", here, "..."]


def launched() -> Processes:
    """Those that torchrun has started; without it, this process alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Processes()
    return Processes(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))


# Called with the exit code and the message before this process ends; returns the message that it prints.
Ending = Callable[[int, str], str]


def _alone(code: int, message: str) -> str:
    """Before the processes are connected, each finds the same mistakes: one per machine prints them.

    torchrun ends all as soon as one has ended, so the others wait for that.
    """
    if launched().local_rank == 0 or code == 1:
        return message
    if code != 2:
        return ""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(code))
    time.sleep(LATER)
    return ""


ending: Ending = _alone


def at_end(function: Ending) -> None:
    """Let `function` tell the other processes that this one ends."""
    global ending
    ending = function
