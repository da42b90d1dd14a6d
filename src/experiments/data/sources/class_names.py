"""Readable names of classes from a file: n01440764 -> tench."""

from __future__ import annotations

import collections
import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config import UserError
from experiments.config.wording import counted, named


def readable(classes: Sequence[str], file: str | None) -> tuple[str, ...]:
    """The readable names of the classes, in their order; the classes themselves without a file.

    The file is a text with a line per class, a JSON list of names, JSON {class: name}, or an index of ImageNet,
    JSON {"0": ["n01440764", "tench"]}. Names that several classes share get the class behind them, as the two cranes of ImageNet.

    Raises:
        UserError: the file cannot be read, or has no name for a class.
    """
    if file is None:
        return tuple(classes)
    known = _read(file)
    if isinstance(known, list):
        if len(known) != len(classes):
            raise UserError(
                f"data.class_names={file}: has {counted(len(known), 'name')}, but there are {counted(len(classes), 'class', 'classes')}: "
                f"{named(classes)}; it must have a name per class, in this order"
            )
        known = dict(zip(classes, known))
    if missing := [name for name in classes if name not in known]:
        raise UserError(f"data.class_names={file}: has no name for {named(missing)}")
    names = [unicodedata.normalize("NFC", known[name].strip()) for name in classes]
    if empty := [name for name, text in zip(classes, names) if not text]:
        raise UserError(f"data.class_names={file}: the name of {named(empty)} is empty")
    counts = collections.Counter(names)
    return tuple(f"{text} ({name})" if counts[text] > 1 else text for name, text in zip(classes, names))


def _read(file: str) -> list[str] | dict[str, str]:
    path = Path(os.path.expanduser(file))  # noqa: PTH111 - as in the check of the settings
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"data.class_names={file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"data.class_names={file}: is not UTF-8") from None
    if path.suffix.lower() != ".json":
        return text.rstrip().splitlines()
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"data.class_names={file}: is not JSON ({error})") from None
    if (found := _names(content)) is None:
        raise UserError(
            f'data.class_names={file}: must be {{"folder": "name"}}, ["name"], or {{"0": ["folder", "name"]}} as ImageNet\'s index'
        )
    return found


def _names(content: Any) -> list[str] | dict[str, str] | None:
    """The names in the content of a JSON file; None if it has another form."""
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return content
    if not isinstance(content, Mapping):
        return None
    pairs = list(content.items())
    if all(isinstance(value, list) for value in content.values()):  # ImageNet's index
        pairs = [tuple(value) for value in content.values() if len(value) == 2]
    if len(pairs) < len(content) or not all(isinstance(text, str) for pair in pairs for text in pair):
        return None
    return {unicodedata.normalize("NFC", name): text for name, text in pairs}
