"""A store in a SQLite file: created, locked by another process, or moved with its artifacts to another folder.

MLflow stores the absolute paths of artifacts. Each MLflow experiment has a tag with the path relative to the database; if
that is another place than the stored one, the project was moved or copied, and the stored paths are replaced.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import filelock
from sqlalchemy import Engine, event

from experiments.config import UserError
from experiments.config.defaults import default
from experiments.files.atomic import atomic_write
from experiments.runs.databases import database_address

TAG_ARTIFACTS = "artifacts"  # of an MLflow experiment: its folder, relative to that of the database
LOCK_SECONDS = 5.0  # SQLite itself waits as long for another process
DAMAGED = ("database disk image is malformed", "file is not a database", "malformed database schema")
REFUSED = {  # what SQLite says where the system refuses something
    "database or disk is full": errno.ENOSPC,
    "disk I/O error": errno.EIO,
    "attempt to write a readonly database": errno.EROFS,
    "unable to open database file": errno.EIO,  # or its journal
}
PATIENCE_SECONDS = 300.0  # as long as MLflow tries to reach a server
LOCATIONS = (
    *(("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location")),
    *(("model_versions", "source"), ("model_versions", "storage_location")),
)
log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


def waiting(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call again as long as another process has locked the database: MLflow has undone the call that failed."""
    end = time.monotonic() + PATIENCE_SECONDS
    said = False
    while True:
        try:
            return call(*args, **kwargs)
        except Exception as error:  # SQLite's, or MLflow's with the text of SQLite's
            if "database is locked" not in str(error) or time.monotonic() > end:
                raise
        if not said:
            log.warning("another process has locked MLflow's database; waiting for up to %.0f s", PATIENCE_SECONDS)
            said = True
        time.sleep(0.1)  # SQLite does not wait if two processes wait for each other


class WaitingClient:
    """An MLflow client each of whose calls is made with `waiting`.

    A UserError says that the database is damaged, an OSError that the system refuses to write it.
    """

    def __init__(self, client: Any, database: Path) -> None:
        self._client, self._database = client, database

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return waiting(method, *args, **kwargs)
            except Exception as error:  # SQLite's, or MLflow's with the text of SQLite's
                text = str(error)
                if refused := next((number for said, number in REFUSED.items() if said in text), None):
                    raise OSError(refused, os.strerror(refused), str(self._database)) from None
                if found := next((said for said in DAMAGED if said in text), None):
                    damaged = f"MLflow's database is damaged ({found}); restore a copy of it"
                    raise UserError(f"{self._database}: {damaged}") from None
                raise

        return call if callable(method) else method


@event.listens_for(Engine, "before_cursor_execute", retval=True)
def _lock_seconds(_c: Any, _k: Any, statement: str, parameters: Any, _x: Any, _m: bool) -> tuple[str, Any]:
    """MLflow sets the seconds that SQLite waits for a lock, 20, in each session; the user learns of it earlier."""
    return statement.replace("busy_timeout = 20000", f"busy_timeout = {LOCK_SECONDS * 1000:.0f}"), parameters


def create(database: Path, make_schema: Callable[[str], object]) -> None:
    """Create a SQLite store completely or not at all: its schema takes seconds, and other runs may start meanwhile.

    Args:
        make_schema: called with the address of an empty database.
    """
    if database.exists():
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(database.with_name(f".{database.name}.lock")):
        if database.exists():
            return
        with tempfile.TemporaryDirectory(prefix="mlflow-") as folder:
            complete = Path(folder) / "new.db"
            event.listen(Engine, "connect", _without_waiting)
            try:
                make_schema(database_address(complete))
            finally:
                event.remove(Engine, "connect", _without_waiting)
            with atomic_write(database) as file:
                file.write(complete.read_bytes())


def _without_waiting(connection: sqlite3.Connection, _: object) -> None:
    """Do not wait for the disk after each of a hundred migrations: the file is deleted if one fails."""
    connection.execute("PRAGMA synchronous=OFF")


