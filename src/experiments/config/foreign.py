"""Texts that others wrote (names, addresses, errors), made harmless for everything that shows or stores them.

mask_passwords("http://me:secret@host")      # http://me:***@host
printable("\\x1b[31mcat")                     # \\x1b[31mcat, as visible characters
cell("=cmd|x.png")                           # '=cmd|x.png, which a spreadsheet does not run
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, TextIO, TypeVar

MASK = "***"
# In addresses: a user of a web server without a password (usually a token), a password, and secrets of the query.
TOKEN = re.compile(r"""(https?://)(?:(?!://)[^\s:/?#"<>])+(?::(?:x-oauth-basic)?)?@""", re.IGNORECASE)
PASSWORD = re.compile(r"""(://[^\s:/@"]*:)(?:(?!://)[^\s"<>])*@""")
QUERY = re.compile(
    r"""([?&#;][^\s=&?"]*(?:auth|cred|key|pass|pwd|secret|sig|token)[^\s=&?"]*=)(?:(?!,\w+://)[^\s&"'#\]])+""",
    re.IGNORECASE,
)
# Characters that move the cursor, colour the text, or change its direction, and line breaks.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
FORMULA = ("=", "+", "-", "@", "\t", "\r")

T = TypeVar("T")


def mask_passwords(value: T) -> T:
    """A text with the passwords in its addresses masked, for everything that others may read; also inside containers."""
    masked: Any = value
    if isinstance(value, str):
        masked = PASSWORD.sub(rf"\1{MASK}@", TOKEN.sub(rf"\1{MASK}@", value))
        masked = QUERY.sub(rf"\1{MASK}", masked)
    elif isinstance(value, Mapping):
        masked = {key: mask_passwords(item) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        masked = type(value)(mask_passwords(item) for item in value)
    return masked


def printable(text: str, lines: bool = False) -> str:
    """The text with control characters as visible escapes; `lines`: line breaks stay."""

    def visible(found: re.Match[str]) -> str:
        return found[0] if lines and found[0] in "\n\t" else found[0].encode("unicode_escape").decode()

    return CONTROL.sub(visible, text)


def json_text(value: object) -> str:
    """A value as JSON for people and programs, in which control characters are escapes as well."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return CONTROL.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def say(*values: object, file: TextIO | None = None, lines: bool = False) -> None:
    """Print each value on a line of its own, see `printable`, without passwords."""
    for value in values:
        print(printable(mask_passwords(str(value)), lines), file=file or sys.stdout, flush=True)


def cell(value: object) -> object:
    """The cell of a table for people: a text that a spreadsheet would run as a formula gets an apostrophe, numbers do not."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def text_of_cell(value: str) -> str:
    """The text of a cell that `cell` may have given an apostrophe."""
    return value[1:] if value.startswith("'") and cell(value[1:]) != value[1:] else value


class Record(logging.LogRecord):
    """A log record whose message is harmless: `logging.setLogRecordFactory(Record)`."""

    def getMessage(self) -> str:
        return printable(mask_passwords(super().getMessage()), lines=True)
