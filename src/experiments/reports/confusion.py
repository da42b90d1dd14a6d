"""The confusion matrix on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.config.foreign import printable
from experiments.config.wording import shortened
from experiments.training.evaluation import Evaluation

LENGTHS = ((20, 10), (16, 6), (12, 4), (10, 3))  # characters of a class name before a row, and above a column


def table(console: Console, test: Evaluation, classes: Sequence[str]) -> Table | None:
    """The counts, with the recall of each class; None if they do not fit the width of the console."""
    unlimited = console.options.update(max_width=1000)
    for lengths in LENGTHS:
        drawn = _table(test, classes, *lengths)
        if console.measure(drawn, options=unlimited).maximum <= console.width:
            return drawn
    return None


def _table(test: Evaluation, classes: Sequence[str], before: int, above: int) -> Table:
    drawn = Table(title="true class down, predicted class across", title_justify="left", box=None)
    drawn.add_column("")
    for name in classes:
        drawn.add_column(escape(shortened(printable(name), above)), justify="right")
    drawn.add_column("recall", justify="right")
    for row, name in enumerate(classes):
        counts = [str(count) if count else "·" for count in test.confusion[row]]
        counts[row] = f"[bold]{counts[row]}[/bold]"
        recall = f"{test.recall[row]:.2f}" if test.support[row] else "none"
        drawn.add_row(escape(shortened(printable(name), before)), *counts, recall)
    return drawn
