"""Contenders take turns, each in a fresh process and never two at once; what they tell is kept in a JSON file."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.config import UserError

NEEDS = {"ours": (), "plain": (), "lightning": ("lightning",), "keras": ("keras", "tensorflow")}
PROGRAMS = {"ours": "ours.py", "plain": "plain.py", "lightning": "with_lightning.py", "keras": "with_keras.py"}
GUESS = {"ours": 0.45, "plain": 0.2, "lightning": 0.1, "keras": 0.3}  # share of the peak, for the time that is foretold
START = 15  # seconds of a process beside its epochs; a guess, too


@dataclass(frozen=True)
class Setting:
    """What is compared; `images` train and `validation` of them validate, `epochs` are measured after one more."""

    root: str
    contenders: tuple[str, ...]
    batch: int
    precision: str
    epochs: int = 3
    rounds: int = 3
    images: int = 40_000
    validation: int = 10_000
    threads: int | None = None
    device: str = "cpu"
    overrides: tuple[str, ...] = ()

    def key(self, code: str) -> dict[str, Any]:
        """By what results are found again: all but how many were asked for."""
        kept = {name: value for name, value in dataclasses.asdict(self).items() if name not in ("contenders", "rounds")}
        return {**kept, "overrides": list(self.overrides), "code": code}


@dataclass(frozen=True)
class Outcome:
    """One process. `seconds` are those of each epoch, from end to end; `peak_bytes` what it held at most."""

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
    """Of one setting, the outcomes so far, the matrix peak (FLOP/s) of each round, and the FLOP of a picture."""

    key: dict[str, Any]
    outcomes: list[Outcome]
    peaks: list[float]
    flops: dict[str, dict[str, float]]

    def of(self, contender: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.contender == contender and not outcome.error]


class Contest:
    """Runs settings; with a `file`, what is there already is not run again.

    Args:
        programs: the folder that holds the contenders.
        file: the JSON file; None keeps nothing.
        pythons: the interpreter of a contender, where it is not this one.
    """

    def __init__(self, programs: Path, file: Path | None, pythons: Mapping[str, str]) -> None:
        self.programs, self.file, self.pythons = programs, file, pythons
        self.code = _code(programs)
        # A contender's second process finds its store there.
        self.folder = tempfile.TemporaryDirectory(prefix="benchmark-")
        self.kept: list[Results] = []
        if file is not None and file.exists():
            try:
                content = json.loads(file.read_text())["results"]
                self.kept = [
                    Results(**{**one, "outcomes": [Outcome(**each) for each in one["outcomes"]]}) for one in content
                ]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"--json {file}: not a file that this script wrote ({error})") from None

    def results(self, setting: Setting) -> Results:
        """What is known of a setting so far."""
        key = setting.key(self.code)
        for known in self.kept:
            if known.key == key:
                return known
        self.kept.append(Results(key, [], [], {}))
        return self.kept[-1]

    def missing(self, setting: Setting) -> list[tuple[int, str]]:
        """(round, contender) still to run, in their order."""
        done = {(outcome.round, outcome.contender) for outcome in self.results(setting).outcomes if not outcome.error}
        turns = [(number, name) for number in range(1, setting.rounds + 1) for name in setting.contenders]
        return [turn for turn in turns if turn not in done]

    def minutes(self, setting: Setting) -> float:
        """How long `run` will take, roughly; the peak has to be known."""
        results = self.results(setting)
        seconds = 0.0
        for _, name in self.missing(setting):
            known = [second for outcome in results.of(name) for second in outcome.seconds]
            epoch = min(known) if known else self._work(setting, name) / (max(results.peaks) * GUESS[name])
            seconds += START + (setting.epochs + 1) * epoch
        return seconds / 60

    def _work(self, setting: Setting, name: str) -> float:
        """FLOP of an epoch."""
        flops = self.results(setting).flops["ours" if name == "ours" else "others"]
        return setting.images * flops["training"] + setting.validation * flops["forward"]

    def shares(self, setting: Setting, name: str, seconds: float) -> float:
        """Of the matrix peak, what an epoch in `seconds` is."""
        return self._work(setting, name) / seconds / max(self.results(setting).peaks)

    def measure_peak(self, setting: Setting) -> None:
        """The largest rate of a matrix product right now, and the FLOP of a picture where they are not known."""
        results = self.results(setting)
        told, _ = self._process("peak.py", setting, sys.executable)
        results.peaks.append(told["peak"])
        results.flops = told["flops"]
        self._write()

    def run(self, setting: Setting) -> Iterator[Outcome]:
        """Each outcome as it comes; a contender that fails is told of, and the others go on."""
        results, measured = self.results(setting), 1
        for number, name in self.missing(setting):
            if number > measured:  # the machine's speed changes with its neighbours: once a round
                self.measure_peak(setting)
                measured = number
            python = self.pythons.get(name, sys.executable)
            try:
                told, peak = self._process(PROGRAMS[name], setting, python)
                outcome = Outcome(name, number, **told, peak_bytes=peak)
            except Failed as failure:
                outcome = Outcome(name, number, error=str(failure))
            results.outcomes = [o for o in results.outcomes if (o.round, o.contender) != (number, name)] + [outcome]
            self._write()
            yield outcome

    def _process(self, program: str, setting: Setting, python: str) -> tuple[dict[str, Any], int]:
        """What the program says in its last line, and the most bytes that it held."""
        folder = Path(self.folder.name) / program.removesuffix(".py")
        folder.mkdir(exist_ok=True)
        asked = {**dataclasses.asdict(setting), "epochs": setting.epochs + 1, "folder": str(folder)}
        del asked["contenders"], asked["rounds"]
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            command = [python, str(self.programs / program), json.dumps({"started": time.time(), **asked})]
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
            printed, complaints = out.read().strip().splitlines(), err.read().strip().splitlines()
        if process.returncode:
            raise Failed(next(reversed(complaints), f"exit code {process.returncode}"))
        return json.loads(printed[-1]), usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def _write(self) -> None:
        if self.file is None:
            return
        content = {"machine": machine(), "results": [dataclasses.asdict(one) for one in self.kept]}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".part")
        partial.write_text(json.dumps(content, indent=1))
        partial.replace(self.file)


class Failed(RuntimeError):
    """A contender came to no end; the last line that it wrote."""


def installed(contenders: Sequence[str], pythons: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """(those that can run, a line for each that cannot)."""
    can, lines = [], []
    for name in contenders:
        lacking = [module for module in NEEDS[name] if importlib.util.find_spec(module) is None]
        if lacking and name not in pythons:
            lines.append(f"{name} is left out: {', '.join(lacking)} not installed; pip install -e '.[benchmark]'")
        else:
            can.append(name)
    return can, lines


def machine() -> dict[str, Any]:
    """Where this was measured."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, TypeError):
        name = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]  # type: ignore[index]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": name, "cores": cores, "system": platform.platform(), "python": platform.python_version()}


def _code(programs: Path) -> str:
    """Changes with whatever is measured: results of other code are not taken for those of this."""
    package = Path(__file__).parents[1]
    checkout = package.parents[1]
    files = [
        *package.rglob("*.py"),
        *package.rglob("*.c"),
        *programs.glob("*.py"),
        *checkout.glob("train.py"),
        *(checkout / "conf").rglob("*.yaml"),
    ]
    digest = hashlib.sha256()
    for file in sorted(file for file in files if file.parent != Path(__file__).parent):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
