"""What a comparison prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from experiments.comparison.comparison import Comparison
from experiments.comparison.ranking import in_order
from experiments.comparison.significance import SEEDS, TOO_FEW, repeated_by
from experiments.comparison.values import NO_REASON, format_number
from experiments.config.wording import counted
from experiments.reports.terminal import console

TOP = 10


def show_comparison(comparison: Comparison, where: str) -> None:
    """Print the best points, how the test set was used, the groups over seeds or folds, the failures, and what to type next.

    Args:
        where: how to open the page.
    """
    _show_ranking(comparison)
    console.print()
    for line in filter(None, (comparison.statement, comparison.warning)):
        console.print(line, markup=False)
    _show_seeds(comparison)
    _show_failed(comparison)
    console.print(f"\nlook at it:   {where}", markup=False)
    if comparison.winner_command:
        console.print(f"train it:     {comparison.winner_command}", markup=False)
    elif comparison.winner:
        console.print(
            "train it:     no command does today, because conf/ or another folder of YAML files has changed since"
        )


def _show_ranking(comparison: Comparison) -> None:
    ranking = comparison.table[comparison.table["place"].notna()]
    console.print()
    if ranking.empty:
        console.print(f"none of {counted(len(comparison.points), 'point')} finished")
        return
    table = _table(["", "point", *comparison.objectives, "kept epoch", "epochs", "seconds"], words=2)
    for row in ranking.head(TOP).to_dict("records"):
        values = [format_number(row[objective]) for objective in comparison.objectives]
        kept = str(row["kept epoch"]) if row["kept epoch"] == row["kept epoch"] else "—"
        name = Text(row["name"], style="bold" if row["place"] == 1 else "")
        table.add_row(str(row["place"]), name, *values, kept, str(row["epochs"]), f"{row['seconds']:,.1f}")
    console.print(table)
    if len(comparison.points) > min(TOP, len(ranking)):
        console.print(f"and {len(comparison.points) - min(TOP, len(ranking)):,} more: report.html")
    if comparison.front:
        ordered = in_order(comparison.points, comparison.objectives[0])
        front = [str(place) for place, point in enumerate(ordered, start=1) if point in comparison.front]
        console.print(f"Pareto-optimal in {' and '.join(comparison.objectives)}: {', '.join(front)}")


def _show_seeds(comparison: Comparison) -> None:
    groups = comparison.over_seeds
    if groups is None:
        return
    console.print()
    repeated = repeated_by(comparison.points)
    table = _table([f"over {repeated}", repeated, f"mean {comparison.objectives[0]}", "± sd", "95 % interval"], words=1)
    for row in groups.head(TOP).to_dict("records"):
        interval = f"{format_number(row['low'])} to {format_number(row['high'])}" if row["n"] >= SEEDS else "—"
        seeds = f"{row['n']} of {row['started']}" if row["n"] < row["started"] else str(row["n"])
        table.add_row(Text(row["group"]), seeds, format_number(row["mean"]), format_number(row["sd"]), interval)
    console.print(table)
    if groups["n"].max() < SEEDS:
        console.print(TOO_FEW)
    if len(groups) > TOP:
        console.print(f"and {len(groups) - TOP:,} more: report.html")


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
