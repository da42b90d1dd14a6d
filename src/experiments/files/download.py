"""Downloads an archive from the first mirror that has it, or a single file: resumed after an interruption, and checked.

An archive is unpacked in one step.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
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
from experiments.files.atomic import replace, replace_synced

TIMEOUT = (10, 30)  # seconds to connect, and between two chunks
CHUNK = 1 << 18  # bytes


def fetch(urls: Sequence[str], sha256: str, root: Path, folder: str, files: Sequence[str]) -> None:
    """Put `root/folder` in place with `files` in it, from the archive in `root` or from one of `urls`.

    If several runs start together, one downloads it and the others wait.

    Raises:
        UserError: if `root` cannot be written to, no mirror has an archive with the right SHA-256, or the archive does not contain `files`.
    """
    archive = root / urlsplit(urls[0]).path.rsplit("/", 1)[-1]
    with _locked(root, root / f".{folder}.lock", f"data.root={root}:"):
        if all((root / folder / file).exists() for file in files):
            return
        if not archive.exists():
            _download(
                urls,
                sha256,
                archive,
                f"Instead, put the archive at {archive}; or set data.root to a folder that contains {folder}/; "
                "or train on data that needs no download: data=digits",
            )
        elif _sha256(archive) != sha256:
            raise UserError(f"{archive}: is damaged (its SHA-256 is not {sha256}); delete it to download it again")
        _unpack(archive, root, folder, files)


def fetch_file(url: str, path: Path, key: str) -> Path:
    """Put the file at `url` in place, unless it is there; returns `path`.

    It is checked if its name has the first digits of its SHA-256, as in "resnet18-f37072fd.pth", also if it was there; and
    after a download from a server that sends its SHA-256, as Hugging Face does.

    Raises:
        UserError: `key` and the reason, if the folder cannot be written to, or the file cannot be downloaded or is damaged.
    """
    with _locked(path.parent, path.with_name(f".{path.name}.lock"), f"{key}: {path.parent}"):
        if not path.exists():
            _download(
                [url], _digits(url), path, f"Instead, download it on another computer and put it at {path} ({key})"
            )
        elif not _sha256(path).startswith(_digits(path.name)):
            raise UserError(
                f"{key}: {path} is damaged (its SHA-256 does not start with {_digits(path.name)}); delete it to download it again"
            )
    return path


@contextlib.contextmanager
def _locked(root: Path, file: Path, place: str) -> Iterator[None]:
    """Make the folder `root` and lock `file` in it; if the block fails, the file and the folders that were made are removed.

    Raises:
        UserError: the folder cannot be used; the message starts with `place`.
    """
    try:
        made = [path for path in (root, *root.parents) if not path.exists()]
        root.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(file).acquire()
    except OSError as error:
        raise UserError(f"{place} cannot be used for the download ({error.strerror})") from None
    try:
        with lock:
            yield
    except BaseException:
        with contextlib.suppress(OSError):  # there is a part of the archive, which is continued later
            file.unlink(missing_ok=True)  # Windows deletes no file that is open
            for path in made:
                path.rmdir()
        raise


def _digits(name: str) -> str:
    """The first digits of a file's SHA-256, if its name has them."""
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", name)
    return found[1] if found else ""


def _download(urls: Sequence[str], sha256: str, archive: Path, advice: str) -> None:
    """Download `archive`, whose SHA-256 starts with `sha256`."""
    part = archive.with_suffix(archive.suffix + ".part")
    failures = []
    for url in urls:
        try:
            sent = _stream(url, part)
        except requests.RequestException as error:
            failures.append(f"  {url}: {_reason(error)}")
            continue
        found = _sha256(part)
        if found.startswith(sha256) and found.startswith(sent):
            replace_synced(part, archive)
            return
        part.unlink()  # another file, which cannot be resumed
        failures.append(f"  {url}: sent another file (wrong SHA-256)")
    raise UserError("\n".join([f"{archive.name} could not be downloaded:", *failures, advice]))


def _stream(url: str, part: Path) -> str:
    """Append the missing rest of the file at `url` to `part`. Returns its SHA-256 if the server sends it, else nothing."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        sent = [each.headers.get("X-Linked-Etag", "").strip('"') for each in response.history]
        digest = next((text for text in sent if re.fullmatch("[0-9a-f]{64}", text)), "")
        if response.status_code == 416:  # part is complete
            return digest
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
    return digest


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
        replace(Path(temporary) / folder, root / folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, requests.HTTPError):
        return f"{error.response.status_code} {error.response.reason}"
    return "timed out" if isinstance(error, requests.Timeout) else "no connection, or the connection broke off"
