"""Runs that are RUNNING in MLflow although nobody works on them: their process was killed, and no command continued them."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from experiments.runs import store

if TYPE_CHECKING:
    from mlflow import MlflowClient


def holder(folder: Path) -> str:
    """The value of the tag `TAG_HELD_BY` of a run that a process of this machine works on, with its lock in `folder`.

    The path is relative where it can be, because a project may be moved.
    """
    here, path = Path.cwd(), folder.resolve()
    return f"{socket.gethostname()}:{path.relative_to(here) if path.is_relative_to(here) else path}"


def close_abandoned(client: MlflowClient, experiment_id: str, parent: str | None) -> None:
    """Mark as KILLED the runs of this machine and multiruns whose lock no process holds. Where a lock is gone, nothing is known.

    The multirun `parent` and its runs are left alone: its workers, which may start at this moment, continue them.
    """
    here = f"{socket.gethostname()}:"
    running = f"attributes.status = '{store.RUNNING}' and tags.{store.TAG_HELD_BY} LIKE '{here}%'"
    for run in store.search_runs(client, [experiment_id], running):
        lock = Path(run.data.tags[store.TAG_HELD_BY].removeprefix(here)) / "lock"
        if not lock.exists() or (parent and parent in (run.info.run_id, run.data.tags.get(store.TAG_PARENT))):
            continue
        try:
            with filelock.FileLock(lock).acquire(timeout=0):  # nobody starts it meanwhile
                client.set_terminated(run.info.run_id, store.KILLED)
        except (filelock.Timeout, OSError):  # held, or of another user
            continue
