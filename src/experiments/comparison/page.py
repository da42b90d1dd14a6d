"""Points -> the files of a comparison: one self-contained HTML page, figures, tables."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from experiments.comparison import figures, significance, values
from experiments.comparison.comparison import Comparison
from experiments.comparison.configurations import Configuration, configuration_keys
from experiments.comparison.importance import importance
from experiments.comparison.points import Point, swept_keys
from experiments.config.defaults import default
from experiments.config.foreign import cell
from experiments.config.keys import key_labels
from experiments.config.metrics import at_most, higher_is_better
from experiments.config.wording import percent
from experiments.reports.drawing import Figure, PageFigure, save_figures
from experiments.reports.html import count_card, duration, render

AXES = 8  # settings in the figure of all settings; if there are more, the most important ones


@dataclass(frozen=True)
class Drawn:
    """A comparison, with what its figures need."""

    comparison: Comparison

    @property
    def configurations(self) -> Sequence[Configuration]:
        return self.comparison.configurations

    @property
    def objective(self) -> str:
        return self.comparison.objectives[0]

    @functools.cached_property
    def valued(self) -> list[Configuration]:
        """Those whose objective is finite, the best first."""
        return [group for group in self.configurations if group.value(self.objective) is not None]

    @functools.cached_property
    def in_order(self) -> list[Configuration]:
        """In the order in which they first ran."""
        order = {id(point): place for place, point in enumerate(self.comparison.points)}
        return sorted(self.configurations, key=lambda group: order[id(group.points[0])])

    @functools.cached_property
    def swept(self) -> list[str]:
        """The swept settings in which configurations differ."""
        keys = configuration_keys(self.comparison.points)
        return [key for key in swept_keys(self.comparison.points) if key in keys]

    @functools.cached_property
    def importance(self) -> dict[str, float]:
        """Setting -> importance; empty if there are too few configurations."""
        return importance(self.comparison.points, self.objective) or {}

    @property
    def axes(self) -> list[str]:
        """The settings to show side by side."""
        important = [key for key in self.importance if key in self.swept] if len(self.swept) > AXES else []
        return (important or self.swept)[:AXES]

    @property
    def metric(self) -> str:
        """The metric per epoch to show: the objective, or the accuracy if the objective is measured only once."""
        return (
            self.objective
            if any(self.objective in point.history for point in self.comparison.points)
            else default("sweep.objectives")[0]
        )

    @property
    def has_grid(self) -> bool:
        """Whether there are two settings, and at least half of the pairs of their values were tried, unlike in a random search."""
        if len(self.swept) != 2:
            return False
        down, across = ({group.settings.get(key) for group in self.valued} for key in self.swept)
        pairs = {tuple(group.settings.get(key) for key in self.swept) for group in self.valued}
        return len(down) * len(across) <= 2 * len(pairs)


FIGURES: tuple[PageFigure[Drawn], ...] = (
    PageFigure(
        "pareto",
        "Two objectives",
        "The connected points are Pareto-optimal: no other point is better in one objective and as good in the other.",
        lambda drawn: figures.pareto(drawn.configurations, drawn.comparison.objectives, drawn.comparison.front),
        applies=lambda drawn: len(drawn.comparison.objectives) == 2 and bool(drawn.comparison.front),
    ),
    PageFigure(
        "heatmap",
        "Two settings",
        "Each cell is the mean over all finished points with these two settings; darker is better.",
        lambda drawn: figures.heatmap(drawn.valued, drawn.objective, drawn.swept),
        applies=lambda drawn: len(drawn.valued) > 1 and drawn.has_grid,
    ),
    PageFigure(
        "parallel",
        "Settings and objective",
        "One line per finished point, through its settings to the objective; violet is the best, yellow the last. "
        "Where the violet lines meet on an axis, that setting matters.",
        lambda drawn: figures.parallel(drawn.valued, drawn.objective, drawn.axes),
        applies=lambda drawn: len(drawn.valued) > 1 and len(drawn.swept) > 1,
    ),
    PageFigure(
        "importance",
        "Importance of settings",
        "The fraction of the variance between points that a setting explains, estimated by a random forest (fANOVA). "
        "With few points it is only a hint.",
        lambda drawn: figures.importance(drawn.importance),
        applies=lambda drawn: bool(drawn.importance),
    ),
    PageFigure(
        "curves",
        "Epochs",
        "One line per point. The best five are in colour; a cross marks where a point was pruned.",
        lambda drawn: figures.curves(drawn.in_order, drawn.valued, drawn.metric),
        applies=lambda drawn: any(point.history.get(drawn.metric) for point in drawn.comparison.points),
    ),
    PageFigure(
        "progress",
        "Progress",
        "The points in the order in which they ran. Where the line is flat, more points brought no improvement.",
        lambda drawn: figures.progress(drawn.in_order, drawn.objective),
        applies=lambda drawn: len(drawn.valued) > 1,
    ),
    PageFigure(
        "cost",
        "Cost",
        "The objective against the time that a point took.",
        lambda drawn: figures.cost(drawn.configurations, drawn.objective),
        applies=lambda drawn: len(drawn.valued) > 1 and drawn.objective != "seconds",
    ),
)


def write(folder: Path, comparison: Comparison) -> None:
    """Write all files of the comparison into `folder`, and remove those of an earlier one that no longer apply."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"ranking": comparison.table, "groups": comparison.over_seeds, "differences": comparison.differences}
    for name, table in tables.items():
        path = folder / f"{name}.csv"
        if table is None:
            path.unlink(missing_ok=True)
        else:
            plain = table.rename(columns=cell).astype(object)  # whole numbers stay whole beside missing ones
            plain.map(cell).to_csv(path, index=False)
    drawn = save_figures(folder / "figures", FIGURES, Drawn(comparison))
    links = {point.run_id: _address(point.link, folder) for point in comparison.points}
    (folder / "report.html").write_text(_page(comparison, drawn, links), encoding="utf-8")


