"""The pictures in folders: what cannot be read is an error, and what is passed over is counted in one line."""

from __future__ import annotations

import collections
import functools
import logging
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from experiments.config import UserError
from experiments.config.wording import counted
from experiments.data.decoding import HEIF_ADVICE, HEIF_ENDINGS, NAMED, is_picture, list_problems

# Files and folders that systems and tools make, in lower case; those whose name begins with a dot need no entry.
IGNORED = {
    "#recycle",  # network storage
    "$recycle.bin",
    "@eadir",  # thumbnails of network storage
    "@recycle",
    "__macosx",  # in archives made on a Mac
    "__pycache__",
    "desktop.ini",
    "ehthumbs.db",
    "lost+found",
    "system volume information",
    "thumbs.db",
}
log = logging.getLogger(__name__)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures in a folder and its subfolders, in the order of their names.

    Raises:
        UserError: a subfolder cannot be read.
    """
    finding = Finding()
    found = finding.pictures(folder)
    finding.check()
    return [Path(file) for file in found]


class Finding:
    """Looks for pictures in folders, and remembers what it passed over."""

    def __init__(self) -> None:
        self._problems: list[str] = []
        self._others: collections.Counter[str] = collections.Counter()  # endings of files that are no pictures
        self._ignored: set[str] = set()  # what systems and tools made; a folder may be listed twice
        self._loose: set[str] = set()  # pictures beside the folders of the classes

    def folders(self, folder: Path) -> dict[str, list[Path]]:
        """The folders in a folder by their names, in their order; names that look equal (in Unicode's NFC) are one.

        Raises:
            UserError: a name is not UTF-8.
        """
        found: dict[str, list[Path]] = {}
        for entry in self._entries(folder):
            if not self._is_folder(entry):
                self._loose |= {entry.path} if is_picture(entry.name) else set()
            elif entry.name.encode("utf-8", "ignore").decode() != entry.name:
                raise UserError(f"{folder}: the name of the folder {entry.name!r} is not UTF-8; rename it")
            else:
                found.setdefault(unicodedata.normalize("NFC", entry.name), []).append(Path(entry.path))
        return dict(sorted(found.items()))

    def pictures(self, folder: Path) -> list[str]:
        """The pictures in a folder and its subfolders, in the order of their names; last, those in linked folders.

        Every folder counts once, whatever links to it.
        """
        found: list[str] = []
        seen: set[tuple[int, int]] = set()
        links = collections.deque([str(folder)])
        while links:
            found += self._walk(links.popleft(), seen, links)
        return found

    def _walk(self, folder: str, seen: set[tuple[int, int]], links: collections.deque[str]) -> Iterator[str]:
        try:
            state = os.stat(folder)  # noqa: PTH116 - a million times
        except OSError as error:
            self._problems.append(f"{folder}: cannot be read ({error.strerror})")
            return
        if (state.st_dev, state.st_ino) in seen:
            return
        seen.add((state.st_dev, state.st_ino))
        for entry in self._entries(folder):
            if self._is_folder(entry):
                if entry.is_symlink():
                    links.append(entry.path)
                else:
                    yield from self._walk(entry.path, seen, links)
            elif not is_picture(entry.name):
                self._others[os.path.splitext(entry.name)[1].lower()] += 1  # noqa: PTH122
            elif self._is_file(entry):
                yield entry.path

    def _entries(self, folder: Path | str) -> list[os.DirEntry[str]]:
        """What is in a folder, in the order of the names, without what systems and tools make."""
        try:
            with os.scandir(folder) as unsorted:
                entries = sorted(unsorted, key=lambda entry: entry.name)
        except OSError as error:
            self._problems.append(f"{folder}: cannot be read ({error.strerror})")
            return []
        kept = [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in IGNORED]
        if len(kept) < len(entries):
            self._ignored |= {entry.path for entry in entries} - {entry.path for entry in kept}
        return kept

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except (
            OSError
        ):  # a link to itself, or to a place that is closed; if it looks like a picture, it is an error below
            return False

    def _is_file(self, entry: os.DirEntry[str]) -> bool:
        try:
            if entry.is_file():
                return True
            reason = "is a link to a file that is not there" if entry.is_symlink() else "is not a file"
        except OSError as error:
            reason = f"cannot be read ({error.strerror})"
        self._problems.append(f"{entry.path}: {reason}")
        return False

    def check(self) -> None:
        """Raise a `UserError` that lists what could not be read, if there is anything."""
        if self._problems:
            raise UserError(
                list_problems(counted(len(self._problems), "file or folder", "files and folders"), self._problems)
            )

    def tell(self, root: Path) -> None:
        """Log what was passed over."""
        if self._others:
            endings = _by_count(self._others)
            advice = f"; {HEIF_ADVICE}" if HEIF_ENDINGS & self._others.keys() else ""
            files = counted(self._others.total(), "file")
            tell_once(f"{root}: {files} ignored: {endings}{advice}")
        if self._ignored:
            names = _by_count(collections.Counter(map(os.path.basename, self._ignored)))
            files = counted(len(self._ignored), "file or folder", "files and folders")
            tell_once(f"{root}: {files} of systems and tools ignored: {names}")
        if self._loose:
            pictures = counted(len(self._loose), "picture")
            tell_once(f"{root}: {pictures} ignored, because they are in no folder of a class")


@functools.cache
def tell_once(message: str) -> None:
    """Log a line once per process: every run of a multirun reads the same data, and starts from the same weights."""
    log.warning("%s", message)


def _by_count(counter: collections.Counter[str]) -> str:
    """The names with their counts, the most frequent first; beyond `NAMED` names, how many more there are."""
    rows = sorted((-count, name or "without an ending") for name, count in counter.items())
    more = [f"{len(rows) - NAMED:,} other kinds"] if len(rows) > NAMED else []
    return ", ".join([*(f"{-count:,} {name}" for count, name in rows[:NAMED]), *more])
