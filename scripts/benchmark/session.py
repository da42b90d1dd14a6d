"""What `scripts/benchmark.py` does: says how long it will take, runs, and shows."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import curves
from contest import PROGRAMS, Contest, Setting, installed, machine
from rich.console import Console
from rich.table import Table
from tables import line, table, title

from experiments.config import UserError

console = Console(highlight=False, soft_wrap=True)


def prepare(programs: Path, file: Path | None, pythons: Sequence[str]) -> Contest:
    """The contest, with the interpreters given as NAME=PATH.

    Raises:
        UserError: where one of these is none.
    """
    chosen = {}
    for word in pythons:
        name, _, path = word.partition("=")
        if name not in PROGRAMS or shutil.which(path) is None:
            raise UserError(f"--python {word}: must be NAME=PATH, a name of {', '.join(PROGRAMS)} and an interpreter")
        chosen[name] = path
    if not console.is_terminal:
        console.width = 300
    return Contest(programs, file, chosen)


def tables(contest: Contest, settings: Sequence[Setting]) -> int:
    """A table a setting; 1 where a contender failed."""
    can, lines = installed(settings[0].contenders, contest.pythons)
    for told in lines:
        console.print(told, markup=False)
    if not can:
        return 1
    settings = [dataclasses.replace(setting, contenders=tuple(can)) for setting in settings]
    failed = _run(contest, settings)
    for setting in settings:
        console.print()
        console.print(table(contest, setting))
    return int(failed)


def curve(contest: Contest, kind: str, settings: Sequence[Setting], file: Path) -> int:
    """A row a place on the curve, and the figure; 1 where a run failed."""
    lines = {
        f"batch {s.batch}, {s.precision}" if kind != "batch" else s.precision: curves.points(kind, s) for s in settings
    }
    failed = _run(contest, [setting for points in lines.values() for setting in points.values()])
    shown = Table("", curves.AXES[kind], "s an epoch", "µs a picture", "of the peak", box=None, padding=(0, 2, 0, 0))
    for label, points in lines.items():
        for at, seconds, picture, share in curves.rows(contest, points):
            shown.add_row(label, f"{at:,}", f"{seconds:.2f}", f"{picture:.1f}", f"{share:.0%}")
    console.print()
    console.print(shown)
    curves.draw(kind, contest, lines, file)
    console.print(f"\nlook at it:   {file}", markup=False)
    return int(failed)


def _run(contest: Contest, settings: Sequence[Setting]) -> bool:
    """Whatever is not known yet; True where something failed.

    Raises:
        UserError: where the pictures are not there.
    """
    root = settings[0].root
    if not (Path(root) / "cifar-10-batches-py" / "data_batch_1").exists():
        raise UserError(f"--data {root}: holds no cifar-10-batches-py/; python train.py data.root={root} downloads it")
    todo = [setting for setting in settings if contest.missing(setting)]
    here = machine()
    console.print(f"{here['processor']}, {here['cores']} cores, Python {here['python']}", markup=False)
    for setting in todo:
        contest.measure_peak(setting)
    processes = sum(len(contest.missing(setting)) for setting in todo)
    minutes = sum(contest.minutes(setting) for setting in todo)
    told = f"{processes} processes to run, one at a time: about {max(1, round(minutes))} min"
    console.print(told if todo else "nothing is left to measure", markup=False)
    failed = False
    for setting in todo:
        console.print(f"\n{title(setting)}", markup=False)
        for outcome in contest.run(setting):
            console.print(line(outcome, setting.rounds), markup=False)
            failed |= bool(outcome.error)
    return failed
