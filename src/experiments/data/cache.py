"""Decoded arrays on disk, made once and mapped into memory: all processes that use them share one copy."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

FORMAT = 1  # counts up where the same files are decoded to something else than before
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """Files as they are now: equal to those of an earlier look where none has come, gone or changed since.

    Attributes:
        states: the real path of each, its bytes, and when it was changed, in nanoseconds.
    """

    paths: tuple[Path, ...] = field(compare=False)
    states: tuple[tuple[str, int, int], ...]

    @classmethod
    def now(cls, paths: Iterable[Path]) -> Files:
        paths = tuple(paths)
        states = ((path, path.stat()) for path in paths)
        return cls(paths, tuple((str(path.resolve()), state.st_size, state.st_mtime_ns) for path, state in states))


def kept(
    cache: str, key: Sequence[object], names: Sequence[str], make: Callable[[], tuple[np.ndarray, ...]]
) -> tuple[np.ndarray, ...]:
    """The arrays called `names` of this key, mapped read-only from the folder `cache`; `make` makes what is not there.

    Processes that start together make them once: the others wait. Where the folder cannot be used they stay in memory.
    """
    folder = Path(cache).expanduser()
    digest = hashlib.sha256(repr((FORMAT, *key)).encode()).hexdigest()[:32]
    paths = [folder / f"{digest}-{name}.npy" for name in names]
    if found := _mapped(paths):
        return found
    import filelock  # only for the first use

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock").acquire()
    except OSError as error:
        return _unkept(folder, error, make())
    with lock:
        if found := _mapped(paths):
            return found
        arrays = make()
        try:
            for path, array in zip(paths, arrays):
                _write(path, array)
        except OSError as error:
            return _unkept(folder, error, arrays)
    return _mapped(paths) or arrays


def _mapped(paths: Sequence[Path]) -> tuple[np.ndarray, ...] | None:
    """The arrays in these files, or None where one is not there or is damaged."""
    try:
        return tuple(np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)) for path in paths)
    except Exception:  # for damaged files numpy raises nearly anything
        return None


def _write(path: Path, array: np.ndarray) -> None:
    """Write all of it or nothing; a part that a killed process left is written over by the next."""
    part = path.with_suffix(f".{socket.gethostname()}.part")  # a lock may not reach other machines on the same disk
    try:
        with part.open("wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())  # a file of the right size without its content would be taken for pictures
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _unkept(folder: Path, error: OSError, arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    reason = error.strerror or error
    log.warning("data.cache=%s: cannot be written to (%s); the pictures stay in memory", folder, reason)
    return arrays
