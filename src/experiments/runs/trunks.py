"""Runs that start alike: how many epochs two of them share, and the records by which one finds the other.

The trunk of a run is the digest of everything that acts from its first step. Every run leaves a record in
outputs/trunks/TRUNK/: its settings that act later, and how many epochs its checkpoint has.
"""

from __future__ import annotations

import array
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.config import Config
from experiments.config.constraints import Acts
from experiments.config.keys import decisive_settings, late_keys
from experiments.config.optimizers import SCHEDULES, ScheduleSettings
from experiments.config.wording import counted
from experiments.data.batches import batch_sizes
from experiments.files.atomic import atomic_write
from experiments.runs.fingerprint import trunk
from experiments.runs.provenance import machine
from experiments.training.features import may_be_cut
from experiments.training.schedules import factor

DIGEST = 2 * hashlib.sha256().digest_size  # characters at the end of a record


@dataclass(frozen=True)
class Record:
    """What is known about a run without its checkpoint.

    Attributes:
        name: of its folder in outputs/runs.
        run: its id in MLflow, or the name of its folder.
        late: its settings that do not act from the first step, by their keys.
        threads: CPU threads that computed all its epochs; 0 if it was continued with another number.
        epochs: in its checkpoint, when its training has ended; else None.
    """

    name: str
    run: str
    late: Mapping[str, Any]
    threads: int
    epochs: int | None = None

    @property
    def schedule(self) -> ScheduleSettings:
        settings = {key.partition(".")[2]: value for key, value in self.late.items() if key.startswith("schedule.")}
        return SCHEDULES[settings["name"]](**settings)

    @property
    def validation(self) -> Mapping[str, Any]:
        """The settings on which the metrics of the validation depend, but not the weights."""
        return {key: value for key, value in self.late.items() if late_keys()[key] is Acts.ON_VALIDATION}


@dataclass(frozen=True)
class Trunk:
    """The trunk of a run, and the records of all runs that have it.

    Attributes:
        folder: of the records.
        steps: per epoch.
        own: the record of this run.
    """

    folder: Path
    steps: int
    own: Record

    @classmethod
    def of(
        cls,
        config: Config,
        images: int,
        digest: str,
        weights: str | None,
        device: torch.device,
        place: Path,
        run: str,
        processes: int = 1,
    ) -> Trunk:
        """The trunk of a run in the folder `place`; `images`: in its training set; the digests are of all images and weights."""
        several = {"processes": processes} if processes > 1 else {}
        identity = trunk(
            config, device.type, digest, weights, machine=machine(device), cut=may_be_cut(config), **several
        )
        late = {key: value for key, value in decisive_settings(config).items() if key in late_keys()}
        name = run if config.tracking.uri else place.name
        own = Record(place.name, name, json.loads(json.dumps(late)), torch.get_num_threads())
        steps = len(batch_sizes(images, config.training.batch_size, merge=True))
        return cls(Path(config.outputs) / "trunks" / identity[:16], steps, own)

    def write(self, threads: int, epochs: int | None = None) -> None:
        """Write the record of this run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dataclasses.asdict(dataclasses.replace(self.own, threads=threads, epochs=epochs)))
        with atomic_write(self.folder / f"{self.own.name}.json") as file:
            file.write((text + hashlib.sha256(text.encode()).hexdigest()).encode())

    def written(self) -> Record | None:
        """The record that an earlier process has written of this run."""
        return _read(self.folder / f"{self.own.name}.json")

    def others(self) -> Iterator[Record]:
        """The records of the other runs, as far as they are not damaged."""
        for file in sorted(self.folder.glob("*.json")):
            if file.stem != self.own.name and (record := _read(file)):
                yield record

    def checkpoint(self, record: Record) -> Path:
        """The newest checkpoint of another run."""
        return self.folder.parents[1] / "runs" / record.name / "checkpoint.pt"

    def shared(self, other: Record, most: int) -> int:
        """How many of its first `most` epochs have the weights that this run has after them."""
        most = min(most, *(each.late["training.epochs"] for each in (self.own, other)))
        return next((epoch - 1 for epoch in range(1, most + 1) if self._difference(other, epoch)), most)

    def _difference(self, other: Record, epoch: int) -> str:
        """The key by which this run trains differently in an epoch; empty if there is none."""
        for key, acts in late_keys().items():
            now, then = (acts.in_epoch(each.late.get(key), epoch) for each in (self.own, other))
            if key in self.own.late and now != then:
                return key
        by_rate = {key for key, acts in late_keys().items() if acts is Acts.BY_RATE and self._differ(other, key)}
        if not by_rate or _rates(self.own, self.steps, epoch) == _rates(other, self.steps, epoch):
            return ""
        return min(by_rate, key=lambda key: (key == "training.epochs", key != "schedule.name"))

    def _differ(self, other: Record, key: str) -> bool:
        return self.own.late.get(key) != other.late.get(key)

    def why_not(self, other: Record) -> str:
        """Why this run cannot continue another one, which has more epochs than they share."""
        epoch = self.shared(other, other.epochs or 1) + 1
        key, run = self._difference(other, epoch), f"run {other.run[:8]}"
        if key == "training.epochs":
            choice = f"schedule={self.own.late['schedule.name']}"
            return f"{choice} stretches over all epochs, so {run} with {key}={other.late[key]} cannot be continued"
        now, then = (f"{key}={json.dumps(each.late.get(key)).strip(chr(34))}" for each in (self.own, other))
        return f"{now} acts from epoch {epoch} on, so {run} with {then} and {counted(other.epochs or 1, 'epoch')} cannot be continued"


def _read(file: Path) -> Record | None:
    try:
        text = file.read_text(encoding="utf-8")
        if hashlib.sha256(text[:-DIGEST].encode()).hexdigest() != text[-DIGEST:]:
            return None
        return Record(**json.loads(text[:-DIGEST]))
    except (OSError, ValueError, TypeError):  # damaged, deleted at this moment, or of another version
        return None


def _rates(record: Record, steps: int, epoch: int) -> bytes:
    return _digest_of_factors(record.schedule, record.late["training.epochs"], steps, epoch)


@functools.lru_cache(maxsize=10_000)
def _digest_of_factors(schedule: ScheduleSettings, epochs: int, steps: int, epoch: int) -> bytes:
    """SHA-256 over the factors of the learning rate in all steps of an epoch."""
    first = (epoch - 1) * steps
    factors = (factor(schedule, step, steps, epochs) for step in range(first, first + steps))
    return hashlib.sha256(array.array("d", factors).tobytes()).digest()
