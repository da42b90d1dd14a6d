"""Decoded arrays on disk, made once and mapped into memory, so that all processes that use them share one copy."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from experiments.files.atomic import atomic_write

FORMAT = 1  # increased when the same files are decoded to different arrays than before
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """The state of some files: equal to an earlier one if no file was added, removed or changed since.

    Attributes:
        digest: SHA-256 over the real path, size and time of change of each file; only this is compared, so that a
            million files cost no more than one.
    """

    paths: tuple[str, ...] = field(compare=False)
    digest: str

    @classmethod
    def snapshot(cls, paths: Iterable[Path | str]) -> Files:
        """The state of these files now."""
        names = tuple(str(path) for path in paths)
        digest = hashlib.sha256()
        real = functools.cache(os.path.realpath)  # once per folder, because it looks up every part of a path
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
    """A uint8 array that is made chunk by chunk, so that memory need not hold all of it."""

    shape: tuple[int, ...]
    chunks: Iterator[np.ndarray]

    def joined(self) -> np.ndarray:
        array = np.empty(self.shape, dtype=np.uint8)
        start = 0
        for chunk in self.chunks:
            array[start : start + len(chunk)] = chunk
            start += len(chunk)
        return array


def cached(
    cache: str, key: Sequence[object], names: Sequence[str], make: Callable[[], tuple[np.ndarray | Chunks, ...]]
) -> tuple[np.ndarray, ...]:
    """The arrays `names` of this key, mapped read-only from the folder `cache`; `make` makes those that are missing.

    If several processes start together, one makes them and the others wait. If the folder cannot be written to, the arrays
    stay in memory.
    """
    folder = Path(cache).expanduser()
    digest = hashlib.sha256(repr((FORMAT, *key)).encode()).hexdigest()[:32]
    paths = [folder / f"{digest}-{name}.npy" for name in names]
    if arrays := _mapped(paths):
        return arrays
    import filelock  # only needed for the first use

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock").acquire()
    except OSError as error:
        return _uncached(folder, error, make())
    with lock:
        if arrays := _mapped(paths):
            return arrays
        try:
            for path, array in zip(paths, make()):
                _write(path, array)
        except OSError as error:
            return _uncached(folder, error, make())
    arrays = _mapped(paths)
    assert arrays, paths
    return arrays


def _mapped(paths: Sequence[Path]) -> tuple[np.ndarray, ...] | None:
    """The arrays in these files, or None if one of them is missing or damaged."""
    try:
        return tuple(np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)) for path in paths)
    except Exception:  # for damaged files numpy raises nearly anything
        return None


def _write(path: Path, array: np.ndarray | Chunks) -> None:
    with atomic_write(path) as file:
        if isinstance(array, Chunks):
            header = {"descr": "|u1", "fortran_order": False, "shape": array.shape}
            np.lib.format.write_array_header_1_0(file, header)
            for chunk in array.chunks:
                file.write(chunk.data)
        else:
            np.save(file, array, allow_pickle=False)


def _uncached(folder: Path, error: OSError, made: Iterable[np.ndarray | Chunks]) -> tuple[np.ndarray, ...]:
    reason = error.strerror or error
    log.warning("data.cache=%s: cannot be written to (%s); the images stay in memory", folder, reason)
    return tuple(array.joined() if isinstance(array, Chunks) else array for array in made)
