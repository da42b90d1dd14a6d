"""The time of a multirun: `sweep.budget`.

budget = Budget.start(config, folder)
budget.left()   # seconds of training that remain; infinite without a budget
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from experiments.config import Config
from experiments.config.command_line import process_start
from experiments.config.durations import seconds
from experiments.runs.clock import Clock

SPENT = "seconds"  # the file in the folder of a multirun that has the seconds of all its commands
RESERVE = 8.0  # seconds for the winner's test, the ranking and the report


@dataclass(frozen=True)
class Budget:
    """The end of a multirun; can be sent to the workers, also of another machine.

    Attributes:
        folder: of the multirun.
        end: in seconds since 1970; infinite without a budget.
    """

    folder: Path
    end: float

    @classmethod
    def start(cls, config: Config, folder: Path) -> Budget:
        """The budget of this command: what earlier commands of the multirun have spent is not in it."""
        clock = Clock(folder / SPENT, process_start(), anew=not config.resume)
        return cls(folder, clock.started + seconds(config.sweep.budget) - clock.before)

    def left(self) -> float:
        """The seconds that remain for training: until the end, without those for test, ranking and report."""
        return self.end - time.time() - RESERVE
