"""What a comparison prints."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from rich.table import Table
from rich.text import Text

from experiments.comparison.comparison import Comparison
from experiments.comparison.significance import SEEDS, TOO_FEW
from experiments.comparison.values import NO_REASON, format_number
from experiments.config.metrics import higher_is_better
from experiments.config.wording import counted
from experiments.reports.terminal import console

TOP = 10


def show_comparison(comparison: Comparison, where: str) -> None:
    """Print the best configurations, how the test set was used, the failures, and what to type next.

    Args:
        where: how to open the page.
    """
    _show_ranking(comparison)
    console.print()
    for line in filter(None, (comparison.statement, comparison.warning)):
        console.print(line, markup=False)
    _show_failed(comparison)
    console.print(f"\nlook at it:   {where}", markup=False)
    if comparison.winner_command:
        console.print(f"train it:     {comparison.winner_command}", markup=False)
        if comparison.winner_note:
            console.print(f"{'':14}{comparison.winner_note}", markup=False)
    elif comparison.winner:
        console.print(
            "train it:     no command does today, because conf/ or another folder of YAML files has changed since"
        )


def _show_ranking(comparison: Comparison) -> None:
    ranking = comparison.table[comparison.table["place"].notna()]
    console.print()
    if ranking.empty:
        console.print(f"none of {counted(len(comparison.points), 'point')} finished")
    elif comparison.over_seeds is not None:
        _show_configurations(comparison, comparison.over_seeds)
    else:
        table = _table(["", "point", *comparison.objectives, "kept epoch", "epochs", "seconds"], words=2)
        for row in ranking.head(TOP).to_dict("records"):
            values = [format_number(row[objective]) for objective in comparison.objectives]
            kept = str(row["kept epoch"]) if row["kept epoch"] == row["kept epoch"] else "—"
            end = (*values, kept, str(row["epochs"]), f"{row['seconds']:,.1f}")
            table.add_row(str(row["place"]), _name(row["name"], row["place"]), *end)
        _print(table, len(comparison.points) - min(TOP, len(ranking)))
    if comparison.front:
        places = [place for place, group in enumerate(comparison.configurations, 1) if group in comparison.front]
        console.print(f"Pareto-optimal in {' and '.join(comparison.objectives)}: {', '.join(map(str, places))}")


def _show_configurations(comparison: Comparison, rows: pd.DataFrame) -> None:
    """The means over seeds or folds; the report has the points."""
    first, *others = comparison.objectives
    others = list(dict.fromkeys([*others, "seconds"]))
    with_intervals = rows["n"].max() >= SEEDS
    interval = ["95 % interval"] if with_intervals else []
    table = _table(["", "configuration", comparison.repeated, f"mean {first}", "± sd", *interval, *others], words=2)
    for place, row in enumerate(rows.head(TOP).to_dict("records"), start=1):
        count = f"{row['n']} of {row['started']}" if row["n"] < row["started"] else str(row["n"])
        shown = [count, format_number(row["mean"]), format_number(row["sd"])]
        if with_intervals:
            shown.append(f"{format_number(row['low'])} to {format_number(row['high'])}" if row["n"] >= SEEDS else "—")
        shown += [f"{row[name]:,.1f}" if name == "seconds" else format_number(row[name]) for name in others]
        table.add_row(str(place), _name(row["group"], place), *shown)
    _print(table, len(rows) - min(TOP, len(rows)))
    if not with_intervals:
        console.print(TOO_FEW)
    if rows["n"].nunique() > 1:
        end = "lower" if higher_is_better(first) else "upper"
        console.print(
            f"Not all have as many finished {comparison.repeated}, so the {end} end of an interval ranks, not the mean."
        )


def _print(table: Table, more: int) -> None:
    console.print(table)
    if more > 0:
        console.print(f"and {more:,} more: report.html")


def _name(name: str, place: int) -> Text:
    return Text(name, style="bold" if place == 1 else "")


def _show_failed(comparison: Comparison) -> None:
    failed = [point for point in comparison.points if point.status == "failed"]
    if failed:
        console.print(f"\n{len(failed):,} failed:")
    for point in failed:
        console.print(Text(f"  {point.name}: {point.reason or NO_REASON}"))


def _table(headings: Sequence[str], words: int) -> Table:
    table = Table(*headings, box=None, padding=(0, 3, 0, 0))
    for column in table.columns[words:]:
        column.justify = "right"
    return table
