"""How the time of an epoch grows with the images, the batch size, the threads and the width of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from benchmark import Benchmark
from settings import Setting

from experiments.files.limits import usable_cpus


@dataclass(frozen=True)
class Curve:
    """What changes along the horizontal axis, its values, and a setting with one of these values."""

    axis: str
    values: tuple[int, ...]
    apply: Callable[[Setting, int], Setting]


CURVES: Mapping[str, Curve] = {
    "images": Curve(
        "training images",
        (10_000, 20_000, 40_000, 100_000, 250_000, 1_000_000),
        lambda setting, value: replace(setting, images=value),
    ),
    "batch": Curve(
        "batch size",
        (16, 32, 64, 128, 256, 512, 1024, 2048),
        lambda setting, value: replace(setting, batch=value),
    ),
    "threads": Curve(
        "threads",
        (1, 2, 4, 8, 16, 32, 64),
        lambda setting, value: replace(setting, threads=value),
    ),
    "width": Curve(
        "filters per convolution",
        (8, 16, 32, 64, 128),
        lambda setting, value: replace(setting, overrides=(*setting.overrides, f"model.filters={value}")),
    ),
}


def points(name: str, base: Setting) -> dict[int, Setting]:
    """The setting of each point of a curve, of this project alone; no more threads than processors."""
    curve, base = CURVES[name], replace(base, contenders=("ours",))
    values = [value for value in curve.values if name != "threads" or value <= usable_cpus()]
    return {value: curve.apply(base, value) for value in values}


def rows(benchmark: Benchmark, settings: Mapping[int, Setting]) -> Iterator[tuple[int, float, float, float]]:
    """(value, seconds per epoch, microseconds per image, fraction of the peak) of each point that was measured."""
    for value, setting in settings.items():
        results = benchmark.results(setting)
        if results.of("ours"):
            seconds = median(results.seconds("ours"))
            microseconds = 1e6 * seconds / (setting.images + setting.validation)
            yield value, seconds, microseconds, results.fraction_of_peak("ours")


def draw(name: str, benchmark: Benchmark, lines: Mapping[str, Mapping[int, Setting]], file: Path) -> None:
    """Draw the seconds per epoch and the percentage of the matrix peak; `lines` are the points of each line."""
    from matplotlib.ticker import LogLocator, NullLocator  # drawing comes after the last process has ended

    from experiments.reports.drawing import BLUE, ORANGE, Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (label, settings), color in zip(lines.items(), (BLUE, ORANGE)):
        measured = list(rows(benchmark, settings))
        values = [value for value, *_ in measured]
        left.plot(values, [seconds for _, seconds, _, _ in measured], "o-", ms=3, color=color, label=label)
        right.plot(values, [100 * fraction for *_, fraction in measured], "o-", ms=3, color=color, label=label)
    axis = CURVES[name].axis
    left.set(xlabel=axis, ylabel="seconds per epoch", xscale="log", yscale="log")
    right.set(xlabel=axis, ylabel="percentage of the matrix peak", xscale="log")
    right.set_ylim(0, 1.05 * right.dataLim.ymax)
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_locator(NullLocator())
    ticks = [value for settings in lines.values() for value in settings]
    for axes in (left, right):
        axes.set_xticks(ticks, [f"{value:,}" for value in ticks], fontsize=7)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(alpha=0.3)
        axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=80)
