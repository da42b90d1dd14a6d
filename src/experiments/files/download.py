"""Downloads an archive from the first mirror that has it: resumed after an interruption, checked, and unpacked in one step."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import filelock
import requests
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from experiments.config import UserError
from experiments.files.atomic import replace_synced

TIMEOUT = (10, 30)  # seconds to connect, and between two chunks
CHUNK = 1 << 18  # bytes


def fetch(urls: Sequence[str], sha256: str, root: Path, folder: str, files: Sequence[str]) -> None:
    """Put `root/folder` in place with `files` in it, from the archive in `root` or from one of `urls`.

    If several runs start together, one downloads it and the others wait.

    Raises:
        UserError: if `root` cannot be written to, no mirror has an archive with the right SHA-256, or the archive does not contain `files`.
    """
    archive = root / urlsplit(urls[0]).path.rsplit("/", 1)[-1]
    with _locked(root, root / f".{folder}.lock"):
        if all((root / folder / file).exists() for file in files):
            return
        if not archive.exists():
            _download(urls, sha256, archive, folder)
        elif _sha256(archive) != sha256:
            raise UserError(f"{archive}: is damaged (its SHA-256 is not {sha256}); delete it to download it again")
        _unpack(archive, root, folder, files)


@contextlib.contextmanager
def _locked(root: Path, file: Path) -> Iterator[None]:
    """Make the folder `root` and lock `file` in it; if the block fails, the file and the folders that were made are removed."""
    try:
        made = [path for path in (root, *root.parents) if not path.exists()]
        root.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(file).acquire()
    except OSError as error:
        raise UserError(f"data.root={root}: cannot be used for the download ({error.strerror})") from None
    with lock:
        try:
            yield
        except BaseException:
            file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # there is a part of the archive, which is continued later
                for path in made:
                    path.rmdir()
            raise


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
            replace_synced(part, archive)
            return
        part.unlink()  # another file, which cannot be resumed
        failures.append(f"  {url}: sent another file (wrong SHA-256)")
    raise UserError(
        f"{archive.name} could not be downloaded:\n" + "\n".join(failures) + "\n"
        f"Instead, put the archive at {archive}; or set data.root to a folder that contains {folder}/; "
        "or train on data that needs no download: data=digits"
    )


def _stream(url: str, part: Path) -> None:
    """Append the missing rest of the file at `url` to `part`."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # part is complete
            return
        response.raise_for_status()
        if response.status_code != 206:  # this server ignores the range and sends the whole file
            start = 0
        length = int(response.headers.get("Content-Length", 0))
        columns = (TextColumn(part.stem), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns) as progress, part.open("ab" if start else "wb") as file:
            bar = progress.add_task("", total=start + length or None, completed=start)
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                progress.advance(bar, len(chunk))


def _unpack(archive: Path, root: Path, folder: str, files: Sequence[str]) -> None:
    """Extract `files` to a temporary folder in `root`, then move its folder into place in one step."""
    with tempfile.TemporaryDirectory(dir=root, prefix=".unpack-") as temporary:
        try:
            with tarfile.open(archive) as tar:
                for file in files:
                    tar.extract(f"{folder}/{file}", temporary, filter="data")
        except (KeyError, tarfile.TarError, EOFError, OSError) as error:
            raise UserError(f"{archive}: cannot be unpacked ({error}); delete it to download it again") from None
        shutil.rmtree(root / folder, ignore_errors=True)  # an incomplete folder
        (Path(temporary) / folder).replace(root / folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, requests.HTTPError):
        return f"{error.response.status_code} {error.response.reason}"
    return "timed out" if isinstance(error, requests.Timeout) else "no connection, or the connection broke off"
