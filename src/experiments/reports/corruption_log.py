"""The accuracy of a network on corrupted images on a terminal, row by row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from experiments.reports import terminal
from experiments.reports.corruptions import Row


class Log:
    """Prints the accuracies of each corruption as soon as they are known, under a bar that counts the images."""

    WIDTH = 17  # characters of the longest name

    def __init__(self, images: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(24), TaskProgressColumn(), TimeRemainingColumn())
        hidden = not terminal.console.is_terminal
        self._bar = Progress(*columns, console=terminal.console, transient=True, disable=hidden)
        self._task = self._bar.add_task("", total=images)

    def __enter__(self) -> Log:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, clean: float, strengths: Sequence[int]) -> None:
        heading = "".join(f"{strength:>7}" for strength in strengths)
        terminal.console.print(f"\n[bold]{'accuracy in %':<{self.WIDTH}}{heading}   mean[/bold]")
        terminal.console.print(f"{'none':<{self.WIDTH}}{' ' * len(heading)}{100 * clean:>7.1f}")

    def advance(self, name: str, images: int) -> None:
        self._bar.update(self._task, advance=images, description=name)

    def row(self, name: str, accuracies: Row) -> None:
        values = "".join(f"{100 * accuracy:>7.1f}" for accuracy in (*accuracies, float(np.mean(accuracies))))
        terminal.console.print(f"{name:<{self.WIDTH}}{values}")
