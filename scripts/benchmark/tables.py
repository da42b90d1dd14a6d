"""What a benchmark prints: how long it will take, each process as it ends, and the tables."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import curves
from benchmark import Benchmark, Outcome, machine
from rich.table import Table
from settings import CONTENDERS, Setting, installed

from experiments.config.wording import counted, percent
from experiments.reports.terminal import new_console

console = new_console()


def compare(benchmark: Benchmark, settings: Sequence[Setting]) -> int:
    """Measure, then print one table per setting; the exit code is 1 if a contender failed."""
    contenders = available(settings[0].contenders, benchmark.pythons)
    if not contenders:
        return 1
    settings = [replace(setting, contenders=tuple(contenders)) for setting in settings]
    failed = measure(benchmark, settings)
    for setting in settings:
        console.print()
        console.print(comparison(benchmark, setting))
    return int(failed)


def curve(benchmark: Benchmark, name: str, settings: Sequence[Setting], file: Path) -> int:
    """Measure, then print one row per point and draw the figure; the exit code is 1 if a process failed."""
    labels = [s.precision if name == "batch" else f"batch {s.batch}, {s.precision}" for s in settings]
    lines = {label: curves.points(name, setting) for label, setting in zip(labels, settings)}
    failed = measure(benchmark, [setting for points in lines.values() for setting in points.values()])
    table = new_table("", curves.CURVES[name].axis, "s per epoch", "µs per image", "of the peak")
    for label, points in lines.items():
        for value, seconds, microseconds, fraction in curves.rows(benchmark, points):
            table.add_row(label, f"{value:,}", f"{seconds:.2f}", f"{microseconds:.1f}", percent(fraction, 0))
    console.print()
    console.print(table)
    curves.draw(name, benchmark, lines, file)
    console.print(f"\nfigure:   {file}", markup=False)
    return int(failed)


def available(contenders: Sequence[str], pythons: Collection[str] = ()) -> list[str]:
    """The contenders that can run. Prints what the others need."""
    can, lines = installed(contenders, pythons)
    for line in lines:
        console.print(line, markup=False)
    return can


def show_machine() -> None:
    here = machine()
    console.print(f"{here['processor']}, {counted(here['cores'], 'core')}, Python {here['python']}", markup=False)


def comparison(benchmark: Benchmark, setting: Setting) -> Table:
    """One row per contender; its ratios are to this project's epochs of the same round."""
    results = benchmark.results(setting)
    columns = ("s per epoch", "images/s", "times as long", "of the peak", "memory", "first step", "val. accuracy")
    table = new_table("", *columns)
    table.title, table.title_justify = f"{_title(setting)}; peak {max(results.peaks) / 1e12:.2f} TFLOP/s", "left"
    for column in table.columns[1:]:
        column.justify = "right"
    for name in setting.contenders:
        label, outcomes, seconds = CONTENDERS[name].label, results.of(name), results.seconds(name)
        if not outcomes:
            table.add_row(label, "failed")
            continue
        table.add_row(
            label,
            spread(seconds, 2),
            f"{(setting.images + setting.validation) / median(seconds):,.0f}",
            spread(ratios(outcomes, results.of("ours")), 2),
            percent(results.fraction_of_peak(name), 0),
            f"{median(outcome.peak_bytes for outcome in outcomes) / 2**30:.2f} GiB",
            f"{median(outcome.first_step for outcome in outcomes):.1f} s",
            f"{median(outcome.accuracies[-1] for outcome in outcomes):.3f}",
        )
    return table


def ratios(outcomes: Sequence[Outcome], ours: Sequence[Outcome]) -> list[float]:
    """How many times as long an epoch takes as this project's; one number per round."""
    by_round = {outcome.round: median(outcome.seconds) for outcome in ours}
    return [median(o.seconds) / by_round[o.round] for o in outcomes if o.round in by_round]


def spread(values: Sequence[float], digits: int) -> str:
    """Median (least to greatest); infinity, a time at which nothing happened, is "never"."""
    if not values:
        return "—"
    middle, low, high = (
        "never" if math.isinf(value) else f"{value:.{digits}f}" for value in (median(values), min(values), max(values))
    )
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle


def new_table(*columns: str) -> Table:
    return Table(*columns, box=None, padding=(0, 2, 0, 0))


def measure(benchmark: Benchmark, settings: Sequence[Setting]) -> bool:
    """Run what is missing in the results; True if a process failed."""
    unfinished = [setting for setting in settings if benchmark.missing(setting)]
    show_machine()
    for setting in unfinished:
        benchmark.measure_peak(setting)
    processes = [(setting, name) for setting in unfinished for _, name in benchmark.missing(setting)]
    seconds = sum(benchmark.results(setting).estimated_seconds(name) for setting, name in processes)
    estimate = f"{counted(len(processes), 'process', 'processes')} to run, one at a time: about {max(1, round(seconds / 60))} min"
    console.print(estimate if processes else "nothing is left to measure", markup=False)
    failed = False
    for setting in unfinished:
        console.print(f"\n{_title(setting)}", markup=False)
        for outcome in benchmark.run(setting):
            console.print(_line(outcome, setting.rounds), markup=False)
            failed |= bool(outcome.error)
    return failed


def _title(setting: Setting) -> str:
    threads = f", threads={setting.threads}" if setting.threads else ""
    overrides = "".join(f", {override}" for override in setting.overrides)
    images = f"{setting.images:,} training and {counted(setting.validation, 'validation image')} per epoch"
    return f"batch {setting.batch:,}, {setting.precision}{threads}{overrides}: {images}"


def _line(outcome: Outcome, rounds: int) -> str:
    seconds = " ".join(f"{second:.2f}" for second in outcome.seconds)
    result = f"failed: {outcome.error}" if outcome.error else f"{seconds} s per epoch"
    return f"{outcome.round}/{rounds}  {CONTENDERS[outcome.contender].label}: {result}"
