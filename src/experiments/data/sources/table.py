"""The lines of a CSV file that name pictures, and what is wrong with them."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.config import CsvSettings, UserError
from experiments.data.decoding import is_picture
from experiments.data.sources.pictures import SPLIT_OF

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True)
class Row:
    """A line that names a picture.

    Attributes:
        line: its number in the file, from 1.
        path: of the picture, with the root.
        split: a name of `SPLITS`; the word as written if it is none; empty without a column of splits.
        group: empty without a column of groups, or if the line has none.
        wrong: why it has no values; empty if it has them.
    """

    line: int
    path: str
    label: str
    split: str | None
    group: str
    wrong: str = ""


def read_table(content: bytes, settings: CsvSettings, root: str) -> list[Row]:
    """The lines of a CSV file that are not empty, without the first, which names the columns.

    Raises:
        UserError: it is not UTF-8 or not CSV, or lacks a column.
    """
    file = settings.file
    lines = read_lines(content, file)
    number, header = next(lines, (1, []))
    header = [unicodedata.normalize("NFC", cell) for cell in header]
    columns = _columns(header, settings, f"{file}: line {number}")
    return [_row(line, cells, columns, len(header), root) for line, cells in lines]


def read_lines(content: bytes, file: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of each line of a CSV file that is not empty, with the number of the line.

    Raises:
        UserError: it is not UTF-8 or not CSV.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}: line {line}: is not UTF-8; save the file as CSV in UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{file}: line {line}: is not CSV ({error})") from None
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield line, [cell.strip() for cell in cells]


def _columns(header: Sequence[str], settings: CsvSettings, where: str) -> dict[str, int]:
    """What is read -> the index of its column; split and group may be missing under their default names."""
    found: dict[str, int] = {}
    for what in ("path", "label", "split", "group"):
        name = getattr(settings, f"{what}_column")
        optional = name is None or (name == what and what in ("split", "group"))
        if name in header:
            found[what] = header.index(name)
            if header.count(name) > 1:
                raise UserError(f"{where}: there are {header.count(name)} columns {name}; rename one")
        elif not optional:
            raise UserError(f"{where}: {_why_missing(header, name, what)}")
    return found


def _why_missing(header: Sequence[str], name: str, what: str) -> str:
    if not header:
        return "the file is empty; its first line must name the columns, such as path,label"
    separator = next((sign for sign in SEPARATORS if len(header) == 1 and sign in header[0]), None)
    if separator:
        return f"the columns are separated by {SEPARATORS[separator]}; they must be separated by commas"
    if pictures := [cell for cell in header if is_picture(cell)]:
        return f"names a picture ({pictures[0]}), but must name the columns; write a line above it, such as path,label"
    return f"there is no column {name}; the columns are {', '.join(header)}; set data.{what}_column"


def _row(line: int, cells: Sequence[str], columns: dict[str, int], width: int, root: str) -> Row:
    if len(cells) != width:
        return Row(line, "", "", None, "", f"has {len(cells)} cells, but the first line has {width}")
    values = {what: unicodedata.normalize("NFC", cells[column]) for what, column in columns.items()}
    split = SPLIT_OF.get(values["split"].lower(), values["split"]) if "split" in values else None
    name = cells[columns["path"]]  # as the file system spells it
    path = os.path.normpath(os.path.join(root, name)) if name else ""  # noqa: PTH118
    return Row(line, path, values["label"], split, values.get("group", ""))


def find_problems(rows: Sequence[Row], root: str) -> list[str]:
    """What is wrong with each of the lines that cannot be used."""
    seen: dict[str, Row] = {}
    problems = []
    for row in rows:
        first = seen.setdefault(row.path, row)
        reason = row.wrong or _problem(row, root)
        if not reason and first is not row:
            other = f", with the label {first.label}" if first.label != row.label else ""
            reason = f"{row.path} is on line {first.line} too{other}"
        if reason:
            problems.append(f"line {row.line}: {reason}")
    return problems


def _problem(row: Row, root: str) -> str:
    """What is wrong with a line by itself; empty if nothing is."""
    if not row.path:
        return "the path is empty"
    if not row.label:
        return "the label is empty"
    if row.split == "":
        return "the split is empty; must be train, val or test"
    if row.split is not None and row.split not in SPLIT_OF.values():
        return f"the split is {row.split}; must be train, val or test"
    if Path(os.path.relpath(row.path, root)).parts[:1] == ("..",):
        return f"{row.path} is outside of {root or '.'}; set data.root to a folder that contains all pictures"
    if os.path.isfile(row.path):  # noqa: PTH113 - false for any text
        return ""
    return f"{row.path} is not a file" if os.path.exists(row.path) else f"there is no file {row.path}"  # noqa: PTH110