def artifact_folder(name: str) -> str:
    """The name of the folder of an MLflow experiment: its own name if that is harmless, else one made from it."""
    harmless = re.sub(r"[^\w.-]", "_", name).lstrip(".")[:50]  # letters may have four bytes; a name has room for 255
    return name if harmless == name else f"{harmless}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def relative_place(location: str, database: Path) -> str:
    """The value of TAG_ARTIFACTS; absolute for a folder outside of the project, whose artifacts are not moved with it."""
    place = local_path(location)
    if place is None:
        return location
    inside = any(place.is_relative_to(project) for project in (database.parent, Path.cwd()))
    return Path(os.path.relpath(place, database.parent)).as_posix() if inside else str(place)


def relocate(database: Path) -> None:
    """Replace the paths of artifacts that were moved together with the database, and say so."""
    address = f"{database.absolute().as_uri()}?mode=rw"
    with contextlib.closing(
        sqlite3.connect(address, uri=True, timeout=LOCK_SECONDS, isolation_level=None)
    ) as connection:
        if not list(_moved(connection, database)):
            return
        connection.execute("BEGIN IMMEDIATE")
        moved = list(_moved(connection, database))  # again: another process may have done it
        for old, new in moved:
            for table, column in LOCATIONS:
                rows = connection.execute(f"SELECT rowid, {column} FROM {table}").fetchall()
                changes = [
                    (new + (text or "").removeprefix(old), row) for row, text in rows if _has_moved(text, old, new)
                ]
                connection.executemany(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", changes)
        connection.execute("COMMIT")
    folders = sorted({str(place.parent) for _, new in moved if (place := local_path(new))})
    if folders:
        log.warning("this project was moved or copied: artifacts are now in %s", ", ".join(folders))


def _has_moved(location: str | None, old: str, new: str) -> bool:
    """Whether a stored location is inside `old`, and its files are not only there: the database alone may be a copy."""
    if location is None or not location.startswith(f"{old}/"):
        return location == old
    here, there = local_path(new + location.removeprefix(old)), local_path(location)
    return here is not None and there is not None and (here.exists() or not there.exists())


def _moved(connection: sqlite3.Connection, database: Path) -> Iterator[tuple[str, str]]:
    """(stored location, actual one) of the experiments that were moved."""
    tags = f"LEFT JOIN experiment_tags t ON t.experiment_id = e.experiment_id AND t.key = '{TAG_ARTIFACTS}'"
    for number, location, tag in connection.execute(
        f"SELECT e.experiment_id, e.artifact_location, t.value FROM experiments e {tags}"
    ).fetchall():
        old = local_path(location)
        if old is None:
            continue
        runs = connection.execute("SELECT run_uuid FROM runs WHERE experiment_id = ?", (number,))
        new = (database.parent / tag) if tag else _search({run for (run,) in runs}, old, database.parent)
        if (place := os.path.normpath(new)) != str(old):
            yield location, Path(place).as_uri()


def _search(runs: set[str], old: Path, project: Path) -> Path:
    """The folder of the artifacts of an experiment without TAG_ARTIFACTS: of an earlier version, or made by MLflow."""
    if old.is_relative_to(project):
        return old
    for parts in range(1, len(old.parts)):
        place = project.joinpath(*old.parts[-parts:])
        if place.is_dir() and runs & {entry.name for entry in place.iterdir()}:
            return place
    gone = old.parent.name == default("tracking.artifacts") and not old.parent.parent.exists()
    return project / old.parent.name / old.name if gone else old


def local_path(location: str | None) -> Path | None:
    """The path in a location, which MLflow stores as an address or as a path; None if it is not local."""
    parts = urlsplit(location or "")
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return Path(location) if location and len(parts.scheme) < 2 else None  # C:\runs has the scheme of a drive
