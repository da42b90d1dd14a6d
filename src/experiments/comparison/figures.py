"""How the figures of a comparison are drawn from configurations; `page.FIGURES` decides which of them apply."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from experiments.comparison.configurations import Configuration, repeated
from experiments.comparison.values import brief, logarithmic, numbers, ordered
from experiments.config.keys import key_labels
from experiments.config.metrics import higher_is_better
from experiments.config.wording import percent
from experiments.reports.drawing import BLUE, GREY, SERIES, Figure, printable

LEGEND, TICKS = 56, 14  # characters of a name in a legend, of a tick


def curves(groups: Sequence[Configuration], ranked: Sequence[Configuration], metric: str) -> Figure:
    """`metric` per epoch, one line per run: the best five configurations in colour, all others thin; a cross marks where one was pruned."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    best = ranked[: len(SERIES)]
    lines = [point for group in groups for point in group.points if point.history.get(metric)]
    coloured = {id(point) for group in best for point in group.finished}
    for point in lines:
        if id(point) not in coloured:
            values = point.history[metric]
            axes.plot(np.arange(1, len(values) + 1), values, color=GREY, lw=0.8, alpha=0.5 if len(lines) < 30 else 0.3)
    for place, (group, color) in enumerate(zip(best, SERIES), start=1):
        name: str | None = f"{place}. {printable(group.name, LEGEND)}"
        for point in group.finished:
            values = point.history.get(metric, ())
            axes.plot(np.arange(1, len(values) + 1), values, "o-", ms=3, color=color, zorder=4 - place / 10, label=name)
            name = None  # once in the legend
    pruned = [(point.epochs, point.history[metric][-1]) for point in lines if point.status == "pruned"]
    if pruned:
        axes.plot(*zip(*pruned), "x", color="black", ms=6, mew=1.5, zorder=5, label="pruned here")
    axes.set(xlabel="epoch", ylabel=metric)
    axes.set_xlim(left=0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if best or pruned:
        figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return figure


def progress(groups: Sequence[Configuration], objective: str) -> Figure:
    """The objective of each configuration, in the order in which they ran, and the best so far."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    rows = [
        (place, value)
        for place, group in enumerate(groups, start=1)
        if math.isfinite(value := _value(group, objective))
    ]
    places, values = (np.array(column) for column in zip(*rows))
    best = (np.maximum if higher_is_better(objective) else np.minimum).accumulate(values)
    axes.plot(places, values, "o", ms=4, color=GREY, alpha=0.7, label=_word(groups))
    axes.step([*places, len(groups)], [*best, best[-1]], where="post", color=BLUE, label="best so far")
    axes.set(xlabel=f"{_word(groups)}, in the order in which they ran", ylabel=objective)
    axes.set_xlim(left=0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def parallel(ranked: Sequence[Configuration], objective: str, keys: Sequence[str]) -> Figure:
    """One line per configuration through its settings, one axis each, to the objective: yellow is the last, violet the best.

    The axis of numbers that span decades is logarithmic; words are in the order in which they first appear.
    """
    rows = ranked[::-1]
    names = key_labels(keys)
    figure = Figure(figsize=(max(6, 1.5 * (len(keys) + 1)), 4.8), layout="constrained")
    axes = figure.subplots()
    heights = np.empty((len(rows), len(keys) + 1))
    for place, key in enumerate(keys):
        column = [group.settings.get(key) for group in rows]
        heights[:, place], ticks = _scale(column)
        _draw_axis(axes, place, ticks)
    values = [_value(group, objective) for group in rows]
    heights[:, -1], ticks = _linear(values)
    _draw_axis(axes, len(keys), ticks)
    segments = [np.column_stack([np.arange(len(keys) + 1), row]) for row in heights]
    # By rank, not by value: with one very bad value, all others would have the same colour.
    colors = matplotlib.colormaps["viridis"](np.linspace(0.95, 0, len(rows)))
    widths = [1.0] * (len(rows) - 1) + [2.5]
    axes.add_collection(LineCollection(segments, colors=colors, linewidths=widths, alpha=0.8))
    axes.set(xlim=(-0.3, len(keys) + 0.5), ylim=(-0.05, 1.05), yticks=[])
    axes.set_xticks(range(len(keys) + 1), [*(printable(names[key], 22) for key in keys), objective])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _scale(column: Sequence[str | None]) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Heights from 0 to 1 of the values of a setting, and (height, text) of its ticks."""
    found = numbers(column)
    if found is None:
        choices = list(dict.fromkeys(column))
        step = 1 / max(len(choices) - 1, 1)
        shown_choices = choices if len(choices) <= 12 else []
        ticks = [(place * step, printable(brief(choice), TICKS)) for place, choice in enumerate(shown_choices)]
        return np.array([choices.index(value) * step for value in column]), ticks
    if not logarithmic(found):
        return _linear(found)
    heights, _ = _linear(np.log10(found))
    return heights, _ticks(np.array(found), heights)


def _linear(values: Sequence[float] | np.ndarray) -> tuple[np.ndarray, list[tuple[float, str]]]:
    array = np.asarray(values, dtype=float)
    span = np.ptp(array)
    heights = (array - array.min()) / span if span else np.full(len(array), 0.5)
    return heights, _ticks(array, heights)


def _ticks(values: np.ndarray, heights: np.ndarray) -> list[tuple[float, str]]:
    """(height, text) of the ticks: the values, without those that would overlap; for many values, five evenly spaced ticks."""
    found = dict(zip(heights.tolist(), values.tolist()))
    if len(found) > 8:
        order = np.argsort(heights)
        wanted = np.linspace(0, 1, 5)
        found = {h: float(np.interp(h, heights[order], values[order])) for h in wanted.tolist()}
    ticks: list[tuple[float, str]] = []
    for height, value in sorted(found.items()):
        if not ticks or height - ticks[-1][0] > 0.05:
            ticks.append((height, f"{value:.3g}"))
    return ticks


def _draw_axis(axes: Axes, place: int, ticks: Sequence[tuple[float, str]]) -> None:
    axes.axvline(place, color=GREY, lw=1, zorder=0)
    for height, text in ticks:
        box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
        axes.text(place + 0.03, height, text, fontsize=8, va="center", bbox=box, zorder=5)


def heatmap(groups: Sequence[Configuration], objective: str, keys: Sequence[str]) -> Figure:
    """The mean for each pair of values of two settings; up to 100 cells show it as text."""
    down, across = (ordered([group.settings.get(key) for group in groups]) for key in keys)
    cells: dict[tuple[int, int], list[float]] = {}
    for group in groups:
        if math.isfinite(value := _value(group, objective)):
            place = down.index(group.settings.get(keys[0])), across.index(group.settings.get(keys[1]))
            cells.setdefault(place, []).append(value)
    means = np.full((len(down), len(across)), np.nan)
    for place, values in cells.items():
        means[place] = np.mean(values)
    figure = Figure(figsize=(min(3.4 + 0.8 * len(across), 14), min(2.2 + 0.55 * len(down), 12)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(means, cmap="Blues" if higher_is_better(objective) else "Blues_r", aspect="auto")
    figure.colorbar(image, ax=axes, label=objective)
    names = key_labels(keys)
    axes.set(xlabel=printable(names[keys[1]]), ylabel=printable(names[keys[0]]))
    for axis, choices in ((axes.xaxis, across), (axes.yaxis, down)):
        axis.set_ticks(range(len(choices)), [printable(brief(choice), TICKS) for choice in choices])
    if len(across) > 4 and max(len(tick.get_text()) for tick in axes.get_xticklabels()) > 7:
        axes.tick_params(axis="x", rotation=90)
    if means.size <= 100:
        shades = np.asarray(image.norm(means)) if higher_is_better(objective) else 1 - np.asarray(image.norm(means))
        for (row, column), mean in np.ndenumerate(means):
            text = "none" if math.isnan(mean) else f"{mean:.3g}" if abs(mean) >= 10 else f"{mean:.3f}"
            color = "white" if shades[row, column] > 0.6 else "black"  # black for NaN, whose cell is white
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
    return figure


def importance(fractions: Mapping[str, float]) -> Figure:
    """One bar per setting, the largest at the top."""
    names = key_labels(list(fractions))
    figure = Figure(figsize=(8, 1.3 + 0.34 * len(fractions)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(fractions)), list(fractions.values()), color=BLUE)
    axes.set_yticks(range(len(fractions)), [printable(names[key]) for key in fractions])
    for place, fraction in enumerate(fractions.values()):
        axes.text(fraction + 0.01, place, percent(fraction, 0), va="center")
    axes.set(ylim=(len(fractions) - 0.5, -0.5), xlim=(0, 1.1), xlabel="fraction of the variance")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def pareto(groups: Sequence[Configuration], objectives: Sequence[str], front: Sequence[Configuration]) -> Figure:
    """The first two objectives against each other, with the Pareto `front` in colour."""
    upward, across = objectives[:2]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    _dots(axes, [(_value(group, across), _value(group, upward)) for group in groups])
    where: Literal["pre", "post"] = "pre" if higher_is_better(across) else "post"
    border = sorted((_value(group, across), _value(group, upward)) for group in front)
    axes.step(*zip(*border), "o-", where=where, color=BLUE, ms=6, label="Pareto-optimal")
    axes.set(xlabel=_directed(across), ylabel=_directed(upward))
    axes.legend()
    return figure


def _directed(objective: str) -> str:
    return f"{objective} ({'higher' if higher_is_better(objective) else 'lower'} is better)"


def cost(ranked: Sequence[Configuration], objective: str) -> Figure:
    """The objective of each configuration against the seconds that a run took; the best in colour."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    _dots(axes, [(group.seconds, _value(group, objective)) for group in ranked])
    best = ranked[0]
    axes.plot(best.seconds, _value(best, objective), "o", color=BLUE, ms=8, label=f"1. {printable(best.name, LEGEND)}")
    if logarithmic([max(group.seconds, 1e-9) for group in ranked if group.finished]):
        axes.set_xscale("log")
    axes.set(xlabel="seconds", ylabel=objective)
    figure.legend(loc="outside lower center")
    return figure


def _dots(axes: Axes, places: Sequence[tuple[float, float]]) -> None:
    axes.plot(*np.array(places).T, "o", ms=5, color=GREY, alpha=0.7)
    axes.grid(alpha=0.3)


def _value(group: Configuration, objective: str) -> float:
    """The mean of the objective; if there is none, NaN, which is not drawn."""
    value = group.value(objective)
    return math.nan if value is None else value


def _word(groups: Sequence[Configuration]) -> str:
    return "configuration" if repeated(groups) else "point"
