"""Decoded arrays on disk, made once and mapped into memory: all processes that use them share one copy."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

FORMAT = 1  # counts up where the same files are decoded to something else than before
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """Files as they are now: equal to those of an earlier look where none has come, gone or changed since.

    Attributes:
        states: SHA-256 over the real path of each, its bytes, and when it was changed: of a million files, all that is
            compared and kept.
    """

    paths: tuple[str, ...] = field(compare=False)
    states: str

    @classmethod
    def now(cls, paths: Iterable[Path | str]) -> Files:
        names = tuple(str(path) for path in paths)
        digest = hashlib.sha256()
        real = functools.cache(os.path.realpath)  # once a folder: it looks at every part of a path
        for name in names:
            state = os.lstat(name)
            if stat.S_ISLNK(state.st_mode):
                place, state = (real(name), ""), Path(name).stat()
            else:
                folder, last = os.path.split(name)
                place = (real(folder), last)
            digest.update(repr((place, state.st_size, state.st_mtime_ns)).encode())
        return cls(names, digest.hexdigest())


@dataclass(frozen=True)
class Chunks:
    """A uint8 array that is made piece after piece, so that there need never be all of it in memory."""

    shape: tuple[int, ...]
    pieces: Iterator[np.ndarray]

    def joined(self) -> np.ndarray:
        array = np.empty(self.shape, dtype=np.uint8)
        start = 0
        for piece in self.pieces:
            array[start : start + len(piece)] = piece
            start += len(piece)
        return array


def cached(
    cache: str, key: Sequence[object], names: Sequence[str], make: Callable[[], tuple[np.ndarray | Chunks, ...]]
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
        return _uncached(folder, error, make())
    with lock:
        if found := _mapped(paths):
            return found
        try:
            for path, array in zip(paths, make()):
                _write(path, array)
        except OSError as error:
            return _uncached(folder, error, make())
    found = _mapped(paths)
    assert found, paths
    return found


def _mapped(paths: Sequence[Path]) -> tuple[np.ndarray, ...] | None:
    """The arrays in these files, or None where one is not there or is damaged."""
    try:
        return tuple(np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)) for path in paths)
    except Exception:  # for damaged files numpy raises nearly anything
        return None


def _write(path: Path, array: np.ndarray | Chunks) -> None:
    """Write all of it or nothing; a part that a killed process left is written over by the next."""
    part = path.with_suffix(f".{socket.gethostname()}.part")  # a lock may not reach other machines on the same disk
    try:
        with part.open("wb") as file:
            if isinstance(array, Chunks):
                header = {"descr": "|u1", "fortran_order": False, "shape": array.shape}
                np.lib.format.write_array_header_1_0(file, header)
                for piece in array.pieces:
                    file.write(piece.data)
            else:
                np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())  # a file of the right size without its content would be taken for pictures
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _uncached(folder: Path, error: OSError, made: Iterable[np.ndarray | Chunks]) -> tuple[np.ndarray, ...]:
    reason = error.strerror or error
    log.warning("data.cache=%s: cannot be written to (%s); the pictures stay in memory", folder, reason)
    return tuple(array.joined() if isinstance(array, Chunks) else array for array in made)
