"""Decoded arrays on disk, made once and mapped into memory, so that all processes that use them share one copy."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from experiments.files.verified import Chunks, VerifiedFile, open_verified, write

FORMAT = 2  # increased when the same files are decoded to different arrays than before
LARGE = 1 << 30  # bytes; a larger file is verified as it is read
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """The state of some files: equal to an earlier one if no file was added, removed or changed since.

    Attributes:
        digest: SHA-256 over the real path, inode, size and both times of change of each file (that of its content can be
            set by anyone); only this is compared, so that a million files cost no more than one.
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
            known = (place, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
            digest.update(repr(known).encode())
        return cls(names, digest.hexdigest())


class Cached:
    """An array in memory, or in a file of the cache that is mapped into memory.

    Attributes:
        array: of a file above `LARGE`, only what `verified` returned is known to be undamaged.
    """

    def __init__(self, array: np.ndarray, file: VerifiedFile | None = None, again: Callable[[], Cached] | None = None):
        self.array = array
        self._file, self._again = file, again
        self._lock = threading.Lock()

    def verified(self, rows: np.ndarray) -> np.ndarray:
        """The array, with these rows verified; if they are damaged, the file is made again."""
        if self._file is not None and self._again is not None:
            with self._lock:
                try:
                    self._file.verify(rows)
                except ValueError:
                    made = self._again()
                    self.array, self._file = made.array, made._file
                    if self._file is not None:
                        self._file.verify(rows)
        return self.array


def cached(
    cache: str, key: Sequence[object], names: Sequence[str], make: Callable[[], tuple[np.ndarray | Chunks, ...]]
) -> tuple[Cached, ...]:
    """The arrays `names` of this key, mapped read-only from the folder `cache`; `make` makes those that are missing.

    Every file is verified before it is used, above `LARGE` as it is read; a damaged one is made again. If several processes
    start together, one makes the files and the others wait. If the folder cannot be written to, the arrays stay in memory.
    """
    folder = Path(os.path.expanduser(cache))  # noqa: PTH111 - that of Path raises an error for an unknown user
    digest = hashlib.sha256(repr((FORMAT, *key)).encode()).hexdigest()[:32]
    paths = [folder / f"{digest}-{name}.npy" for name in names]

    def again(index: int) -> Cached:
        try:
            _discard(paths[index])
        except OSError as error:
            return _uncached(folder, error, make())[index]
        return cached(cache, key, names, make)[index]

    def opened() -> tuple[Cached, ...] | None:
        files = [file for path in paths if (file := _opened(path))]
        if len(files) < len(paths):
            return None
        return tuple(Cached(file.array, file, functools.partial(again, index)) for index, file in enumerate(files))

    if arrays := opened():
        return arrays
    import filelock  # only needed for the first use

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock").acquire()
    except OSError as error:
        return _uncached(folder, error, make())
    with lock:
        if arrays := opened():
            return arrays
        try:
            for path, array in zip(paths, make()):
                if path.exists() and not _opened(path):
                    _discard(path)
                write(path, array)
        except OSError as error:
            return _uncached(folder, error, make())
    return opened() or _uncached(folder, OSError("what is written there is damaged"), make())


def _opened(path: Path) -> VerifiedFile | None:
    """The file, or None if it is missing or damaged."""
    try:
        state = path.stat()
        return open_verified(path, (state.st_ino, state.st_ctime_ns, state.st_size), state.st_size <= LARGE)
    except Exception:  # for damaged files NumPy raises nearly anything
        return None


def _discard(path: Path) -> None:
    log.warning("%s: the cached images are damaged and are made again", path)
    path.unlink(missing_ok=True)


def _uncached(folder: Path, error: OSError, made: Iterable[np.ndarray | Chunks]) -> tuple[Cached, ...]:
    reason = error.strerror or error
    log.warning("data.cache=%s: cannot be written to (%s); the images stay in memory", folder, reason)
    return tuple(Cached(array.joined() if isinstance(array, Chunks) else array) for array in made)
