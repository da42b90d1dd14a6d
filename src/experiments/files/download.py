"""An archive from the first mirror that has it: continued where it broke off, checked, and moved into place at once."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import filelock
import requests
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from experiments.config import UserError

TIMEOUT = (10, 30)  # seconds to connect, and between two pieces
PIECE = 1 << 18  # bytes


def fetch(urls: Sequence[str], sha256: str, root: Path, folder: str, files: Sequence[str]) -> None:
    """Put `root/folder` in place with `files` in it, from the archive in `root` or from one of `urls`.

    Runs that start together download once: the others wait, and find it there.

    Raises:
        UserError: where no mirror gives an archive with the right SHA-256, or it does not hold `files`.
    """
    root.mkdir(parents=True, exist_ok=True)
    archive = root / urls[0].rsplit("/", 1)[-1]
    with filelock.FileLock(root / f".{folder}.lock"):
        if all((root / folder / file).exists() for file in files):
            return
        if not archive.exists():
            _download(urls, sha256, archive, folder)
        elif _sha256(archive) != sha256:
            raise UserError(f"{archive}: is damaged (its SHA-256 is not {sha256}); delete it to download it again")
        _unpack(archive, root, folder, files)


def _download(urls: Sequence[str], sha256: str, archive: Path, folder: str) -> None:
    part = archive.with_suffix(archive.suffix + ".part")
    failures = []
    for url in urls:
        try:
            _stream(url, part)
        except requests.RequestException as error:
            failures.append(f"  {url}: {_reason(error)}")
            continue
        if _sha256(part) == sha256:
            part.replace(archive)
            return
        part.unlink()  # what came is something else: nothing of it can be continued
        failures.append(f"  {url}: what came is not the archive (wrong SHA-256)")
    raise UserError(
        f"{archive.name} could not be downloaded:\n" + "\n".join(failures) + "\n"
        f"Three ways on: put the archive at {archive}; or point data.root at a folder that holds {folder}/; "
        "or train on data that needs no download: data=digits"
    )


def _stream(url: str, part: Path) -> None:
    """Append to `part` what it lacks of the file behind `url`."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # nothing is missing
            return
        response.raise_for_status()
        if response.status_code != 206:  # this server starts from the beginning, whatever it was asked
            have = 0
        length = int(response.headers.get("Content-Length", 0))
        columns = (TextColumn(part.stem), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns) as progress, part.open("ab" if have else "wb") as file:
            bar = progress.add_task("", total=have + length or None, completed=have)
            for piece in response.iter_content(PIECE):
                file.write(piece)
                progress.advance(bar, len(piece))


def _unpack(archive: Path, root: Path, folder: str, files: Sequence[str]) -> None:
    """Extract `files` beside their place, then move the whole folder there in one step."""
    with tempfile.TemporaryDirectory(dir=root, prefix=".unpack-") as temporary:
        try:
            with tarfile.open(archive) as tar:
                for file in files:
                    tar.extract(f"{folder}/{file}", temporary, filter="data")
        except (KeyError, tarfile.TarError, EOFError, OSError) as error:
            raise UserError(f"{archive}: cannot be unpacked ({error}); delete it to download it again") from None
        shutil.rmtree(root / folder, ignore_errors=True)  # a folder that lacks files
        (Path(temporary) / folder).replace(root / folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, requests.HTTPError):
        return f"{error.response.status_code} {error.response.reason}"
    return "timed out" if isinstance(error, requests.Timeout) else "no connection, or it broke off"
