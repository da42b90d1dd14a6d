"""What the processes of a multirun share in its folder: their number of threads, and which of them are alive."""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import filelock

from experiments.files.atomic import atomic_write
from experiments.runs.lock import is_held


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
    try:
        with filelock.FileLock(file):
            yield f"{socket.gethostname()}/{file.name}"
    finally:
        _delete(file)


def is_alive(file: Path) -> bool:
    """Whether the worker that locked `file` still runs on this machine; removes the file of one that does not."""
    if is_held(file):
        return True
    _delete(file)
    return False


def _delete(file: Path) -> None:
    with contextlib.suppress(OSError):  # Windows deletes no file that another process looks at
        file.unlink(missing_ok=True)


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
