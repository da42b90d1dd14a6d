"""What is shown while a multirun runs."""

import io
import time

from rich.console import Console

from experiments.sweep.parent_run import Child
from experiments.sweep.progress import ProgressDisplay

FINISHED = {"best/val_accuracy": 0.9, "best/epoch": 2, "seconds": 3.2}


def child(name, status="running", ended=None, reason="", **metrics):
    return Child(name, name, status, metrics, time.time() - 10, ended, reason)


def test_a_line_per_point_that_ends_and_the_running_points_below():
    console = Console(file=io.StringIO(), width=100)
    display = ProgressDisplay(console, 6, "val/accuracy")
    before = [child("a", "finished", 1, **FINISHED), child("b", "failed", 2, "Diverged: ..."), child("c", "killed")]
    display.print_ended(before)
    assert console.file.getvalue() == "1 of 6 points was run before\n"
    console.file.truncate(0)

    time.sleep(0.05)
    now = [before[0], child("b", "failed", 3, "Diverged: ..."), child("c", "pruned", 4, "after epoch 1")]
    now += [child("d", **{"val/accuracy": 0.5}), child("e")]
    display.print_ended(now)
    display.print_ended(now)
    lines = console.file.getvalue().strip("\0").splitlines()
    assert lines == ["failed  b  Diverged: ...", "3/6  c  pruned after epoch 1"]
    console.file.truncate(0)

    console.print(display.running([*now, child("f", "finished", 5, **FINISHED | {"best/val_accuracy": 0.95})]))
    *rows, summary = console.file.getvalue().strip("\0").splitlines()
    assert [row.split() for row in rows] == [["d", "val/accuracy", "0.5000", "10", "s"], ["e", "starting", "10", "s"]]
    assert summary == "3 of 6 points  best so far 0.9500"


class Remaining:
    """A forecast that says what it is told to."""

    def __init__(self, *seconds):
        self.seconds = list(seconds)

    def left(self):
        return self.seconds.pop(0)

    def whole(self, left):
        return left

    def line(self, whole):
        return f"estimate: {whole}"


def test_the_estimate_is_printed_again_only_if_it_has_changed_much():
    console = Console(file=io.StringIO(), width=100)
    display = ProgressDisplay(console, 6, "val/accuracy")
    forecast = Remaining(None, (60, 180), (70, 170), (100, 120), (101, 119), (200, 220), None)
    for _ in range(6):
        display.print_estimate(forecast)
    assert console.file.getvalue().splitlines() == [f"estimate: {one}" for one in ((60, 180), (100, 120), (200, 220))]
    console.file.truncate(0)
    console.print(display.running([]))
    assert console.file.getvalue().strip("\0\n") == "0 of 6 points  time left 3.3 to 3.7 min"
