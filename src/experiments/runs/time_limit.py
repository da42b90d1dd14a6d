"""The time of a run: `training.budget`. Training stops after the last epoch that fits, and the same command with more time goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.config import Config
from experiments.config.durations import seconds
from experiments.config.optimizers import ConstantSettings, DecaySettings
from experiments.data import Splits
from experiments.runs.checkpoint import State
from experiments.runs.clock import Clock

STARTING, REPORT = 0.6, 2.0  # the seconds of the report: this part of those before the first epoch, but not fewer
SLOWER = 1.05  # an epoch may take so many times as long as the one before


@dataclass(frozen=True)
class TimeLimit:
    """What may stop a run after an epoch.

    Attributes:
        config: of the run.
        clock: of the run.
        evaluation: the seconds of the test, as a part of those of an epoch.
        report: the seconds of report and model.
        file: has the seconds of the budget that has stopped the run; there is none if nothing or something else has.
    """

    config: Config
    clock: Clock
    evaluation: float
    report: float
    file: Path

    @classmethod
    def of(cls, config: Config, folder: Path, splits: Splits, started: float | None) -> TimeLimit:
        """The limit of a run with its checkpoint in `folder`."""
        epoch = 3 * len(splits.train) + len(splits.validation)  # images; one that is trained takes three times as long
        clock = Clock(folder / "seconds", started, anew=not config.resume)
        report = max(REPORT, STARTING * (clock.spent - clock.before))
        return cls(config, clock, len(splits.test) / epoch, report, folder / "stopped_by_budget")

    @property
    def total(self) -> float:
        return seconds(self.config.training.budget)

    def running(self) -> contextlib.AbstractContextManager[object]:
        """Keep the seconds of the training in this block, if they matter."""
        return contextlib.nullcontext() if self.config.training.budget is None else self.clock.running()

    @property
    def stopped_at(self) -> float | None:
        """The seconds of the budget that has stopped the run; None if none has."""
        try:
            return float(self.file.read_text())
        except (OSError, ValueError):
            return None

    @property
    def has_stopped(self) -> bool:
        """The budget has stopped the run."""
        return self.stopped_at is not None

    @property
    def goes_on(self) -> bool:
        """A smaller budget has stopped the run, and its checkpoint is still there."""
        there = self.file.with_name("checkpoint.pt").exists()
        return there and self.stopped_at is not None and self.total > self.stopped_at

    def stops(self, state: State) -> bool:
        """Whether the next epoch, the test and the report do not fit; `state` then has no epochs left."""
        if self.config.training.budget is None or not state.history or not state.remaining:
            return False
        self.clock.keeping = True
        epoch = state.history[-1]["epoch_seconds"]
        trained = sum(each["epoch_seconds"] for each in state.history)
        needed = SLOWER * epoch + self.evaluation * epoch + self.report
        state.out_of_time = max(self.clock.spent, trained) + needed > self.total
        return state.out_of_time

    def note(self, state: State) -> None:
        """Note before the test whether the budget has stopped the run; the test of a finished run changes nothing."""
        if not state.out_of_time:
            self.file.unlink(missing_ok=True)
        elif self.total < float("inf"):
            self.file.write_text(f"{self.total}")

    def text(self, history: Sequence[object]) -> str:
        """After which epoch the budget has stopped the run, and what that means; empty if it has not."""
        if self.stopped_at is None:
            return ""
        schedule, most = self.config.schedule, self.config.training.epochs
        decays = not isinstance(schedule, ConstantSettings) or isinstance(schedule, DecaySettings)
        cut = f"; the learning rate had not decayed: schedule={schedule.name} takes all {most} epochs" if decays else ""
        return f"the budget stopped the training after epoch {len(history)} of {most}; a larger training.budget continues it{cut}"
