"""The files of a checkpoint: where they are, and what they hold. Each ends with the SHA-256 of its content."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from experiments.files.atomic import atomic_write, replace

FORMAT = 4
KEYS = {"run_id", "history", "running", "stopping", "best", "model", "average", "optimizer", "random"}
KEYS |= {"machine", "processes"}
DIGEST = hashlib.sha256().digest_size  # bytes at the end of the file
log = logging.getLogger(__name__)


def previous(path: Path) -> Path:
    """Where the checkpoint before `path` is kept."""
    return path.with_stem(f"{path.stem}-previous")


def of_running(path: Path) -> Path:
    """Where the checkpoint of the epoch that follows `path` is kept."""
    return path.with_stem(f"{path.stem}-inside-epoch")


def write(content: Mapping[str, Any], path: Path, inside_epoch: bool) -> None:
    """Write what a checkpoint holds; if the process or the machine stops, there is either this or the previous one.

    Args:
        path: of the checkpoint after an epoch; that of a running epoch is written beside it.
    """
    written = io.BytesIO()
    torch.save({"format": FORMAT, **content}, written)
    with atomic_write(of_running(path) if inside_epoch else path) as file:
        file.write(written.getbuffer())
        file.write(hashlib.sha256(written.getbuffer()).digest())
        if path.exists() and not inside_epoch:
            replace(path, previous(path))
    if not inside_epoch:
        of_running(path).unlink(missing_ok=True)


def read(file: Path) -> dict[str, Any] | None:
    """The content of a checkpoint, on the CPU; None if it is of another version.

    Raises:
        ValueError: it is damaged.
    """
    written = file.read_bytes()
    if hashlib.sha256(written[:-DIGEST]).digest() != written[-DIGEST:]:
        raise ValueError(f"{file} is damaged")
    data = io.BytesIO(written[:-DIGEST])
    try:
        content = torch.load(data, map_location="cpu", weights_only=True)  # no code can run
    except Exception as error:  # PyTorch raises many classes of errors
        raise ValueError(f"{file} is damaged ({type(error).__name__})") from None
    if not isinstance(content, dict) or (content.get("format") == FORMAT and not content.keys() >= KEYS):
        raise ValueError(f"{file} is damaged")
    return content if content.get("format") == FORMAT else None


def newest(path: Path, run_id: str, whole_epochs: bool) -> dict[str, Any] | None:
    """What `save` wrote last of the run `run_id`; each checkpoint is complete without the others."""
    found = [_load(path, previous(path), otherwise="training starts from its first epoch")]
    if not whole_epochs:
        found.append(_load(of_running(path), otherwise="the epoch starts again"))
    usable = [content for content in found if content and content["run_id"] == run_id]
    return max(usable, key=lambda content: (len(content["history"]), content["running"] is not None), default=None)


def _load(*files: Path, otherwise: str) -> dict[str, Any] | None:
    """The content of the first file that exists and is not damaged, on the CPU; None if there is nothing usable."""
    damaged = None
    for file in files:
        if not file.exists():
            continue
        try:
            content = read(file)
        except ValueError:
            damaged = damaged or file
            file.unlink()  # else the next checkpoint would replace the one before it by this one
            continue
        if damaged:
            log.warning("%s is damaged and not used: the one before it is used", damaged)
        return content
    if damaged:
        log.warning("%s is damaged and not used: %s", damaged, otherwise)
    return None
