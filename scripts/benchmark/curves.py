"""How the cost of an epoch grows: with the pictures, the batch, the threads, the width of the network."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from contest import Contest, Setting

VALUES: Mapping[str, tuple[int, ...]] = {
    "images": (10_000, 20_000, 40_000, 100_000, 250_000, 1_000_000),
    "batch": (16, 32, 64, 128, 256, 512, 1024, 2048),
    "threads": (1, 2, 4, 8, 16, 32, 64),
    "width": (8, 16, 32, 64, 128),
}
AXES = {"images": "training pictures", "batch": "batch", "threads": "threads", "width": "filters of each convolution"}


def points(kind: str, base: Setting) -> dict[int, Setting]:
    """The setting of each place on the curve; this project alone, threads up to the cores that there are."""
    base = dataclasses.replace(base, contenders=("ours",))
    cores = os.cpu_count() or 1
    if kind == "images":
        return {n: dataclasses.replace(base, images=n, validation=min(10_000, n // 4)) for n in VALUES[kind]}
    if kind == "threads":
        return {n: dataclasses.replace(base, threads=n) for n in VALUES[kind] if n <= cores}
    if kind == "width":
        return {n: dataclasses.replace(base, overrides=(*base.overrides, f"model.filters={n}")) for n in VALUES[kind]}
    return {n: dataclasses.replace(base, batch=n) for n in VALUES[kind]}


def draw(kind: str, contest: Contest, lines: Mapping[str, Mapping[int, Setting]], file: Path) -> None:
    """Seconds an epoch, and the share of the matrix peak, against what changes; a line a precision."""
    from matplotlib.ticker import LogLocator, NullLocator

    from experiments.reports.drawing import (
        BLUE,
        ORANGE,
        Figure,  # after the last process: see the package
    )

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (label, settings), color in zip(lines.items(), (BLUE, ORANGE)):
        seconds = {
            at: _seconds(contest, setting) for at, setting in settings.items() if contest.results(setting).of("ours")
        }
        left.plot(seconds.keys(), seconds.values(), "o-", ms=3, color=color, label=label)
        shares = [100 * contest.shares(settings[at], "ours", second) for at, second in seconds.items()]
        right.plot(seconds.keys(), shares, "o-", ms=3, color=color, label=label)
    left.set(xlabel=AXES[kind], ylabel="seconds an epoch", xscale="log", yscale="log")
    right.set(xlabel=AXES[kind], ylabel="share of the matrix peak, %", xscale="log")
    right.set_ylim(0, 1.05 * right.dataLim.ymax)
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_locator(NullLocator())
    places = [at for settings in lines.values() for at in settings]
    for axes in (left, right):
        axes.set_xticks(places, [f"{at:,}" for at in places], fontsize=7)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(alpha=0.3)
        axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=80)


def rows(contest: Contest, settings: Mapping[int, Setting]) -> Sequence[tuple[int, float, float, float]]:
    """(value, seconds an epoch, microseconds a picture, share of the peak) of each place that was measured."""
    made = []
    for at, setting in settings.items():
        if contest.results(setting).of("ours"):
            second = _seconds(contest, setting)
            picture = 1e6 * second / (setting.images + setting.validation)
            made.append((at, second, picture, contest.shares(setting, "ours", second)))
    return made


def _seconds(contest: Contest, setting: Setting) -> float:
    return median(second for outcome in contest.results(setting).of("ours") for second in outcome.seconds)
