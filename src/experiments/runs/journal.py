"""What a run sends to an MLflow server, in its folder until the server has it.

A file of JSON lines: what the run is, then each thing to send in its order, and how many of them the server has. Lines are
only added, so a process that is killed loses nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.config.wording import counted
from experiments.files.atomic import atomic_write

NAME = "journal.jsonl"
MOST_METRICS = 1000  # that MLflow takes in one request
REPORT, MODEL, METRICS, STATUS = "the report", "the model", "the final metrics", "the status"
WHAT = {"file": REPORT, "model": MODEL, "model_file": MODEL, "model_ready": MODEL, "final": METRICS}
WHAT |= {"finish": STATUS, "close": STATUS, "running": STATUS}


class Entry(NamedTuple):
    """Something to send: the name of a method of `Delivery`, and its arguments."""

    kind: str
    content: dict[str, Any]


class Journal:
    """The entries of a run, in memory and in its folder.

    Attributes:
        run: what is known about the run without the server; see `Tracker`.
        entries: since the server and this machine knew the same.
        sent: how many of them the server has.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any]) -> None:
        self.path = folder / NAME
        self.run = dict(run)
        self.entries: list[Entry] = []
        self.sent = 0
        self._lock = threading.Lock()  # the thread that sends writes, too

    @classmethod
    def read(cls, folder: Path) -> Journal | None:
        """The journal that an earlier process has left in the folder of a run."""
        lines = list(_lines(folder / NAME))
        run = next((line["run"] for line in lines if "run" in line), None)
        if run is None:
            return None
        journal = cls(folder, run)
        for line in lines:
            if "send" in line:
                journal.entries.append(Entry(line["send"], line["content"]))
            journal.sent = line.get("sent", journal.sent)
        return journal

    def add(self, entry: Entry) -> None:
        """Add something to send."""
        with self._lock:
            self._write({"send": entry.kind, "content": entry.content})
            self.entries.append(entry)

    def mark_sent(self, count: int) -> None:
        """Note that the server has the next `count` entries."""
        with self._lock:
            self.sent += count
            with contextlib.suppress(OSError):  # a full disk: they are sent again, and stored once
                self._write({"sent": self.sent})

    def _write(self, line: Mapping[str, Any]) -> None:
        if not self.path.exists():  # the folder was deleted
            self.write()
        with self.path.open("ab", buffering=0) as file:
            file.write(f"\n{json.dumps(line)}\n".encode())  # after a line that was cut off, a new one begins
            os.fsync(file.fileno())

    def write(self) -> None:
        """Write the file, also if there is one."""
        lines = [{"run": self.run}, *({"send": kind, "content": content} for kind, content in self.entries)]
        with atomic_write(self.path) as file:
            file.write("\n".join(map(json.dumps, [*lines, {"sent": self.sent}])).encode())

    def next(self) -> tuple[Entry, int]:
        """What to send now, and how many entries that is: the metrics of many epochs go into one request."""
        first, *others = self.entries[self.sent :]
        if first.kind != "metrics":
            return first, 1
        rows, count = list(first.content["rows"]), 1
        for kind, content in others:
            if kind != "metrics" or len(rows) + len(content["rows"]) > MOST_METRICS:
                break
            rows, count = rows + content["rows"], count + 1
        return Entry("metrics", {"rows": rows}), count

    @property
    def pending(self) -> list[Entry]:
        """What the server does not have."""
        return self.entries[self.sent :]

    @property
    def unsent(self) -> str:
        """The same in words; empty if the server has everything."""
        kinds = [kind for kind, _ in self.pending]
        epochs = kinds.count("metrics")
        parts = [counted(epochs, "epoch")] if epochs else []
        return ", ".join(dict.fromkeys([*parts, *(WHAT[kind] for kind in WHAT if kind in kinds)])) or "tags" * bool(
            kinds
        )

    @property
    def epochs(self) -> set[int]:
        """The epochs whose metrics were sent, or wait."""
        rows = [row for kind, content in self.entries if kind == "metrics" for row in content["rows"]]
        return {*self.run["epochs"], *(step for _, _, _, step in rows)}

    @property
    def finished(self) -> bool:
        """Whether the run is finished, if not on the server then here."""
        return self.run["finished"] or any(kind == "finish" for kind, _ in self.entries)

    @property
    def results(self) -> dict[str, float]:
        """The final metrics of a finished run."""
        found: dict[str, float] = dict(self.run["results"])
        for kind, content in self.entries:
            found |= content["results"] if kind == "final" else {}
        return found

    def delete(self) -> None:
        """Delete the file: the server has everything, and the run is finished."""
        with self._lock:
            self.path.unlink(missing_ok=True)


def run_folder(folder: Path, run_id: str) -> Path:
    """Where a run has its files: runs of other MLflow experiments and stores may have its fingerprint, and files of their own."""
    return folder.with_name(f"{folder.name}-{run_id[:8]}")


def journal_of(folder: Path, uri: str, experiment: str) -> Journal | None:
    """The journal of the run with a fingerprint that was last worked on, in this MLflow experiment of this server."""
    files = sorted(folder.parent.glob(f"{folder.name}-*/{NAME}"), key=lambda file: file.stat().st_mtime, reverse=True)
    found = (Journal.read(file.parent) for file in files)
    return next(
        (each for each in found if each and (each.run["uri"], each.run["experiment"]) == (uri, experiment)), None
    )


def left_in(outputs: Path, run_ids: Container[str]) -> list[Journal]:
    """The journals of these runs that have something which the server lacks."""
    journals = (Journal.read(file.parent) for file in sorted(outputs.glob(f"runs/*/{NAME}")))
    return [each for each in journals if each and each.run["run_id"] in run_ids and each.pending]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a journal."""
    with contextlib.suppress(OSError):  # there is none
        for line in path.read_text("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError):  # empty, or cut off
                yield json.loads(line)


def milliseconds() -> int:
    """The time, as MLflow counts it."""
    return int(time.time() * 1000)
