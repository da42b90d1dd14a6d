"""What makes two runs the same run, and who is at work on it.

A run is what determines its result: the configuration, the data, and the source code that computes with them.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from experiments import models
from experiments.config import Config, UserError
from experiments.provenance import masked

PACKAGE = Path(__file__).parent
DECISIVE = (
    "data",
    "models",
    "evaluation.py",
    "learning.py",
    "optimization.py",
    "schedules.py",
    "training.py",
)  # a change in these may change the numbers


def fingerprint(config: Config, device: str, data_digest: str) -> str:
    """64 hexadecimal digits that two runs share if, and only if, they must give the same numbers.

    Left out is what cannot change the result: where things lie, where they are logged, what is done when training is
    over, and all of the data's keys but the normalisation, because the digest stands for the images and their split.
    """
    settings = config.to_dict()
    for key in ("resume", "outputs", "evaluate_test", "tracking", "sweep"):
        del settings[key]
    settings["device"] = device
    settings["data"] = {key: settings["data"][key] for key in ("mean", "std")}
    content = {"settings": settings, "data": data_digest, "sources": _sources(config.model.target)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sources(target: str) -> dict[str, str]:
    """SHA-256 of each decisive source file, and of the file of a network of one's own; comments and layout do not count."""
    files = {path for name in DECISIVE for path in [PACKAGE / name, *(PACKAGE / name).rglob("*.py")] if path.is_file()}
    named = {path.relative_to(PACKAGE).as_posix(): path for path in files}
    own = models.source_file(target)
    if own is not None and own not in files:
        named[target] = own
    return {
        name: hashlib.sha256(ast.unparse(ast.parse(path.read_bytes())).encode()).hexdigest()
        for name, path in sorted(named.items())
    }


@contextlib.contextmanager
def hold(folder: Path, what: str = "run", advice: str = "wait for it, or change seed=...") -> Iterator[Path]:
    """The folder of a run, for this process alone; the system lets go of it when the process ends, however it ends.

    Raises:
        UserError: saying who holds it, where another process does, and giving the advice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / "holder.json"
    try:
        lock = filelock.FileLock(folder / "lock").acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"this {what} is already under way{_describe(holder)}; {advice}") from None
    with lock:
        content = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        holder.write_text(json.dumps({**content, "command": [masked(word) for word in sys.argv]}))
        yield folder


def _describe(holder: Path) -> str:
    try:
        who: dict[str, Any] = json.loads(holder.read_text())
        return f": process {who['pid']} on {who['host']} holds it since {who['since']}"
    except (OSError, ValueError, KeyError):  # written a moment ago, or being written now
        return ""
