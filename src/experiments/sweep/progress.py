"""The progress of a multirun: a line for each point that ends and, on a terminal, the running points below these lines.

The points are read from MLflow, which has the points of every launcher and every machine.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from experiments.config.durations import between
from experiments.config.metrics import final_value, higher_is_better
from experiments.config.wording import counted
from experiments.reports.console import new_console
from experiments.sweep.budget import USED_UP
from experiments.sweep.forecast import Forecast

if TYPE_CHECKING:
    from experiments.sweep.parent_run import Child, Parent

ESTIMATES = 4  # that are printed at most
INTERVAL = 1.0  # minimum seconds between two queries; querying takes less than a twentieth of the time


@contextlib.contextmanager
def show_progress(parent: Parent | None, forecast: Forecast, objective: str) -> Iterator[None]:
    """Show the progress of the children of `parent` while the block runs; without MLflow only how long it takes."""
    console = new_console()  # a second console: the first one is silenced while points run
    display = ProgressDisplay(console, forecast.total, objective)
    stop = threading.Event()
    thread = threading.Thread(target=_watch, args=(parent, forecast, display, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10)


def _watch(parent: Parent | None, forecast: Forecast, display: ProgressDisplay, stop: threading.Event) -> None:
    console = display.console
    live = Live(console=console, auto_refresh=False, transient=True) if parent and console.is_terminal else None
    with live or contextlib.nullcontext():
        pause, estimate, stopped = 0.0, 0.0, False
        while not stopped:
            stopped = stop.wait(pause)
            asked = time.monotonic()
            try:
                children = parent.children() if parent else []
            except Exception:  # a server that is being restarted: the points wait for it, so this does too
                pause = 10.0
                continue
            display.print_ended(children)
            if not stopped and (now := time.monotonic()) >= estimate:
                display.print_estimate(forecast)
                estimate = now + 100 * (time.monotonic() - now)  # it takes at most a hundredth of the time
            if live and not stopped:
                live.update(display.running(children), refresh=True)
            pause = max(INTERVAL, 20 * (time.monotonic() - asked))


class ProgressDisplay:
    """What is printed about the children of a multirun."""

    def __init__(self, console: Console, total: int | None, objective: str) -> None:
        self.console, self.total, self.objective = console, total, objective
        self._ended: dict[str, float] = {}  # run id -> time
        self._done: set[str] = set()
        self._first = True
        self._estimates: list[tuple[float, float]] = []  # those that were printed
        self._left: tuple[float, float] | None = None
        self._estimated = 0.0  # when that was

    def print_estimate(self, forecast: Forecast) -> None:
        """Print how long the whole takes, once, and again if that has changed much; the time left is shown below the points."""
        self._left, self._estimated = forecast.left(), time.monotonic()
        if self._left and self._is_news(whole := forecast.whole(self._left)):
            self._estimates.append(whole)
            self.console.print(forecast.line(whole))

    @property
    def _time_left(self) -> str:
        if not self._left:
            return ""
        low, high = (max(0.0, seconds - (time.monotonic() - self._estimated)) for seconds in self._left)
        return f"time left {between(low, high)}"

    def _is_news(self, whole: tuple[float, float]) -> bool:
        if not self._estimates or len(self._estimates) == ESTIMATES:
            return not self._estimates
        (low, high), (now_low, now_high) = self._estimates[-1], whole
        return now_low > high or now_high < low or now_high - now_low < (high - low) / 3

    def print_ended(self, children: Sequence[Child]) -> None:
        """Print a line for each point that has ended since the last call; the first call only counts them."""
        for child in children:
            if child.ended is None or self._ended.get(child.run_id) == child.ended:
                continue
            self._ended[child.run_id] = child.ended
            goes_on = child.status == "failed" if self._first else False  # it will run again
            if not (goes_on or _stopped(child)):
                self._done.add(child.run_id)
            if not self._first:
                self._print(child)
        if self._first and (done := len(self._done)):
            self.console.print(f"{self._so_far} {'was' if done == 1 else 'were'} run before")
        self._first = False

    @property
    def _so_far(self) -> str:
        done = len(self._done)
        return f"{done} of {counted(self.total, 'point')}" if self.total else counted(done, "point")

    def _print(self, child: Child) -> None:
        metrics = child.metrics
        value, epoch = final_value(metrics, self.objective), final_value(metrics, "kept/epoch")
        parts = (
            "failed"
            if child.status == "failed"
            else "stopped"
            if _stopped(child)
            else f"{len(self._done)}/{self.total}"
            if self.total
            else "",
            child.name,
            f"{self.objective} {value:.4f}" if value is not None else "",
            f"epoch {epoch:.0f}" if epoch is not None else "",
            f"{metrics['seconds']:.0f} s" if "seconds" in metrics else "",
            f"pruned {child.reason}" if child.status == "pruned" and not _stopped(child) else child.reason,
        )
        self.console.print(Text("  ".join(part for part in parts if part)))

    def running(self, children: Sequence[Child]) -> Group:
        """The running points; below them the number of ended points, the best value, and the time left."""
        table = Table(box=None, padding=(0, 3, 0, 0), show_header=False)
        for child in children:
            if child.status == "running":
                value = child.metrics.get(self.objective, math.nan)
                shown = f"{self.objective} {value:.4f}" if math.isfinite(value) else "starting"
                table.add_row(Text(child.name), shown, f"{time.time() - child.started:.0f} s")
        values = [final_value(child.metrics, self.objective) for child in children]
        reached = [value for value in values if value is not None]
        best = max(reached, default=None) if higher_is_better(self.objective) else min(reached, default=None)
        parts = (
            f"[bold]{self._so_far}[/bold]",
            f"best so far {best:.4f}" if best is not None else "",
            self._time_left,
        )
        return Group(table, "  ".join(part for part in parts if part))


def _stopped(child: Child) -> bool:
    """Whether the budget has stopped a point, which goes on with the next command."""
    return child.reason.endswith(USED_UP)
