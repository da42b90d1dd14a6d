"""What is seen while a multirun is under way: a line for every point that ends, and below, on a terminal, what runs.

It looks at MLflow, because that is where every launcher's points are, on whatever machine they run.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from experiments.comparison.loading import STATUS
from experiments.comparison.points import higher_is_better
from experiments.reports.terminal import new_console
from experiments.runs import store
from experiments.sweep.parent_run import Parent

if TYPE_CHECKING:
    from mlflow.entities import Run

INTERVAL = 1.0  # seconds between two looks, at least; a look takes less than a twentieth of the time


@contextlib.contextmanager
def show_progress(parent: Parent, total: int, objective: str) -> Iterator[None]:
    """Shows how the points of `parent` come along, `total` of them in all, until the block ends."""
    watch = _Watch(parent, total, objective)
    ending = threading.Event()
    thread = threading.Thread(target=watch.run, args=(ending,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(timeout=10)


class _Watch:
    def __init__(self, parent: Parent, total: int, objective: str) -> None:
        self.parent, self.total = parent, total
        self.metric = "best/" + objective.replace("val/", "val_") if objective.startswith("val/") else objective
        self.latest = objective
        self.sign = 1 if higher_is_better(objective) else -1
        self.console = new_console()  # of its own: the other is silent while points run
        self.started = time.monotonic()
        self.told: dict[str, int] = {}  # run -> when it ended
        self.done: set[str] = set()
        self.before = 0  # points that were done when the watch began

    def run(self, ending: threading.Event) -> None:
        live = Live(console=self.console, auto_refresh=False, transient=True) if self.console.is_terminal else None
        with live or contextlib.nullcontext():
            pause, first = 0.0, True
            while True:
                last = ending.wait(pause)
                looked = time.monotonic()
                try:
                    children = self.parent.children()
                except Exception:  # a server that is being restarted: the points wait for it, and so does this
                    if last:
                        return
                    pause = 10.0
                    continue
                self._tell(children, first)
                if live and not last:
                    live.update(self._under_way(children), refresh=True)
                if last:
                    return
                first = False
                pause = max(INTERVAL, 20 * (time.monotonic() - looked))

    def _tell(self, children: list[Run], first: bool) -> None:
        """A line for each point that has come to an end since the last look."""
        for run in children:
            status, pruned = STATUS.get(run.info.status, "running"), store.TAG_PRUNED in run.data.tags
            ended = pruned or status in ("finished", "failed")
            if not ended or self.told.get(run.info.run_id) == run.info.end_time:
                continue
            self.told[run.info.run_id] = run.info.end_time
            if not first or status != "failed":  # what failed before runs again
                self.done.add(run.info.run_id)
            if not first:
                self._line(run, status)
        if first and self.done:
            self.before = len(self.done)
            self.console.print(f"{self.before} of {self.total} points were run before")

    def _line(self, run: Run, status: str) -> None:
        metrics, tags = run.data.metrics, run.data.tags
        seconds = f"{metrics['seconds']:.0f} s" if "seconds" in metrics else ""
        value = f"{self.latest} {metrics[self.metric]:.4f}" if self.metric in metrics else ""
        how = (
            f"pruned {tags[store.TAG_PRUNED]}"
            if store.TAG_PRUNED in tags
            else tags.get(store.TAG_FAILURE, "")
            if status == "failed"
            else ""
        )
        epoch = f"epoch {metrics['best/epoch']:.0f}" if "best/epoch" in metrics else ""
        mark = "failed" if status == "failed" else f"{len(self.done)}/{self.total}"
        self.console.print(
            Text("  ".join(part for part in (mark, run.info.run_name, value, epoch, seconds, how) if part))
        )

    def _under_way(self, children: list[Run]) -> Group:
        table = Table(box=None, padding=(0, 3, 0, 0), show_header=False)
        now = time.time()
        for run in children:
            if STATUS.get(run.info.status) is None:
                value = run.data.metrics.get(self.latest, math.nan)
                shown = f"{self.latest} {value:.4f}" if math.isfinite(value) else "starts"
                table.add_row(run.info.run_name, shown, f"{now - run.info.start_time / 1000:.0f} s")
        ended = len(self.done)
        reached = [run.data.metrics[self.metric] for run in children if self.metric in run.data.metrics]
        best = f"best so far {max(reached, key=lambda value: self.sign * value):.4f}" if reached else ""
        left = (time.monotonic() - self.started) / max(ended - self.before, 1) * (self.total - ended)
        duration = f"{left / 60:.0f} min" if left > 120 else f"{left:.0f} s"
        time_left = f"about {duration} left" if ended > self.before and left > 0 else ""
        parts = (f"{ended} of {self.total} points", best, time_left)
        return Group(table, Text("  ".join(part for part in parts if part), style="bold"))
