"""Checkpoints inside an epoch, and signals, if several processes train: all of them save and stop after the same step."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from experiments.config.command_line import SIGNALS
from experiments.config.errors import RunFailed
from experiments.runs.checkpoint import State
from experiments.training.loop import Progress, RunningEpoch
from experiments.training.ranks import Ranks

SAVE, STOP = 1, 2  # what a process wishes; the largest wish of all is done


class Agreed:
    """The progress of a training, in place of `saving.Saving`.

    After every step the processes tell each other their wishes, and read them after the next one, so that no step waits.
    A signal ends the run one or two steps later; one that comes in a validation, after the next two steps.

    Args:
        save: writes the state, in rank 0.
        minutes: between two checkpoints; None: only a signal saves one, if it is not None.
        shown: the progress that is called as well.
    """

    def __init__(
        self, ranks: Ranks, state: State, save: Callable[[State], None], minutes: float | None, shown: Progress
    ) -> None:
        self._ranks, self._state, self._save, self._shown = ranks, state, save, shown
        self._minutes, self._saved = minutes, time.perf_counter()
        self._wish = 0
        self._answer: Callable[[], int] | None = None  # gives the largest wish of all after the step before
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Agreed:
        if threading.current_thread() is threading.main_thread():  # the only one that receives signals
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._handlers[number] = signal.signal(number, self._receive)
        return self

    def _receive(self, number: int, _: FrameType | None) -> None:
        self._wish = STOP

    def step(self, running: RunningEpoch) -> None:
        """Do what the processes have agreed on after the step before, and tell them the wish of this one."""
        if running.step == 1:  # the epoch before was saved
            self._saved = time.perf_counter()
        if self._minutes and self._ranks.leads and time.perf_counter() - self._saved >= 60 * self._minutes:
            self._wish = max(self._wish, SAVE)
        agreed = self._answer() if self._answer else 0
        if agreed and self._minutes:
            self._save_running(running)
        if agreed == STOP:
            raise KeyboardInterrupt
        self._answer = self._ranks.largest(self._wish)
        self._shown.step(running.scaled(self._ranks.count))

    def _save_running(self, running: RunningEpoch) -> None:
        self._wish, self._saved = self._wish if self._wish == STOP else 0, time.perf_counter()
        self._state.running = running.summed(self._ranks)
        self._ranks.decided(lambda: self._save(self._state))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())
        if isinstance(error, RuntimeError) and not isinstance(error, RunFailed):
            # When a process is lost, torchrun sends SIGTERM to the others; this error says more.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if error is None and self._wish == STOP:  # it came in the last epoch, which is saved
            raise KeyboardInterrupt