def _address(link: str, folder: Path) -> str:
    """An address for a page in `folder`; files are relative to it, so that a project can be moved.

    Empty without a report: a pruned or a failed run has none.
    """
    if "://" in link:
        return link
    return quote(os.path.relpath(link, folder)) if Path(link).is_file() else ""


def _page(comparison: Comparison, drawn: Sequence[tuple[PageFigure[Drawn], Figure]], links: Mapping[str, str]) -> str:
    keys = swept_keys(comparison.points)
    shown = {word for key in keys for word in (key, key.rpartition(".")[2], key_labels(keys)[key])}
    # names that only repeat the settings in the other columns are left out
    named = any(word.partition("=")[0] not in shown for point in comparison.points for word in point.name.split())
    groups, pairs = comparison.over_seeds, comparison.differences
    alike = comparison.table.duplicated(keys).any() if keys else True
    return render(
        "comparison.html.j2",
        comparison=comparison,
        objective=comparison.objectives[0],
        cards=_cards(comparison),
        keys=keys,
        labels=key_labels(keys),
        values=values,
        named=named or alike,
        rows=comparison.table.astype(object).where(comparison.table.notna(), None).to_dict("records"),
        groups=_records(groups),
        higher=higher_is_better(comparison.objectives[0]),
        setting_keys=[key for key in keys if groups is not None and key in groups],
        differences=_records(significance.with_the_best(pairs, groups) if pairs is not None else None),
        pairs=0 if pairs is None else len(pairs),
        significance=significance,
        unfinished=[point for point in comparison.points if point.status not in ("finished", "pruned")],
        figures=drawn,
        links=links,
    )


def _records(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    return [] if table is None else [dict(zip(table.columns, row)) for row in table.itertuples(index=False)]


def _cards(comparison: Comparison) -> list[tuple[str, str]]:
    objective, points = comparison.objectives[0], comparison.points
    value = comparison.winner.value(objective) if comparison.winner else None
    reached = percent(value) if value is not None and at_most(objective) == 1 else values.format_number(value)
    others = [("pruned", comparison.count("pruned")), ("failed", comparison.count("failed"))]
    others.append(("killed or running", comparison.count("killed", "running")))
    rest = ", ".join(f"{count} {word}" for word, count in others if count)
    number, word = count_card(len(points), "point")
    seconds = math.fsum(point.seconds for point in points if math.isfinite(point.seconds))
    cards = [
        (reached, f"best mean {objective}" if comparison.repeated else f"best {objective}"),
        (f"{comparison.count('finished')} of {number}", f"{word} finished{'; ' if rest else ''}{rest}"),
        (duration(seconds), "sum over all points"),
        count_card(sum(point.epochs for point in points), "epoch run", "epochs run"),
    ]
    saved = sum(_saved(point) for point in points)
    return (
        [*cards, count_card(saved, "epoch saved by pruning, at most", "epochs saved by pruning, at most")]
        if saved
        else cards
    )


def _saved(point: Point) -> int:
    """The epochs that pruning saved, at most: early stopping might have saved some of them, too."""
    planned = point.settings.get("training.epochs", "")
    return max(int(planned) - point.epochs, 0) if point.status == "pruned" and planned.isdecimal() else 0
