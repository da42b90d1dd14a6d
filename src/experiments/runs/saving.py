"""Checkpoints inside an epoch: every few minutes, and when a signal ends the run.

with Saving(state, save, minutes=5, shown=log) as progress:
    for epoch in train(learner, batches, validation, state.remaining, progress, state.running):
        state.update(epoch)
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from experiments.config.command_line import SIGNALS, was_interrupted
from experiments.runs.checkpoint import State
from experiments.training.loop import Progress, RunningEpoch

ALARM = getattr(signal, "SIGALRM", None)  # Windows has none: there a signal waits for the end of the step, however long
GRACE = 5  # seconds that a step has to end after a signal; ten seconds after SIGTERM, Docker kills a process


class Saving:
    """The progress of a training whose state is saved between two steps.

    In the middle of a step the weights may be half updated, so a signal waits for its end, but not for more than `GRACE`
    seconds, and a second Ctrl-C does not wait. Validation is interrupted at once: it changes nothing.

    Args:
        save: writes the state.
        minutes: between two checkpoints, and between the start of an epoch and its first one.
        shown: the progress that is called as well.
    """

    def __init__(self, state: State, save: Callable[[State], None], minutes: float, shown: Progress) -> None:
        self._state, self._save, self._seconds, self._shown = state, save, 60 * minutes, shown
        self._saved = time.perf_counter()
        self._stepping = state.running is not None and not state.running.is_complete  # its next step may have begun
        self._waiting: int | None = None  # the signal that waits
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Saving:
        if threading.current_thread() is threading.main_thread():  # the only one that receives signals
            handlers = {number: signal.getsignal(number) for number in SIGNALS}
            self._handlers = {
                number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)
            }
        for number in self._handlers:
            signal.signal(number, self._receive)
        return self

    def step(self, running: RunningEpoch) -> None:
        """Save the state if it is time to, and end the run here if a signal waits."""
        self._state.running, self._stepping = running, False
        if self._waiting:
            self._deliver(self._waiting)
        now = time.perf_counter()
        if running.step == 1:  # the epoch before was saved
            self._saved = now
        if now - self._saved >= self._seconds:
            self._save(self._state)
            self._saved = time.perf_counter()
        self._shown.step(running)
        self._stepping = not running.is_complete

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._release()
        if was_interrupted(error) and self._state.running and not self._stepping:
            self._save(self._state)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self._stepping and self._waiting is None:
            self._waiting = number
            if ALARM is not None:
                self._handlers[ALARM] = signal.signal(ALARM, self._receive)
                signal.alarm(GRACE)
        elif number in (signal.SIGINT, ALARM) or not self._stepping:
            self._deliver(self._waiting or number)

    def _deliver(self, number: int) -> None:
        """Let the program handle a signal as it would without this object."""
        self._release()
        signal.raise_signal(number)

    def _release(self) -> None:
        if self._waiting and ALARM is not None:
            signal.alarm(0)
        self._waiting = None
        while self._handlers:
            signal.signal(*self._handlers.popitem())
