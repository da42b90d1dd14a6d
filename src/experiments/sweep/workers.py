"""What the processes of a multirun share in its folder: their number of threads, and which of them are alive."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import filelock
from omegaconf import DictConfig

from experiments.files.atomic import atomic_write
from experiments.files.limits import RUNS_PER_GPU
from experiments.runs.lock import is_held

VISIBLE = "CUDA_VISIBLE_DEVICES"
_place: list[filelock.BaseFileLock] = []  # that this process has taken, until it ends


def common_threads(folder: Path, own: Callable[[], int]) -> int:
    """The CPU threads of every point of a multirun: `own()` of the first one, because the last bits depend on them."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "threads"
    with filelock.FileLock(folder / "threads.lock"):
        if not file.exists():
            with atomic_write(file) as written:
                written.write(str(own()).encode())
        return int(file.read_text())


@contextlib.contextmanager
def worker_heartbeat(folder: Path) -> Iterator[str]:
    """The name of a new worker of a search, `host/file`; the file in `folder` is locked as long as the worker runs.

    The system releases the lock when the process ends or is killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{uuid.uuid4().hex[:12]}.worker"
    with filelock.FileLock(file):
        try:
            yield f"{socket.gethostname()}/{file.name}"
        finally:
            file.unlink(missing_ok=True)


def is_alive(file: Path) -> bool:
    """Whether the worker that locked `file` still runs on this machine; removes the file of one that does not."""
    if is_held(file):
        return True
    file.unlink(missing_ok=True)
    return False


def any_alive(folder: Path) -> bool:
    """Whether any worker runs on this machine."""
    return any(is_alive(file) for file in folder.glob("*.worker"))


def is_stale(worker: str, claimed: datetime | None, folder: Path, others: bool) -> bool:
    """Whether the worker that claimed a trial has died; `others`: other machines may take part."""
    host, _, file = worker.partition("/")
    if host == socket.gethostname():
        return not is_alive(folder / file)
    if host:
        return not others
    # it has not written its name: it will do so soon, or it died
    return claimed is None or datetime.now() - claimed > timedelta(seconds=30) or not any_alive(folder)


def effective_jobs(jobs: int) -> int:
    """The number of jobs that joblib means: -1 are as many as there are cores."""
    if jobs > 0:
        return jobs
    import joblib  # 0.2 s

    found: int = joblib.effective_n_jobs(jobs)
    return found


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: by number or by UUID."""
    if (listed := os.environ.get(VISIBLE)) is not None:
        names = (name.strip() for name in listed.split(","))
        return list(itertools.takewhile(lambda name: name not in ("", "-1"), names))  # CUDA ignores what follows
    import torch  # takes seconds

    return [str(number) for number in range(torch.cuda.device_count())]


def gpu_environment(gpus: Sequence[str], workers: int, worker: int) -> dict[str, str]:
    """The environment of one of several workers, counted from 0: its GPU, and how many workers share it."""
    place = worker % len(gpus)
    return {VISIBLE: gpus[place], RUNS_PER_GPU: str(len(range(place, max(workers, worker + 1), len(gpus))))}


def describe_gpus(gpus: int, workers: int) -> str:
    """What runs that are trained at the same time share, in words; empty if each has a GPU of its own."""
    if not 0 < gpus < workers:
        return ""
    where = "the GPU" if gpus == 1 else f"each of {gpus} GPUs"
    return f"up to {-(-workers // gpus)} runs at the same time on {where}, each with its own copy of the images there"


@dataclass(frozen=True)
class OnGpu:
    """A job for one of several workers of this machine, each of which has one of its GPUs.

    Attributes:
        folder: of the multirun.
    """

    job: Callable[[DictConfig], Any]
    folder: Path
    gpus: tuple[str, ...]
    workers: int

    def __call__(self, composed: DictConfig) -> Any:
        if not _place:  # the first job of this process: CUDA reads the environment when it starts
            os.environ |= gpu_environment(self.gpus, self.workers, _take_place(self.folder))
        return self.job(composed)


def _take_place(folder: Path) -> int:
    """The first place, counted from 0, that no other worker of this machine has; it becomes free when this process ends."""
    for place in itertools.count():
        with contextlib.suppress(filelock.Timeout):
            lock = filelock.FileLock(folder / f"{socket.gethostname()}-{place}.place", thread_local=False)
            lock.acquire(timeout=0)
            _place.append(lock)
            return place
    raise AssertionError
