"""Commands as processes: started from this one, which has imported everything, and killed from outside or at a moment.

A forked process has done nothing but the imports, as `python train.py` after its first seconds. Kills hit the work then,
and not the imports. Commands of torchrun are started as a user starts them.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hydra.core.plugins import Plugins
from PIL import Image

from campaigns.moments import Moments
from campaigns.works import TRAIN, Work

SLOW: tuple[str, ...] = (
    "torch._dynamo",
    "mlflow.pytorch",
    "sklearn.datasets",
    "experiments.experiment",
    "experiments.runs.tracker",
)
SLOW += ("experiments.sweep.search", "experiments.comparison.page", "mlflow.store.tracking.sqlalchemy_store")
SLOW += (
    "cryptography.fernet",
    "alembic.command",
    "torch.export",
    "experiments.runs.export",
    "experiments.reports.report",
)
OUTPUT = "output.txt"  # of the last command, in its folder
LONGEST = 1000  # seconds of one command: the machine may be busy


def import_all() -> None:
    """Import what a command imports, before it is copied again and again."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in SLOW:
        importlib.import_module(name)
    Plugins.instance()  # searches all packages for plugins
    Image.init()
    gc.freeze()  # else a collection in a forked process copies all pages


def run(work: Work, folder: Path, moments: Moments | None = None, after: float | None = None) -> int | None:
    """Run the command in `folder`; returns its exit code, negative for a signal.

    Args:
        moments: watched in the process, which may end at one of them; not of torchrun.
        after: seconds after which its process group is killed: of the processor, which do not depend on what else the
            machine does, but of the clock with torchrun.
    """
    sys.stdout.flush()
    if work.processes > 1:
        return _run_program(work, folder, after)
    process = multiprocessing.get_context("fork").Process(target=_typed, args=(work, folder, moments))
    process.start()
    assert process.pid
    until = time.monotonic() + LONGEST
    while process.exitcode is None and time.monotonic() < until and (not after or _used(process.pid) < after):
        process.join(0.01 if after else LONGEST)
    if process.exitcode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it is not yet so far that it leads a group
            process.kill()
        process.join()
    return process.exitcode


def _used(pid: int) -> float:
    """Seconds of the processor that a process has used since it was forked."""
    words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def used_by_ended() -> float:
    """Seconds of the processor that the processes which have ended have used."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def call(function: Callable[..., object], *arguments: object) -> None:
    """Call a function in a process of its own: this one stays as it is after the imports."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0, function


def _typed(work: Work, folder: Path, moments: Moments | None) -> None:
    """The body of a process: `python train.py ...` in `folder`, leading a process group; its output is in OUTPUT."""
    os.setsid()
    os.chdir(folder)
    file = os.open(folder / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = [str(TRAIN), *work.arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if moments:
        moments.watch()
    runpy.run_path(str(TRAIN), run_name="__main__")


def _run_program(work: Work, folder: Path, after: float | None) -> int | None:
    with (folder / OUTPUT).open("w") as output:
        process = subprocess.Popen(work.command(), cwd=folder, stdout=output, stderr=output, start_new_session=True)
        try:
            return process.wait(after or LONGEST)
        except subprocess.TimeoutExpired:
            _kill_all(process.pid)
            return process.wait()


def _kill_all(leader: int) -> None:
    """Kill a session: torchrun starts each of its processes in a group of its own."""
    groups = subprocess.run(["ps", "-o", "pid=", "--sid", str(leader)], capture_output=True, text=True).stdout.split()
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(leader)], capture_output=True, text=True
    ).stdout.split()
    for pid in {leader, *map(int, groups), *map(int, children)}:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            time.sleep(0)
