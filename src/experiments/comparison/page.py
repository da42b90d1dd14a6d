"""Points -> the files of a comparison: one self-contained HTML page, figures, tables."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.comparison import figures, ranking, significance, values
from experiments.comparison.comparison import Comparison
from experiments.comparison.importance import importance
from experiments.comparison.points import Point, swept_keys
from experiments.comparison.values import format_number
from experiments.config.keys import key_labels, repeats
from experiments.config.metrics import SELECTING, at_most
from experiments.reports.drawing import Figure, svg
from experiments.reports.html import render

AXES = 8  # settings in the picture of all; of more, those that matter most
READING = {
    "curves": "A line a point. Thin lines are those that are not among the best five; a cross is where one was pruned.",
    "progress": "Did it still get better at the end? Where the line is flat, more points brought nothing.",
    "parallel": "A line a finished point, from setting to setting to what it reached; violet for the best, yellow for the last. "
    "Where the violet lines meet on an axis, that setting matters.",
    "heatmap": "Each cell is the mean over all finished runs with these two settings; the bluer, the better.",
    "importance": "How much of the differences between points a setting accounts for, by a forest that learned them "
    "(fANOVA). With few points it is a hint, no proof.",
    "pareto": "The joined points are those that no other beats in both. Which of them is best is for you to say.",
    "cost": "Is the best worth its time? Good and cheap is top left, or bottom left where low is good.",
}
TITLES = {
    "curves": "Epochs",
    "progress": "In the order they were run",
    "parallel": "Settings and what they reached",
    "heatmap": "Two settings",
    "importance": "Which setting mattered",
    "pareto": "Two objectives",
    "cost": "What it cost",
}


def write(folder: Path, comparison: Comparison) -> None:
    """Write all files of the comparison into `folder`; what an earlier one left there and this one lacks is removed."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    tables = {"ranking": comparison.table, "groups": comparison.over_seeds, "differences": comparison.differences}
    for name, table in tables.items():
        path = folder / f"{name}.csv"
        if table is None:
            path.unlink(missing_ok=True)
        else:
            table.to_csv(path, index=False)
    drawn = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph|constrained_layout")  # names that no font here has: a box is drawn
        for name, figure in _figures(comparison).items():
            figure.savefig(folder / "figures" / f"{name}.png", dpi=110)
            figure.set_layout_engine("none")  # it is laid out now: again, for the page, would take a second in all
            drawn[name] = svg(figure)
    for name in TITLES.keys() - drawn.keys():
        (folder / "figures" / f"{name}.png").unlink(missing_ok=True)
    (folder / "report.html").write_text(_page(comparison, drawn), encoding="utf-8")


def _figures(comparison: Comparison) -> dict[str, Figure]:
    """Those that make sense for what is compared, in the order of the page."""
    points, objective = comparison.points, comparison.objectives[0]
    valued = [point for point in points if point.status == "finished" and ranking.finite(point.value(objective))]
    swept = [key for key in swept_keys(points) if not repeats(key)]
    metric = objective if any(objective in point.history for point in points) else SELECTING[0]
    shares = importance(points, objective) or {}
    shown = [key for key in shares if key in swept][:AXES] if len(swept) > AXES and shares else swept[:AXES]
    several, two = len(valued) > 1, len(comparison.objectives) == 2
    wanted: dict[str, tuple[bool, Callable[[], Figure]]] = {
        "pareto": (
            two and bool(comparison.front),
            lambda: figures.pareto(points, comparison.objectives, comparison.front),
        ),
        "heatmap": (several and _is_grid(valued, swept), lambda: figures.heatmap(valued, objective, swept)),
        "parallel": (several and len(swept) > 1, lambda: figures.parallel(points, objective, shown)),
        "importance": (bool(shares), lambda: figures.importance(shares)),
        "curves": (
            any(point.history.get(metric) for point in points),
            lambda: figures.curves(points, objective, metric),
        ),
        "progress": (several, lambda: figures.progress(points, objective)),
        "cost": (several and objective != "seconds", lambda: figures.cost(points, objective)),
    }
    return {name: draw() for name, (sensible, draw) in wanted.items() if sensible}


def _is_grid(points: Sequence[Point], keys: Sequence[str]) -> bool:
    """Two settings of which at least half of all pairs of values were tried; a random search hardly tries one twice."""
    if len(keys) != 2:
        return False
    down, across = ({point.settings.get(key) for point in points} for key in keys)
    return len(down) * len(across) <= 2 * len({tuple(point.settings.get(key) for key in keys) for point in points})


def _page(comparison: Comparison, drawn: Mapping[str, str]) -> str:
    keys = swept_keys(comparison.points)
    said = {word for key in keys for word in (key, key.rpartition(".")[2], key_labels(keys)[key])}
    # a name that only repeats the settings beside it is left out
    named = any(word.partition("=")[0] not in said for point in comparison.points for word in point.name.split())
    groups = comparison.over_seeds
    repeated = comparison.table.duplicated(keys).any() if keys else True
    return render(
        "comparison.html.j2",
        comparison=comparison,
        objective=comparison.objectives[0],
        cards=_cards(comparison),
        keys=keys,
        labels=key_labels(keys),
        brief=values.brief,
        number=format_number,
        named=named or repeated,
        rows=comparison.table.astype(object).where(comparison.table.notna(), None).to_dict("records"),
        groups=_records(groups),
        differences=_records(comparison.differences),
        larger=significance.SIGNIFICANT,
        untestable=significance.UNTESTABLE,
        versus_best=groups is not None and len(groups) > significance.ALL_PAIRS,
        unfinished=[point for point in comparison.points if point.status not in ("finished", "pruned")],
        figures=drawn,
        titles=TITLES,
        reading=READING,
    )


def _records(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    return (
        [] if table is None else [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    )


def _cards(comparison: Comparison) -> list[tuple[str, str]]:
    objective, points = comparison.objectives[0], comparison.points
    value = comparison.winner.value(objective) if comparison.winner else None
    reached = f"{100 * value:.1f} %" if value is not None and at_most(objective) == 1 else format_number(value)
    others = [("pruned", comparison.count("pruned")), ("failed", comparison.count("failed"))]
    others.append(("stopped or still running", comparison.count("killed", "running")))
    rest = ", ".join(f"{count} {word}" for word, count in others if count)
    seconds = math.fsum(point.seconds for point in points if math.isfinite(point.seconds))
    cards = [
        (reached, f"best {objective}"),
        (f"{comparison.count('finished')} of {len(points)}", f"points finished{'; ' if rest else ''}{rest}"),
        (f"{seconds:,.0f} s" if seconds < 6000 else f"{seconds / 60:,.0f} min", "in all points together"),
        (f"{sum(point.epochs for point in points):,}", "epochs run"),
    ]
    saved = sum(_saved(point) for point in points)
    return [*cards, (f"{saved:,}", "epochs saved by pruning, at most")] if saved else cards


def _saved(point: Point) -> int:
    """Epochs that a pruned point might still have run, had early stopping not come before."""
    planned = point.settings.get("training.epochs", "")
    return max(int(planned) - point.epochs, 0) if point.status == "pruned" and planned.isdecimal() else 0
