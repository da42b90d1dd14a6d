"""Measure contenders in turn, each in a fresh process and never two at once; results are saved in a JSON file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from settings import CONTENDERS, PROGRAMS, ROOT, Setting

import experiments
from experiments.config import UserError
from experiments.files.atomic import atomic_write
from experiments.files.limits import usable_cpus

START_SECONDS = 15  # of a process, besides its epochs; only the time estimate uses it


@dataclass(frozen=True)
class Outcome:
    """One process.

    Attributes:
        seconds: of each epoch, from the end of the epoch before to its own end.
        first_step: seconds from the start of the process to the end of its first training step.
        accuracies: on the validation images, after each epoch, the warm-up epoch included.
        peak_bytes: the largest memory that the process used.
        error: why it failed; empty if it did not.
    """

    contender: str
    round: int
    seconds: tuple[float, ...] = ()
    first_step: float = 0.0
    accuracies: tuple[float, ...] = ()
    peak_bytes: int = 0
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    error: str = ""


@dataclass
class Results:
    """The outcomes of one setting so far, the matrix peak (FLOP/s) of each round, and the FLOP per image."""

    key: dict[str, Any]
    outcomes: list[Outcome]
    peaks: list[float]
    flops: dict[str, dict[str, float]]

    def of(self, contender: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.contender == contender and not outcome.error]

    def seconds(self, contender: str) -> list[float]:
        """The seconds of every epoch in every process."""
        return [second for outcome in self.of(contender) for second in outcome.seconds]

    def fraction_of_peak(self, contender: str) -> float:
        """The FLOP/s of the median epoch, as a fraction of the matrix peak."""
        return self._flops_per_epoch(contender) / median(self.seconds(contender)) / max(self.peaks)

    def estimated_seconds(self, contender: str) -> float:
        """A rough estimate for the next process; the peak must have been measured."""
        known = self.seconds(contender)
        rate = max(self.peaks) * CONTENDERS[contender].estimate
        epoch = min(known) if known else self._flops_per_epoch(contender) / rate
        return START_SECONDS + (self.key["epochs"] + 1) * epoch

    def _flops_per_epoch(self, contender: str) -> float:
        flops = self.flops["ours" if contender == "ours" else "others"]
        return self.key["images"] * flops["training"] + self.key["validation"] * flops["forward"]


class Failed(RuntimeError):
    """A contender failed; the message is the last line of its standard error."""


class Benchmark:
    """Measures settings; a process whose outcome is in the file is not run again.

    Args:
        file: the JSON file; if None, nothing is saved.
        pythons: the interpreters of contenders that do not run in this one.
        programs: the folder of the contenders.

    Raises:
        UserError: the file is not one that this class wrote, or this is Windows.
    """

    def __init__(self, file: Path | None, pythons: Mapping[str, str], programs: Path = PROGRAMS) -> None:
        if sys.platform == "win32":
            raise UserError(
                "this script needs Linux or macOS: Windows does not tell how much memory a process has used"
            )
        self.file, self.pythons, self.programs = file, pythons, programs
        self.code = _code(programs)
        # A contender's second process finds its MLflow store here.
        self.folder = tempfile.TemporaryDirectory(prefix="benchmark-")
        self.saved: list[Results] = []
        if file is not None and file.exists():
            try:
                content = json.loads(file.read_text(encoding="utf-8"))["results"]
                self.saved = [
                    Results(**{**one, "outcomes": [Outcome(**each) for each in one["outcomes"]]}) for one in content
                ]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"--json {file}: not a file that this script wrote ({error})") from None

    def results(self, setting: Setting) -> Results:
        """The results of a setting so far."""
        key = {**setting.request(), "code": self.code}
        for results in self.saved:
            if results.key == key:
                return results
        self.saved.append(Results(key, [], [], {}))
        return self.saved[-1]

    def missing(self, setting: Setting) -> list[tuple[int, str]]:
        """(round, contender) of the processes still to run, in their order."""
        done = {(outcome.round, outcome.contender) for outcome in self.results(setting).outcomes if not outcome.error}
        turns = [(number, name) for number in range(1, setting.rounds + 1) for name in setting.contenders]
        return [turn for turn in turns if turn not in done]

    def measure_peak(self, setting: Setting) -> None:
        """Measure the fastest matrix product now, and count the FLOP per image."""
        results = self.results(setting)
        report, _ = self._process("peak.py", setting, sys.executable)
        results.peaks.append(report["peak"])
        results.flops = report["flops"]
        self._save()

    def run(self, setting: Setting) -> Iterator[Outcome]:
        """Yield each outcome as soon as it is measured; if a contender fails, the others still run."""
        results, measured = self.results(setting), 1
        for number, name in self.missing(setting):
            if number > measured:  # once per round, because the speed of a shared machine changes
                self.measure_peak(setting)
                measured = number
            try:
                python = self.pythons.get(name, sys.executable)
                report, peak_bytes = self._process(CONTENDERS[name].program, setting, python)
                outcome = Outcome(name, number, **report, peak_bytes=peak_bytes)
            except Failed as failure:
                outcome = Outcome(name, number, error=str(failure))
            results.outcomes = [o for o in results.outcomes if (o.round, o.contender) != (number, name)] + [outcome]
            self._save()
            yield outcome

    def _process(self, program: str, setting: Setting, python: str) -> tuple[dict[str, Any], int]:
        """The last line that the program prints, which is JSON, and the largest memory that it used, in bytes.

        Linux also counts the memory of this process, which is always less, as that of the new one.
        """
        folder = Path(self.folder.name) / program.removesuffix(".py")
        folder.mkdir(exist_ok=True)
        request = {**setting.request(), "epochs": setting.epochs + 1, "folder": str(folder), "started": time.time()}
        command = [python, str(self.programs / program), json.dumps(request)]
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as out,
            tempfile.TemporaryFile("w+", encoding="utf-8") as err,
        ):
            process = subprocess.Popen(command, stdout=out, stderr=err)
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                process.kill()
                process.wait()
                raise
            process.returncode = os.waitstatus_to_exitcode(status)
            for stream in (out, err):
                stream.seek(0)
            printed, errors = out.read().strip().splitlines(), err.read().strip().splitlines()
        if process.returncode:
            raise Failed(next(reversed(errors), f"exit code {process.returncode}"))
        return json.loads(printed[-1]), usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def _save(self) -> None:
        if self.file is None:
            return
        content = {"machine": machine(), "results": [dataclasses.asdict(one) for one in self.saved]}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.file) as file:
            file.write(json.dumps(content, indent=1).encode())


def machine() -> dict[str, Any]:
    """The machine that measures."""
    from experiments.runs.provenance import processor  # imports torch, which --help does not need

    return {
        "processor": processor(),
        "cores": usable_cpus(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _code(programs: Path) -> str:
    """A digest of all code and configuration that is measured, so that results of other code are not used."""
    package = Path(experiments.__file__).parent
    files = [
        *package.rglob("*.py"),
        *package.rglob("*.c"),
        *programs.glob("*.py"),
        ROOT / "train.py",
        *(ROOT / "conf").rglob("*.yaml"),
    ]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
