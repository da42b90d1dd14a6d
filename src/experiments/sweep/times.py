"""What the points of a multirun have taken so far, in a file of its folder, to which every worker adds lines.

A line replaces the earlier lines of its point. A line that is not whole is ignored.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.config.keys import key_of, repeats, role_of
from experiments.files.atomic import append_line
from experiments.sweep.estimate import Cost, Measured

FILE = "times.jsonl"
_read: dict[Path, tuple[int, dict[str, Measured]]] = {}  # what this process has read: only new lines are read again


def key(overrides: Sequence[str]) -> str:
    """Identifies a point of a multirun: its overrides, without those of the multirun as a whole."""
    return "\n".join(sorted(text for text in overrides if not role_of(key_of(text)).of_whole_multirun))


def without_repetition(point: str) -> str:
    """What repetitions of a point with other seeds or folds have in common, from its key."""
    return key([text for text in point.split("\n") if not repeats(key_of(text))])


def repetitions_last(points: Iterable[str]) -> list[str]:
    """The keys of points, the first repetition of every setting before any second one: a budget may not last for all."""
    places: list[tuple[int, str]] = []
    seen = Counter[str]()
    for point in points:
        same = without_repetition(point)
        places.append((seen[same], point))
        seen[same] += 1
    return [point for _, point in sorted(places, key=lambda row: row[0])]


def read(folder: Path) -> dict[str, Measured]:
    """The points that have trained an epoch, in the order in which they started, by their keys."""
    path = (folder / FILE).absolute()
    try:
        size = path.stat().st_size
    except OSError:  # nothing was measured yet
        return {}
    position, found = _read.get(path, (0, {}))
    if size < position:
        position, found = 0, {}
    with path.open("rb") as file:
        file.seek(position)
        whole, end, _ = file.read().rpartition(b"\n")  # the last line may be written at this moment
    for line in whole.splitlines():
        try:
            values = json.loads(line)
        except ValueError:  # a process was killed while it wrote the line
            continue
        point, cost = values.pop("point"), Cost(**values.pop("cost"))
        found[point] = Measured(cost, **values)
    _read[path] = position + len(whole) + len(end), found
    return dict(found)


def forget(folder: Path) -> None:
    """Forget what was measured: the multirun starts anew."""
    _read.pop((folder / FILE).absolute(), None)
    (folder / FILE).unlink(missing_ok=True)


@dataclass
class Stopwatch:
    """Measures a point in the process that trains it, from now on.

    Attributes:
        point: its key.
        last: the seconds of its last epoch.
        here: the seconds of the epochs that this process has trained.
        before: the seconds before the first epoch.
    """

    folder: Path
    point: str
    cost: Cost
    last: float = 0.0
    here: float = 0.0
    before: float = 0.0
    _epochs: int = 0
    _seconds: float = 0.0
    _started: float = dataclasses.field(default_factory=time.monotonic)
    _told: float = dataclasses.field(default_factory=time.monotonic)

    def epoch(self, number: int, metrics: Mapping[str, float]) -> None:
        """Note an epoch. Those of earlier commands are told first, in no time."""
        now, self.last = time.monotonic(), metrics["epoch_seconds"]
        self._epochs, self._seconds = number, self._seconds + self.last
        if now - self._told >= 0.9 * self.last:
            self.before = self.before or now - self._started - self.last
            self.here += self.last
            self._write(None)
        self._told = now

    def end(self, history: Sequence[Mapping[str, float]], stopped: bool = False) -> None:
        """Note that the point has ended; `stopped`: by the budget, so that its next epochs are left."""
        seconds = [epoch["epoch_seconds"] for epoch in history]
        if 0 < self._epochs < len(seconds):  # nobody is told about the epoch after which early stopping ends a training
            self.here += sum(seconds[self._epochs :])
        self._epochs, self._seconds = len(seconds), sum(seconds)
        self._write(None if stopped else max(time.monotonic() - self._started - self.here, 0.0))

    def fail(self) -> None:
        """Note that the point has failed."""
        if self._epochs:
            self._write(0.0)

    def _write(self, around: float | None) -> None:
        measured = Measured(self.cost, self._epochs, self._seconds, around, trained=around is None or self.here > 0)
        append_line(self.folder / FILE, json.dumps({"point": self.point, **dataclasses.asdict(measured)}))
